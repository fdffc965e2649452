"""What a run leaves to look at: log.csv, curves.png, and rows for trackers."""

from __future__ import annotations

import json
import time
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from avprep import storage
from avprep.csvfile import csv_bytes
from avprep.errors import UserError, WorkFailed
from avprep.options import TrackerName
from avprep.tracking import TrackedRun, Trackers
from cavmae.distributed import World
from cavmae.train.curves import draw_curves
from cavmae.train.events import Note, OnEvent, ignore
from cavmae.train.place import CONFIG_FILE, RunFolder

TIMINGS = ("samples_per_second", "data_wait", "gpu_gb", "mfu")  # two equal runs differ in these
_STEPS_SEEN = 20  # of which the speed is an average
_DRAWING_SECONDS = 20.0  # between two pictures of the curves


class RunRecords:
    """The log of a run. Rows have `step`, `epoch`, `split` and whatever was measured."""

    def __init__(
        self,
        folder: RunFolder,
        rows: list[dict[str, Any]],
        trackers: Sequence[TrackerName] = (),
        tell: OnEvent = ignore,
    ) -> None:
        """Args:
        folder: the run directory.
        rows: logged so far; further ones are added to it.
        trackers: that get every row, too.
        tell: called with a note for each tracker that fails.
        """
        self.folder = folder.path
        self.rows = rows
        self._trackers = Trackers(trackers, _tracked_run(folder, rows))
        self._tell = tell
        self._drawn = time.monotonic()

    def add(self, row: dict[str, Any]) -> None:
        """Add one row, for trackers too."""
        self.rows.append(row)
        figures = {name: value for name, value in row.items() if name not in ("step", "split")}
        self._trackers.log(
            row["step"], {f"{row['split']}/{name}": value for name, value in figures.items()}
        )

    def publish(self, rows: Sequence[dict[str, Any]], final: bool = False) -> None:
        """Write log.csv and curves.png, each whole or not at all.

        Drawing takes a second, so epochs of a few seconds do not each get a new picture; the last
        one always does.

        Args:
            rows: those logged so far. Further ones may be added meanwhile, by another thread.
            final: whether these are all.

        Raises:
            OSError, UserError, WorkFailed: they cannot be written.
        """
        columns = list(dict.fromkeys(name for row in rows for name in row))
        cells = ([row.get(name) for name in columns] for row in rows)
        storage.write_atomic(self.folder / "log.csv", csv_bytes([columns, *cells]))
        if final or time.monotonic() - self._drawn > _DRAWING_SECONDS:
            storage.write_atomic(self.folder / "curves.png", draw_curves(rows, TIMINGS))
            self._drawn = time.monotonic()

    def close(self) -> None:
        """Let the trackers finish."""
        self._trackers.close()
        self.tell_failures()

    def tell_failures(self) -> None:
        """Tell of the trackers that have failed since the last call."""
        for words in self._trackers.failures():
            self._tell(Note(words, is_warning=True))


def _tracked_run(folder: RunFolder, rows: Sequence[Mapping[str, Any]]) -> TrackedRun:
    config = storage.read_if_there(str(folder.path / CONFIG_FILE))
    described = json.loads(config) if config is not None else {}
    return TrackedRun(
        id=described.get("run_id", ""),
        name=Path(folder.place).absolute().name,
        program="cavmae",
        config=described,
        folder=folder.path,
        first_step=rows[-1]["step"] + 1 if rows else 0,
    )


@contextmanager
def written_together(world: World, place: str | Path) -> Iterator[None]:
    """For a block in which the main rank writes. All ranks enter it, so that none waits for ever.

    Args:
        world: this process among its peers.
        place: what is written.

    Raises:
        WorkFailed: it could not be written; on every rank.
    """
    failure: WorkFailed | None = None
    try:
        yield
    except (UserError, WorkFailed) as error:
        failure = WorkFailed(str(error))
    except OSError as error:
        failure = WorkFailed(
            f"{place}: cannot be written to ({error.strerror or error}). Checkpoints are whole: "
            "make room and run the same command again."
        )
    world.raise_together(failure)


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
        """Record a step with this many samples, over all ranks."""
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
