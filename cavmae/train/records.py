"""What a run leaves to look at: log.csv, curves.png, TensorBoard events, a progress bar."""

from __future__ import annotations

import csv
import io
import math
import sys
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import torch
from tqdm import tqdm

from avprep import storage
from avprep.errors import UserError, WorkFailed
from cavmae.distributed import World
from cavmae.train.curves import draw_curves

TIMINGS = ("samples_per_second", "data_wait", "gpu_gb", "mfu")  # two equal runs differ in these
_STEPS_SEEN = 100  # of which the speed is an average
_LINE_SECONDS = 15.0  # between progress lines where there is no terminal
_PACED_STEPS = 5  # after the first, which takes longer, from which the time left is told
_DRAWING_SECONDS = 20.0  # between two pictures of the curves


class RunRecords:
    """The log of a run. Rows have `step`, `epoch`, `split` and whatever was measured."""

    def __init__(self, folder: Path, rows: list[dict[str, Any]]) -> None:
        from torch.utils.tensorboard import SummaryWriter

        self.folder = folder
        self.rows = rows
        self._drawn = -math.inf
        self._failure: OSError | None = None
        purge = rows[-1]["step"] + 1 if rows else None
        self._events = SummaryWriter(str(folder / "tensorboard"), purge_step=purge)

    def add(self, row: dict[str, Any]) -> None:
        """Add one row and its TensorBoard scalars."""
        self.rows.append(row)
        try:
            for name, value in row.items():
                if name not in ("step", "epoch", "split"):
                    self._events.add_scalar(f"{row['split']}/{name}", value, row["step"])
        except OSError as error:  # told where all ranks listen, see `written_together`
            self._failure = error

    def publish(self, final: bool = False) -> None:
        """Write log.csv and curves.png, each whole or not at all.

        Drawing takes a second, so epochs of a few seconds do not each get a new picture; the last
        one always does.

        Raises:
            OSError, UserError, WorkFailed: they, or the events before, cannot be written.
        """
        if self._failure is not None:
            raise self._failure
        columns = list(dict.fromkeys(name for row in self.rows for name in row))
        text = io.StringIO()
        writer = csv.DictWriter(text, columns, lineterminator="\n")
        writer.writeheader()
        writer.writerows(self.rows)
        storage.write_atomic(self.folder / "log.csv", text.getvalue().encode())
        self._events.flush()
        if final or time.monotonic() - self._drawn > _DRAWING_SECONDS:
            storage.write_atomic(self.folder / "curves.png", draw_curves(self.rows, TIMINGS))
            self._drawn = time.monotonic()

    def close(self) -> None:
        """Finish the event file."""
        with suppress(OSError):  # what matters has been published, or has failed already
            self._events.close()


@contextmanager
def written_together(world: World, place: Path) -> Iterator[None]:
    """For a block in which the main rank writes. All ranks enter it, so that none waits for ever.

    Args:
        world: this process among its peers.
        place: what is written.

    Raises:
        WorkFailed: it could not be written; on every rank.
    """
    failure = ""
    try:
        yield
    except (UserError, WorkFailed) as error:
        failure = str(error)
    except OSError as error:
        failure = (
            f"{place}: cannot be written to ({error.strerror or error}). Checkpoints are whole: "
            "make room and run the same command again."
        )
    world.fail_together(failure)


class Meter:
    """How fast the last steps went."""

    def __init__(
        self,
        device: torch.device,
        ideal_seconds: float = 0.0,
        remembered: int | None = _STEPS_SEEN,
    ) -> None:
        """Args:
        device: whose memory is shown, if it is a GPU.
        ideal_seconds: that a sample would take if nothing were lost; 0 where that is not known.
        remembered: how many of the last steps count; None for all.
        """
        self._device = device
        self._ideal_seconds = ideal_seconds
        self._steps: deque[tuple[float, int, float]] = deque(maxlen=remembered)
        self._last = time.monotonic()
        self._waited = 0.0

    @contextmanager
    def waiting(self) -> Iterator[None]:
        """What happens in the block is waiting for data."""
        began = time.monotonic()
        try:
            yield
        finally:
            self._waited += time.monotonic() - began

    def step(self, samples: int) -> None:
        """A step with so many samples is done, over all ranks."""
        now = time.monotonic()
        self._steps.append((now - self._last, samples, self._waited))
        self._last, self._waited = now, 0.0

    def facts(self) -> dict[str, float]:
        """`samples_per_second`, `data_wait` (share of the time), `gpu_gb` (most ever in use) and
        `mfu` (share of what the GPUs could do)."""
        seconds, samples, waited = (sum(values) for values in zip(*self._steps, strict=True))
        facts = {"samples_per_second": samples / seconds, "data_wait": waited / seconds}
        if self._device.type == "cuda":
            facts["gpu_gb"] = torch.cuda.max_memory_allocated(self._device) / 1e9
        if self._ideal_seconds:
            facts["mfu"] = self._ideal_seconds * facts["samples_per_second"]
        return facts


class ProgressLine:
    """A bar on a terminal; elsewhere a line now and then, so that a log shows the run is alive."""

    def __init__(
        self,
        total: int,
        initial: int,
        name: str,
        shown: bool,
        on_pace: Callable[[float], object] = lambda seconds: None,
    ) -> None:
        """Args:
        total: steps of the run.
        initial: those that were done before.
        name: of the task.
        shown: whether this process shows anything.
        on_pace: called once, after a few steps, with the seconds that the others will take.
        """
        self._on_pace = on_pace
        self._interactive = shown and sys.stderr.isatty()
        self._shown = shown
        self._name = name
        self._total = total
        self._initial = self._done = initial
        self._began = self._first = self._last = time.monotonic()
        self._bar = tqdm(  # the bar itself shows the time left
            total=total, initial=initial, desc=name, unit="step", disable=not self._interactive
        )

    def update(self, facts: dict[str, float]) -> None:
        """One step is done; `facts` says how it went."""
        self._done += 1
        if self._interactive:
            self._bar.set_postfix_str(describe(facts), refresh=False)
            self._bar.update()
        now = time.monotonic()
        steps = self._done - self._initial
        if steps == 1:
            self._first = now
        elif steps == 1 + _PACED_STEPS:
            self._on_pace((now - self._first) / _PACED_STEPS * (self._total - self._done))
        if self._shown and not self._interactive and now - self._last > _LINE_SECONDS:
            self._last = now
            left = (now - self._began) / steps * (self._total - self._done)
            print(
                f"{self._name}: step {self._done}/{self._total}, "
                f"{tqdm.format_interval(left)} left, {describe(facts)}",
                flush=True,
            )

    def say(self, line: str) -> None:
        """Print a line without disturbing the bar."""
        if self._shown:
            tqdm.write(line, file=sys.stdout)
            sys.stdout.flush()

    def close(self) -> None:
        self._bar.close()


def describe(facts: dict[str, float]) -> str:
    """One line: every loss and its parts, the rate, and how fast it goes."""
    shown = []
    for name, value in facts.items():
        if name == "samples_per_second":
            shown.append(f"{value:.1f} samples/s")
        elif name == "data_wait":
            shown.append(f"data wait {value:.0%}")
        elif name == "gpu_gb":
            shown.append(f"GPU {value:.1f} GB")
        elif name == "mfu":
            shown.append(f"MFU {value:.0%}")
        else:
            shown.append(f"{name.replace('_', ' ')} {value:.3g}")
    return ", ".join(shown)
