"""A training command: it trains, or with --dry-run says how that would go."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from contextlib import nullcontext, redirect_stdout
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import click

from avprep.errors import UserError
from avprep.wording import counted
from cavmae.recipes import Expected

if TYPE_CHECKING:
    from cavmae.train.dry_run import DryRun
    from cavmae.train.runs import Told

Run = Callable[[dict[str, Any], Expected | None, "Told"], "DryRun | None"]


def train_or_rehearse(
    run: Run, values: dict[str, Any], expected: Expected | None, told: Told
) -> None:
    """Train, or print what a dry run found.

    Args:
        run: the function behind the command.
        values: the command's options.
        expected: the published curve to show beside the run's.
        told: who hears how long the run will take.

    Raises:
        UserError: inputs that do not fit together.
    """
    as_json = values.pop("as_json")
    if as_json and not values["dry_run"]:
        raise UserError("--json: give --dry-run too; a run writes its result to result.json.")
    with redirect_stdout(sys.stderr) if as_json else nullcontext():
        found = run(values, expected, told)
    if found is not None:
        click.echo(json.dumps(asdict(found)) if as_json else described(found))


def described(found: DryRun) -> str:
    """What a dry run found, one fact per line."""
    batches = f" × {found.accumulate} per step" if found.accumulate > 1 else ""
    facts = {
        "device": f"{found.device}, {counted(found.processes, 'process')}, {found.precision}",
        "batch": f"{counted(found.batch_size, 'sample')}{batches} per process",
        "steps": f"{found.steps} in {counted(found.epochs, 'epoch')}",
        "time": f"{_duration(found.hours)} without validation and checkpoints",
        "speed": f"{found.samples_per_second:.1f} samples/s",
        "data wait": f"{found.data_wait:.0%} of the time",
        "memory": f"{found.memory_gb:.1f} GB at the peak, {_place(found)}",
        "largest batch": _largest(found),
    }
    lines = [f"  {name:<14} {fact}" for name, fact in facts.items()]
    return "\n".join(["dry run: nothing was written", *lines])


def _place(found: DryRun) -> str:
    if found.device_gb is None:
        return "loading processes not counted"
    return f"of {found.device_gb:.1f} GB per GPU"


def _duration(hours: float) -> str:
    return f"{hours:.1f} hours" if hours >= 1 else f"{60 * hours:.1f} minutes"


def _largest(found: DryRun) -> str:
    if found.largest_batch is None:
        return (
            "not searched on a CPU: other programs share its memory"
            if found.device_gb is None
            else "not searched with several processes: start one to find it"
        )
    if found.too_large_batch is None:
        return f"{found.largest_batch} fits; no larger one was tried"
    return f"{found.largest_batch} fits, {found.too_large_batch} does not"
