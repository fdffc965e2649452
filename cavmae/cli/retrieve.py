"""`cavmae retrieve`: how well sounds find their pictures, and pictures their sounds."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from cavmae.cli.options import (
    bad_samples_option,
    device_option,
    reading_options,
    workers_option,
)


@click.command()
@click.option("--shards", required=True, help="Folder or URL of the shard set.")
@click.option(
    "--checkpoint", type=click.Path(path_type=Path), required=True, help="Run or checkpoint file."
)
@click.option(
    "--out",
    type=click.Path(path_type=Path),
    help="Folder for retrieval.json and retrieval.html. [default: print only]",
)
@click.option(
    "--per-class",
    type=click.IntRange(min=0),
    default=0,
    show_default=True,
    help="Use at most N clips of each class (published: 5); 0 for all clips.",
)
@click.option("--seed", type=int, default=0, show_default=True, help="Seed of --per-class.")
@click.option(
    "--frames",
    default="middle",
    show_default=True,
    help="middle, all (their features are averaged), or a frame's number.",
)
@click.option(
    "--queries",
    type=click.IntRange(min=1),
    default=8,
    show_default=True,
    help="Queries that the page shows, of each direction.",
)
@click.option("--batch-size", type=click.IntRange(min=1), default=32, show_default=True,
              help="Clips a batch.")  # fmt: skip
@click.option("--json", "as_json", is_flag=True, help="Print one line of JSON.")
@reading_options
@bad_samples_option
@workers_option
@device_option
def retrieve(**values: Any) -> None:
    """Recall at 1, 5, 10 and median rank, from audio to image and back.

    Every clip's audio looks for its own frame among those of all clips, and the other way round.

    \b
    Example:
      cavmae retrieve --shards shards/test --checkpoint runs/pretrain --out runs/retrieval
    """
    from cavmae.evaluation.retrieve import run_retrieval

    run_retrieval(values)
