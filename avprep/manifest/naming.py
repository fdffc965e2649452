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
from typing import NamedTuple

_DECIMAL = re.compile(r"[0-9]{1,9}\.[0-9]{1,9}")
_LONGEST_TIME = 9  # digits
_TOLERANCE = 0.0005  # seconds; names and CSVs hold milliseconds at best


class Reading(NamedTuple):  # made several times for every file of millions
    """One way to read a file's name."""

    video_id: str
    start: str = ""  # as written; empty where the name has none
    end: str = ""

    def exactly(self, start: float, end: float) -> bool:
        """Whether the name's times are those of the segment."""
        if not self.start:
            return True
        first = float(self.start)
        if not self.end:
            return _same(first, start)
        last = float(self.end)
        return (_same(first, start) and _same(last, end)) or (
            _same(first / 1000, start) and _same(last / 1000, end)
        )

    def roughly(self, start: float, end: float) -> bool:
        """Whether the name's times are those of the segment cut to whole seconds."""
        if "." in self.start or "." in self.end:
            return False
        return self.exactly(math.floor(start), math.floor(end))


def readings(stem: str) -> Iterator[Reading]:
    """The ways to read a file's name without suffix, the one to prefer first.

    The whole name as an id goes first, because ids may look like anything; then both times, then
    one; then the same behind a leading Y.
    """
    yield from _plain(stem)
    if stem.startswith("Y") and len(stem) > 1:
        yield from _plain(stem[1:])


def _same(time: float, other: float) -> bool:
    return abs(time - other) < _TOLERANCE


def _plain(stem: str) -> Iterator[Reading]:
    yield Reading(stem)
    head, _, last = stem.rpartition("_")
    if not head or not _is_time(last):
        return
    video_id, _, first = head.rpartition("_")
    if video_id and _is_time(first):
        yield Reading(video_id, first, last)
    yield Reading(head, last)


def _is_time(text: str) -> bool:
    if text.isdigit():
        return text.isascii() and len(text) <= _LONGEST_TIME
    return _DECIMAL.fullmatch(text) is not None
