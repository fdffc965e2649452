"""`cavmae average`: the mean of several checkpoints' weights."""

from __future__ import annotations

from pathlib import Path

import click


@click.command()
@click.argument(
    "checkpoints", nargs=-1, required=True, metavar="CHECKPOINT…", type=click.Path(path_type=Path)
)
@click.option(
    "--out", type=click.Path(path_type=Path), required=True, help="The .safetensors file to write."
)
def average(checkpoints: tuple[Path, ...], out: Path) -> None:
    """Write the mean of the weights of several checkpoints of one model.

    The checkpoints of a run stand in RUN/checkpoints; --keep-checkpoints says how many stay.
    `cavmae finetune --average-epochs` averages while it trains and needs none of them.

    \b
    Example:
      cavmae average runs/finetune/checkpoints/step-* --out averaged.safetensors
    """
    from cavmae.checkpoints.average import average_checkpoints

    count = average_checkpoints(checkpoints, out)
    click.echo(f"{out}: mean of {count} checkpoints")
