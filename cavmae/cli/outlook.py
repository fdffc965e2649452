"""What a training command says before its first step, and a few steps later."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta
from typing import TYPE_CHECKING

import click

from avprep.wording import counted

if TYPE_CHECKING:
    from cavmae.train.outlook import Outlook

_MENTIONED = 0.1  # share of padding


def tell_outlook(outlook: Outlook) -> None:
    """Say on stderr how long a run is, and what speaks against it."""
    for line in describe(outlook):
        click.echo(line, err=True)


def tell_pace(seconds: float) -> None:
    """Say on stderr how long the rest of a run will take."""
    click.echo(f"about {timedelta(seconds=round(seconds))} left (h:mm:ss)", err=True)


def describe(outlook: Outlook) -> Iterator[str]:
    """The lines, warnings last."""
    length = f"{counted(outlook.clips, 'clip')}, {counted(outlook.steps, 'step')} in all, "
    length += f"{outlook.steps_per_epoch} per epoch"
    if outlook.steps_done:
        length += f"; {outlook.steps_done} done"
    yield length
    if outlook.held_out:
        yield f"{counted(outlook.held_out, 'held-out clip')}, evaluated after each epoch"
    if outlook.fitting_rows is not None:
        yield (
            f"warning: {outlook.padding:.0%} of what the model hears is padding. With "
            f"--audio-frames {outlook.fitting_rows} (or fit) it has room for these clips, takes "
            "less time and learns from sound alone"
        )
    elif outlook.padding > _MENTIONED:
        yield f"{outlook.padding:.0%} of what the model hears is padding"
    if outlook.epochs_needed is not None:
        yield (
            f"warning: random weights learn little in {counted(outlook.steps, 'step')}. Give "
            f"--epochs {outlook.epochs_needed} or more, a smaller --batch-size, or start from "
            "trained weights with --init"
        )
