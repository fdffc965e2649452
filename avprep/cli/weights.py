"""`avprep weights`: how often each clip is drawn in class-balanced epochs."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import click

import avprep
from avprep.cli.common import ClassCsv
from avprep.cli.flags import PATH, flags
from avprep.option import Options, option
from avprep.wording import counted


@dataclass(frozen=True)
class Target(Options):
    """Where the weights go."""

    out: Path | None = option(None, "CSV to write. [default: M_weight.csv beside M.json]")
    shards: str | None = option(
        None, "Also store the class weights in this shard set's dataset.json."
    )


@click.command()
@click.argument("manifest", type=PATH)
@flags(class_csv=ClassCsv, target=Target)
def weights(manifest: Path, class_csv: ClassCsv, target: Target) -> None:
    """Write the sampling weight of each clip of MANIFEST: one number per line, in its order.

    A class of n clips weighs 1000 / (n + 0.01), a clip the sum over its classes, as published.
    Balanced epochs (`cavmae finetune --balanced`) count the classes of the shard set themselves;
    with --shards they take this manifest's counts instead, failed clips included.

    \b
    Example:
      avprep weights train.json --labels class_labels_indices.csv
    """
    made = avprep.weigh_clips(manifest, target.out, class_csv.labels, target.shards)
    click.echo(
        f"{made.path}: weights of {counted(made.clips, 'clip')} in {counted(made.classes, 'class')}"
    )
    if target.shards is not None:
        click.echo(f"{target.shards}: balanced epochs draw by these weights")
