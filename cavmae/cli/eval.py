"""`cavmae eval`: how good a classifier is on a shard set."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from cavmae.cli.options import (
    bad_samples_option,
    config_option,
    criterion_option,
    device_option,
    labels_option,
    mode_option,
    reading_options,
    taken_from_recipe,
    workers_option,
)


@click.command("eval")
@config_option
@click.option("--shards", required=True, help="Folder or URL of the shard set.")
@click.option(
    "--checkpoint", type=click.Path(path_type=Path), required=True, help="Run or checkpoint file."
)
@mode_option
@criterion_option
@labels_option
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
@click.pass_context
def evaluate(ctx: click.Context, **values: Any) -> None:
    """Accuracy, mAP, AUC and d′ of a classifier.

    Under torchrun the clips are shared among the processes, each read once.

    \b
    Example:
      cavmae eval --shards shards/test --checkpoint runs/finetune
    """
    from cavmae.checkpoints.usage import Stated
    from cavmae.evaluation.evaluate import run_evaluation

    recipe = Stated(**taken_from_recipe(ctx, values, ("mode", "criterion")))
    run_evaluation(values, recipe)
