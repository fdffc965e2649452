"""What a run leaves to look at: log.csv, curves.png, TensorBoard events."""

from __future__ import annotations

import csv
import io
import math
import time
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import torch

from avprep import storage
from avprep.errors import UserError, WorkFailed
from cavmae.distributed import World
from cavmae.train.curves import draw_curves

TIMINGS = ("samples_per_second", "data_wait", "gpu_gb", "mfu")  # two equal runs differ in these
_STEPS_SEEN = 20  # of which the speed is an average
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
