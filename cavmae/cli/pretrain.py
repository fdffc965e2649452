"""`cavmae pretrain`: train CAV-MAE on a shard set."""

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
from cavmae.train.options import TrainOptions


@click.command()
@click.option("--shards", required=True, help="Folder or URL of the training shard set.")
@click.option("--out", type=click.Path(path_type=Path), required=True, help="Run directory.")
@click.option(
    "--val-shards",
    help="Shard set to evaluate on before the first step and after each epoch. [default: none]",
)
@val_split_option
@click.option(
    "--val-clips",
    type=click.IntRange(min=0),
    default=TrainOptions.val_clips,
    show_default=True,
    help="Clips of --val-shards to use, evenly spread; 0 for all.",
)
@click.option("--init", type=click.Path(path_type=Path), help="Checkpoint or run to start from.")
@click.option(
    "--model",
    help="Size: tiny, small, base (published) or large. [default: base, or as --init]",
)
@audio_frames_option
@click.option(
    "--mask-ratio",
    type=click.FloatRange(0, 1, min_open=True, max_open=True),
    default=0.75,
    show_default=True,
    help="Share of patches hidden from the encoder.",
)
@click.option(
    "--mask-mode",
    type=click.Choice(["unstructured", "time", "freq", "tf"]),
    default="unstructured",
    show_default=True,
    help="How audio patches are chosen.",
)
@click.option(
    "--mae-weight",
    type=click.FloatRange(min=0),
    default=1.0,
    show_default=True,
    help="Weight of the reconstruction loss.",
)
@click.option(
    "--contrast-weight",
    type=click.FloatRange(min=0),
    default=0.01,
    show_default=True,
    help="Weight of the contrastive loss.",
)
@click.option(
    "--contrast-scope",
    type=click.Choice(["per-rank", "global"]),
    default="per-rank",
    show_default=True,
    help="Contrast within each process's batch, as published, or over all of them.",
)
@click.option(
    "--bidirectional/--one-direction",
    default=False,
    show_default=True,
    help="Contrast image to audio as well as audio to image.",
)
@click.option(
    "--norm-pix-loss/--no-norm-pix-loss",
    default=True,
    show_default=True,
    help="Reconstruct patches normalised one by one.",
)
@training_options
def pretrain(**values: Any) -> None:
    """Train CAV-MAE: reconstruct masked patches, and match sounds with images.

    Writes RUN/model.safetensors, log.csv, curves.png, result.json, TensorBoard events and
    checkpoints. After an interruption the same command resumes where it was. With --val-shards
    they also show losses, retrieval and k-NN accuracy on clips that are not trained on. --classes
    chooses clips of both sets.

    \b
    Example:
      cavmae pretrain --shards shards/train --out runs/pretrain --model base
      torchrun --standalone --nproc-per-node 8 -m cavmae pretrain \\
          --shards shards/train --out runs/pretrain
    """
    from cavmae.train.runs import Told, run_pretraining

    told = Told(tell_outlook, tell_pace)
    train_or_rehearse(run_pretraining, values, expected_of_recipe(), told)
