"""`cavmae stats`: mean and standard deviation of a shard set's fbank."""

from __future__ import annotations

import click

import cavmae
from avprep.cli.flags import flags
from avprep.cli.progress import Bars
from cavmae.cli.results import left_out
from cavmae.options import StatsOptions


@click.command()
@click.argument("shards")
@flags(options=StatsOptions)
def stats(shards: str, options: StatsOptions) -> None:
    """Measure the fbank's mean and standard deviation over SHARDS.

    Writes them into SHARDS/dataset.json, where training finds them. To measure only the clips that
    are trained on, give --split, --classes or --select.

    \b
    Example:
      cavmae stats shards/train
      cavmae stats shards/all --split train
    """
    with Bars("stats") as bars:
        found = cavmae.stats(shards, options, bars)
    measured = f"fbank mean {found.mean:.4f}, std {found.std:.4f} over {found.samples} samples"
    click.echo("\n".join((f"{shards}: {measured}", *left_out(found.unreadable, 0))))
