"""What a file's name says of the clip in it: the ways people name AudioSet and VGGSound files.

    ID                   the id alone
    ID_30  ID_000030  ID_30.000     id and start, seconds
    ID_30_40  ID_30.000_40.000      id, start and end, seconds
    ID_30000_40000                  id, start and end, milliseconds
    YID …                           any of these with a leading Y
    ID-30-40  ID_30-40  ID.30.40  [ID]-[30-40]      other signs between and around them
    Title [ID]  Title-ID  ID - Title                a YouTube id behind or before a title
    ID.f137                         one stream, as yt-dlp leaves before it joins them

Pure arithmetic on names: no file is touched.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from typing import NamedTuple

_DECIMAL = re.compile(r"[0-9]{1,9}\.[0-9]{1,9}")
_LONGEST_TIME = 9  # digits
_SIGN = r"(?:(?: - |[ _.\-])?[\[(]|(?: - |[ _.\-]))"  # before the times
_TIME = r"(\d{1,9}(?:\.\d{1,9})?)s?"
_TIMES = (rf"{_TIME}(?: - | to |[_.-]to[_.-]|[ _.~,\-]){_TIME}", f"{_TIME}()")
_BEHIND = tuple(
    re.compile(rf"({head}){_SIGN}{times}[\])]?", re.ASCII)
    for times in _TIMES
    for head in (".+?", ".+")  # `.30.40` can be one time or two
)
_NO_TIME = r"(?![ _.\-]*[\[(]?\d+(?:\.\d+)?s?(?:[^0-9A-Za-z]|$))"
_IN_BRACKETS = re.compile(rf"[\[({{]([^\[\](){{}}]+)[\])}}]{_NO_TIME}")
_ID = "[A-Za-z0-9_-]{11}"  # YouTube's
_BEHIND_TITLE = re.compile(rf".+[ _.=\-]({_ID})")
_BEFORE_TITLE = re.compile(rf"({_ID})[ _.\-]+[^\W\d_].+")
_TOLERANCE = 0.0005  # seconds; names and CSVs hold milliseconds at best


class Reading(NamedTuple):  # made several times for every file of millions
    """One way to read a file's name."""

    video_id: str
    start: str = ""  # as written; empty where the name has none
    end: str = ""
    rival: str = ""  # what may be the id just as well

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
    one; then the same behind a leading Y; then what other downloaders make of it.
    """
    yield from _plain(stem)
    if stem.startswith("Y") and len(stem) > 1:
        yield from _plain(stem[1:])
    yield from _downloaded(stem)


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


def _downloaded(stem: str) -> Iterator[Reading]:
    for pattern in _BEHIND:
        if match := pattern.fullmatch(stem):
            name, start, end = match.groups()
            for video_id, rival in ((name, ""), (name.removeprefix("Y"), ""), *_titled(name)):
                yield Reading(video_id, start, end, rival)
    for video_id, rival in _titled(stem):
        yield Reading(video_id, rival=rival)


def _titled(name: str) -> Iterator[tuple[str, str]]:
    """Ids that stand beside a title, each with its rival: in brackets, or at one of the ends.

    An id within a longer word is none, and what begins with digits is no title but times.
    """
    for video_id in _IN_BRACKETS.findall(name):
        yield video_id, ""
    last, first = (pattern.fullmatch(name) for pattern in (_BEHIND_TITLE, _BEFORE_TITLE))
    if last:
        yield last[1], first[1] if first else ""
    if first:
        yield first[1], last[1] if last else ""


def _is_time(text: str) -> bool:
    if text.isdigit():
        return text.isascii() and len(text) <= _LONGEST_TIME
    return _DECIMAL.fullmatch(text) is not None
