"""How far a long command is, on standard error: a bar on a terminal, elsewhere a line at times."""

from __future__ import annotations

import sys
import threading
import time
from contextlib import ExitStack
from typing import TextIO, cast

from avprep.progress import Progress

LINE_SECONDS = 30.0


def say(lines: str, file: TextIO | None = None) -> None:
    """Write to standard error, or elsewhere, without disturbing a bar."""
    from tqdm import tqdm  # --help does without it

    file = file or sys.stderr
    tqdm.write(lines, file=file)
    file.flush()


class Bars(ExitStack):
    """Shows what a function says of its progress: hand it over as `on_progress`.

    A bar for each thing that is counted, one after the other, while a `with` block runs.
    """

    def __init__(self, name: str) -> None:
        super().__init__()
        self._name = name
        self._shown: tuple[str, str] | None = None
        self._bar: ProgressBar | None = None

    def __call__(self, progress: Progress) -> None:
        counted = progress.stage, progress.unit
        if self._bar is None or counted != self._shown:
            self.close()
            self._shown = counted
            name = progress.stage or self._name
            self._bar = self.enter_context(ProgressBar(name, progress.unit))
        self._bar.reach(progress.done, progress.total, progress.failed)


class ProgressBar:
    """Counts what is done while a `with` block runs.

    Off a terminal a thread writes the lines, so that they come while nothing gets done, too, and
    a last one says how it ended. Work that takes less than the time between two stays silent.

    Args:
        name: of the command.
        unit: what is counted, in the singular; "B" for bytes.
        seconds: time between two lines.
    """

    def __init__(self, name: str, unit: str, *, seconds: float = LINE_SECONDS) -> None:
        from tqdm import tqdm

        self._name, self._unit, self._seconds = name, unit, seconds
        self._total, self._done, self._failed = 0, 0, 0
        self._initial: int | None = None
        self._began = time.monotonic()
        self._over = threading.Event()
        has_terminal = sys.stderr.isatty()
        self._bar = tqdm(
            total=0,
            unit=unit,
            unit_scale=unit == "B",
            desc=name,
            disable=not has_terminal,
            smoothing=0.05,
        )
        self._lines = None
        if not has_terminal:
            self._lines = threading.Thread(target=self._write_lines, daemon=True)

    def __enter__(self) -> ProgressBar:
        if self._lines is not None:
            self._lines.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._over.set()
        if self._lines is not None:
            self._lines.join()
            if time.monotonic() - self._began >= self._seconds:
                self._write_line()
        self._bar.close()

    def reach(self, done: int, total: int | None = None, failed: int = 0) -> None:
        """This many are done by now; in the first call, before the work began.

        Args:
            done: of all.
            total: how many there are, once that is known.
            failed: of those done.
        """
        if failed != self._failed:
            self._bar.set_postfix(failed=failed, refresh=False)
        self._failed = failed
        if self._initial is None:
            self._initial = self._bar.initial = done
        if total is not None:
            self._total = self._bar.total = total
        self._bar.update(done - self._done)
        self._done = done

    def line(self) -> str:
        """`shard: 1200/20000 clips, 3 failed, 10.25clip/s, 30:34 left`."""
        units = self._unit if self._unit == "B" else f"{self._unit}s"
        return self._bar.format_meter(
            n=self._done,
            total=cast(float, self._total or None),
            elapsed=time.monotonic() - self._began,
            initial=self._initial or 0,
            unit=self._unit,
            unit_scale=self._unit == "B",
            prefix=self._name,
            postfix=f"{self._failed} failed" if self._failed else "",
            bar_format=f"{{desc}}: {{n_fmt}}/{{total_fmt}} {units}{{postfix}}, "
            "{rate_fmt}, {remaining} left",
        )

    def _write_lines(self) -> None:
        while not self._over.wait(self._seconds):
            self._write_line()

    def _write_line(self) -> None:
        print(self.line(), file=sys.stderr, flush=True)
