"""`cavmae knn`: how well a clip's nearest neighbours tell its labels."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from cavmae.cli.options import (
    bad_samples_option,
    device_option,
    reading_options,
    val_split_option,
    workers_option,
)


@click.command()
@click.option("--shards", required=True, help="Shard set whose labels are known.")
@click.option(
    "--val-shards",
    help="Shard set to classify. [default: each clip of --shards by all others]",
)
@val_split_option
@click.option(
    "--checkpoint", type=click.Path(path_type=Path), required=True, help="Run or checkpoint file."
)
@click.option(
    "--modality",
    type=click.Choice(["both", "audio", "image"]),
    default="both",
    show_default=True,
    help="Whose features; both averages their similarities.",
)
@click.option(
    "--neighbours",
    type=click.IntRange(min=1),
    default=20,
    show_default=True,
    help="That vote, all if there are fewer.",
)
@click.option(
    "--temperature",
    type=click.FloatRange(min=0, min_open=True),
    default=0.07,
    show_default=True,
    help="A vote weighs exp(cosine similarity / temperature).",
)
@click.option(
    "--frames",
    default="middle",
    show_default=True,
    help="middle, all (their features are averaged), or a frame's number.",
)
@click.option("--batch-size", type=click.IntRange(min=1), default=32, show_default=True,
              help="Clips a batch.")  # fmt: skip
@click.option("--json", "as_json", is_flag=True, help="Print one line of JSON.")
@reading_options
@bad_samples_option
@workers_option
@device_option
def knn(**values: Any) -> None:
    """Accuracy, mAP and AUC of a nearest-neighbour classifier on a model's features.

    Nothing is trained: a quick look at what a pretrained model has learnt. --classes chooses clips
    of both sets, --split those of --shards and --val-split those of --val-shards.

    \b
    Example:
      cavmae knn --shards shards/train --val-shards shards/test --checkpoint runs/pretrain
    """
    from cavmae.evaluation.knn import run_knn

    run_knn(values)
