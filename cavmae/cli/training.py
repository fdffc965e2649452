"""What the training commands show: how a run goes, what it came to, what a dry run found."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from dataclasses import asdict
from datetime import timedelta
from typing import TextIO

import click
from tqdm import tqdm

from avprep.cli.progress import say
from avprep.errors import UserError
from avprep.wording import counted, first_of
from cavmae.cli.options import Rehearsal, expected_of_recipe
from cavmae.distributed import is_main_process
from cavmae.recipes import Expected
from cavmae.train.dry_run import DryRun
from cavmae.train.events import Event, Measured, Normalisation, Note, Steps
from cavmae.train.options import PretrainRun, Run
from cavmae.train.outlook import Outlook
from cavmae.train.runs import PretrainResult, finetune, pretrain, rehearse

_MENTIONED = 0.1  # share of padding
_LINE_SECONDS = 15.0  # between progress lines where there is no terminal
_PACED_STEPS = 5  # after the first, which takes longer, from which the time left is told


def train_or_rehearse(options: Run, rehearsal: Rehearsal) -> None:
    """Train and say how it goes, or print what a dry run found.

    Raises:
        UserError: inputs that do not fit together.
    """
    if rehearsal.as_json and not rehearsal.dry_run:
        raise UserError("--json: give --dry-run too; a run writes its result to result.json.")
    with Screen(expected_of_recipe(), sys.stderr if rehearsal.as_json else sys.stdout) as screen:
        if rehearsal.dry_run:
            found = rehearse(options, screen)
            lines = json.dumps(asdict(found)) if rehearsal.as_json else describe_dry_run(found)
        elif isinstance(options, PretrainRun):
            lines = describe_result(pretrain(options, screen))
        else:
            lines = describe_result(finetune(options, screen))
    if is_main_process():
        click.echo(lines)


class Screen(ExitStack):
    """Shows what a run tells of itself: hand it over as `on_event`."""

    def __init__(self, expected: Expected | None, out: TextIO) -> None:
        """Args:
        expected: the published curve to show beside the run's.
        out: where lines go that are no warnings.
        """
        super().__init__()
        self._expected = expected or Expected()
        self._out = out
        self._line: ProgressLine | None = None

    def __call__(self, event: Event) -> None:
        if isinstance(event, Steps):
            if self._line is None:
                self._line = ProgressLine(event.total or 0, event.done, event.stage, self._out)
                self.callback(self._line.close)
            else:
                self._line.update(event.facts)
        elif isinstance(event, Outlook):  # a run begins
            self.close()
            self._line = None
            say("\n".join(describe_outlook(event)))
        elif isinstance(event, Normalisation):
            say(describe_normalisation(event))
        elif isinstance(event, Note):
            text = f"warning: {event.text}" if event.is_warning else event.text
            say(text, sys.stderr if event.is_warning else self._out)
        else:
            say(describe_epoch(event, self._expected), self._out)


class ProgressLine:
    """A bar on a terminal; elsewhere a line now and then, so that a log shows the run is alive."""

    def __init__(self, total: int, initial: int, name: str, out: TextIO) -> None:
        """Args:
        total: steps of the run.
        initial: those that were done before.
        name: of the task.
        out: where the lines go.
        """
        self._name, self._total, self._out = name, total, out
        self._initial = self._done = initial
        self._began = self._first = self._last = time.monotonic()
        self._interactive = sys.stderr.isatty()
        self._bar = tqdm(  # the bar itself shows the time left
            total=total, initial=initial, desc=name, unit="step", disable=not self._interactive
        )

    def update(self, facts: Mapping[str, float]) -> None:
        """One step is done; `facts` says how it went."""
        self._done += 1
        steps, left = self._done - self._initial, self._total - self._done
        now = time.monotonic()
        if steps == 1:
            self._first = now
        elif steps == 1 + _PACED_STEPS:
            seconds = round((now - self._first) / _PACED_STEPS * left)
            self._bar.write(f"about {timedelta(seconds=seconds)} left (h:mm:ss)", file=sys.stderr)
        if self._interactive:
            self._bar.set_postfix_str(describe_step(facts), refresh=False)
            self._bar.update()
        elif now - self._last > _LINE_SECONDS:
            self._last = now
            rest = self._bar.format_interval((now - self._began) / steps * left)
            print(
                f"{self._name}: step {self._done}/{self._total}, {rest} left, "
                f"{describe_step(facts)}",
                file=self._out,
                flush=True,
            )

    def close(self) -> None:
        self._bar.close()


def describe_step(facts: Mapping[str, float]) -> str:
    """One line: every loss and its parts, the rate, and how fast it goes."""
    words = {
        "samples_per_second": "{:.1f} samples/s",
        "data_wait": "data wait {:.0%}",
        "gpu_gb": "GPU {:.1f} GB",
        "mfu": "MFU {:.0%}",
    }
    return ", ".join(
        words.get(name, f"{name.replace('_', ' ')} {{:.3g}}").format(value)
        for name, value in facts.items()
    )


def describe_epoch(measured: Measured, expected: Expected) -> str:
    """What was measured in an epoch, beside the published values."""
    when = (
        f"epoch {measured.epoch}/{measured.epochs}" if measured.epoch else "before the first step"
    )

    def shown(split: str, facts: Mapping[str, float]) -> list[str]:
        return [
            f"{name} {value:.4g}{expected.beside(split, name, measured.epoch)}"
            for name, value in facts.items()
        ]

    words = [f"{measured.task}: {when}", *shown("train", measured.train)]
    if measured.validation:
        words += ["validation:", *shown("validation", measured.validation)]
    return "  ".join(words)


def describe_normalisation(fbank: Normalisation) -> str:
    """How inputs are normalised."""
    return f"fbank mean {fbank.mean:.4g}, std {fbank.std:.4g}: {fbank.source}"


def describe_outlook(outlook: Outlook) -> Iterator[str]:
    """How long a run is, and what speaks against it, warnings last."""
    length = f"{counted(outlook.clips, 'clip')}, {counted(outlook.steps, 'step')} in all, "
    length += f"{outlook.steps_per_epoch} per epoch"
    if outlook.steps_done:
        length += f"; {outlook.steps_done} done"
    yield length
    if outlook.held_out:
        yield f"{counted(outlook.held_out, 'held-out clip')}, evaluated after each epoch"
    if outlook.fitting_rows is not None:
        yield (
            f"warning: {outlook.padding:.0%} of the audio input is padding. "
            f"--audio-frames {outlook.fitting_rows} (or fit) has room for these clips, trains "
            "faster, and leaves the padding out"
        )
    elif outlook.padding > _MENTIONED:
        yield f"{outlook.padding:.0%} of the audio input is padding"
    if outlook.epochs_needed is not None:
        yield (
            f"warning: random weights learn little in {counted(outlook.steps, 'step')}. Give "
            f"--epochs {outlook.epochs_needed} or more, a smaller --batch-size, or start from "
            "trained weights with --init"
        )


def describe_result(result: PretrainResult) -> str:
    """What was left out, and where everything lies."""
    lines = []
    if result.unreadable:
        names = first_of(sorted(result.unreadable))
        lines.append(
            f"{len(result.unreadable)} samples could not be read and were left out: {names}; all "
            "of them in result.json"
        )
    lines.append(f"{result.folder}: model.safetensors, result.json, log.csv, curves.png")
    return "\n".join(lines)


def describe_dry_run(found: DryRun) -> str:
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
