"""`cavmae finetune`: train a classifier on a shard set."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from cavmae.cli.dry_run import train_or_rehearse
from cavmae.cli.options import (
    audio_frames_option,
    expected_of_recipe,
    training_options,
    val_split_option,
)
from cavmae.cli.outlook import tell_outlook, tell_pace
from cavmae.train.options import OptimOptions


@click.command()
@click.option("--shards", required=True, help="Folder or URL of the training shard set.")
@click.option("--val-shards", required=True, help="Shard set to evaluate on after each epoch.")
@click.option("--out", type=click.Path(path_type=Path), required=True, help="Run directory.")
@val_split_option
@click.option(
    "--init",
    type=click.Path(path_type=Path),
    help="Pretrained checkpoint or run. [default: random weights]",
)
@click.option(
    "--model",
    help="Size: tiny, small, base (published) or large. [default: base, or as --init]",
)
@audio_frames_option
@click.option(
    "--mode",
    type=click.Choice(["multimodal", "audioonly", "videoonly"]),
    default="multimodal",
    show_default=True,
    help="Modalities the classifier is given.",
)
@click.option(
    "--loss",
    "criterion",
    type=click.Choice(["auto", "bce", "ce"]),
    default="auto",
    show_default=True,
    help="auto: ce where every clip has exactly one label, else bce.",
)
@click.option(
    "--head-lr-ratio",
    type=click.FloatRange(min=0),
    default=OptimOptions().head_lr_ratio,
    show_default=True,
    help="The head's learning rate over the base's.",
)
@click.option("--freeze-base", is_flag=True, help="Train the head alone (linear probe).")
@click.option(
    "--layer-decay",
    type=click.FloatRange(0, 1, min_open=True),
    default=OptimOptions().layer_decay,
    show_default=True,
    help="Learning rate of each block over that of the next.",
)
@click.option(
    "--mixup",
    type=click.FloatRange(0, 1),
    default=0.5,
    show_default=True,
    help="Share of clips mixed with another.",
)
@click.option(
    "--freq-mask",
    type=click.IntRange(min=0),
    default=48,
    show_default=True,
    help="SpecAugment: widest band hidden, mel bins.",
)
@click.option(
    "--time-mask",
    type=click.IntRange(min=0),
    default=192,
    show_default=True,
    help="SpecAugment: longest stretch hidden, fbank rows.",
)
@click.option(
    "--label-smooth",
    type=click.FloatRange(0, 1, max_open=True),
    default=0.1,
    show_default=True,
    help="Label smoothing.",
)
@click.option(
    "--balanced/--uniform",
    default=False,
    show_default=True,
    help="Draw rare classes as often as frequent ones.",
)
@training_options
def finetune(**values: Any) -> None:
    """Train a classifier on audio and frames, starting from a pretrained CAV-MAE.

    Evaluates on the middle frame after each epoch and keeps the best weights as
    RUN/best.safetensors. --classes and --split choose training clips; --classes also those of
    --val-shards.

    \b
    Example:
      cavmae finetune --shards shards/train --val-shards shards/test \\
          --init runs/pretrain --out runs/finetune
    """
    from cavmae.train.runs import Told, run_finetuning

    told = Told(tell_outlook, tell_pace)
    train_or_rehearse(run_finetuning, values, expected_of_recipe(), told)
