"""What a file's name says of the clip in it: the ways people name AudioSet and VGGSound files.

    ID                   the id alone
    ID_30  ID_000030  ID_30.000     id and start, seconds
    ID_30_40  ID_30.000_40.000      id, start and end, seconds
    ID_30000_40000                  id, start and end, milliseconds
    YID …                           any of these with a leading Y

Pure arithmetic on names: no file is touched.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from dataclasses import dataclass

_TIME = r"\d{1,9}(?:\.\d{1,9})?"
_WITH_TIMES = re.compile(rf"(.+?)_({_TIME})(?:_({_TIME}))?", re.DOTALL)
_WITH_START = re.compile(rf"(.+)_({_TIME})", re.DOTALL)
_TOLERANCE = 0.0005  # seconds; names and CSVs hold milliseconds at best


@dataclass(frozen=True, slots=True)
class Reading:
    """One way to read a file's name."""

    video_id: str
    start: str = ""  # as written; empty where the name has none
    end: str = ""

    def exactly(self, start: float, end: float | None) -> bool:
        """Whether the name's times are those of the segment."""
        if not self.start:
            return True
        first = float(self.start)
        if not self.end:
            return abs(first - start) < _TOLERANCE
        last = float(self.end)
        return any(
            abs(first / unit - start) < _TOLERANCE
            and (end is None or abs(last / unit - end) < _TOLERANCE)
            for unit in (1, 1000)
        )

    def roughly(self, start: float, end: float | None) -> bool:
        """Whether the name's times are those of the segment cut to whole seconds."""
        if "." in self.start or "." in self.end:
            return False
        return self.exactly(math.floor(start), None if end is None else math.floor(end))


def readings(stem: str) -> Iterator[Reading]:
    """The ways to read a file's name without suffix, the one to prefer first.

    The whole name as an id goes first, because ids may look like anything; then both times, then
    one; then the same behind a leading Y.
    """
    yield from _plain(stem)
    if stem.startswith("Y") and len(stem) > 1:
        yield from _plain(stem[1:])


def _plain(stem: str) -> Iterator[Reading]:
    yield Reading(stem)
    match = _WITH_TIMES.fullmatch(stem)
    if match is None:
        return
    if match[3] is not None:
        yield Reading(match[1], match[2], match[3])
    match = _WITH_START.fullmatch(stem)
    if match is not None:
        yield Reading(match[1], match[2])
