"""`cavmae average`: the mean of several checkpoints' weights."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import click

import cavmae
from avprep.cli.flags import flags
from avprep.option import Options, option


@dataclass(frozen=True)
class Target(Options):
    """Where the result goes."""

    out: Path = option(help="The .safetensors file to write.")


@click.command()
@click.argument("checkpoints", nargs=-1, required=True, metavar="CHECKPOINT…")
@flags(target=Target)
def average(checkpoints: tuple[str, ...], target: Target) -> None:
    """Write the mean of the weights of several checkpoints of one model.

    The checkpoints of a run are in RUN/checkpoints; --keep-checkpoints says how many are kept.
    `cavmae finetune --average-epochs` averages while it trains and does not need them.

    \b
    Example:
      cavmae average runs/finetune/checkpoints/step-* --out averaged.safetensors
    """
    averaged = cavmae.average(checkpoints, target.out)
    click.echo(f"{averaged.file}: mean of {averaged.count} checkpoints")
