"""`cavmae eval`: how good a classifier is on a shard set."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from cavmae.cli.options import (
    bad_samples_option,
    config_option,
    device_option,
    reading_options,
    workers_option,
)
from cavmae.options import MODES


@click.command()
@config_option
@click.option("--shards", required=True, help="Folder or URL of the shard set.")
@click.option(
    "--checkpoint", type=click.Path(path_type=Path), required=True, help="Run or checkpoint file."
)
@click.option(
    "--mode",
    type=click.Choice(MODES),
    help="Modalities given. [default: as trained]",
)
@click.option(
    "--frames",
    default="all",
    show_default=True,
    help="all (their probabilities are averaged), each (also one by one), middle, or a number.",
)
@click.option("--batch-size", type=click.IntRange(min=1), default=32, show_default=True,
              help="Clips a batch.")  # fmt: skip
@click.option("--per-class-csv", type=click.Path(path_type=Path), help="Write one line a class.")
@click.option("--json", "as_json", is_flag=True, help="Print one line of JSON.")
@reading_options
@bad_samples_option
@workers_option
@device_option
def evaluate(**values: Any) -> None:
    """Accuracy, mAP, AUC and d′ of a classifier.

    Under torchrun the clips are shared among the processes, each read once.

    \b
    Example:
      cavmae eval --shards shards/test --checkpoint runs/finetune
    """
    from cavmae.evaluate.report import run_evaluation

    run_evaluation(values)
