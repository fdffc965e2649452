"""What a file's name says about its clip: the ways people name AudioSet and VGGSound files.

    ID                   the id alone
    ID_30  ID_000030  ID_30.000     id and start, seconds
    ID_30_40  ID_30.000_40.000      id, start and end, seconds
    ID_30000_40000  ID_30000ms      milliseconds
    ID_00-00-30_00-00-40  ID_0m30s  hours, minutes and seconds
    YID …                           any of these with a leading Y
    ID-30-40  ID_30-40  ID.30.40  [ID]-[30-40]  ID_start30_end40    other signs and words
    Title [ID]  Title-ID  ID - Title  Uploader - ID - Title         a YouTube id beside a title
    ID.f137  ID.webm  ID_720p       what programs append

Pure arithmetic on names: no file is touched.
"""

from __future__ import annotations

import math
import re
import unicodedata
from collections.abc import Iterator
from typing import NamedTuple

from avprep.kinds import VIDEO_SUFFIXES
from avprep.manifest.sources.name_times import speaks_of_time, times_before, times_behind

_DECIMAL = re.compile(r"[0-9]{1,9}\.[0-9]{1,9}")
_LONGEST_TIME = 9  # digits
_TOLERANCE = 0.0005  # seconds; names and CSVs give milliseconds at best
_SIGNS = str.maketrans("(){}【】「」『』〈〉《》〔〕–—―‐|", "[][][][][][][][]-----")
_SUFFIXES = "|".join(suffix[1:] for suffix in sorted(VIDEO_SUFFIXES))
_QUALITY = r"\d{3,4}p\d{0,3}|\d{3,4}x\d{3,4}|[248]k|[xh]\.?26[45]"
_PUT_BEHIND = re.compile(
    rf"(.+?)(?:\.(?:{_SUFFIXES})|[ _.\-](?:{_QUALITY})|[ _.\-]?\[(?:{_QUALITY})\])",
    re.IGNORECASE | re.ASCII,
)
_BEFORE_TIMES = re.compile(r"\]?[ _.\-@=\[]+")
_IN_BRACKETS = re.compile(r"\[([^\[\]]+)\]")
_ID = re.compile(r"(?=(?<![A-Za-z0-9])([A-Za-z0-9_-]{11})(?![A-Za-z0-9]))")  # YouTube's
_LOOSE = " _.-'\"[]"
_SET_OFF_BEFORE = re.compile(r".*(?: - |[^\w\- ])", re.DOTALL)
_SET_OFF_BEHIND = re.compile(r" - |[^\w\- ]")


class Reading(NamedTuple):  # made several times for every file of millions
    """One way to read a file's name."""

    video_id: str
    start: str = ""  # as written; empty where the name has none
    end: str = ""
    rivals: tuple[str, ...] = ()  # other texts that may be the id
    is_unclear: bool = False  # it may have times or a part's number, in an unknown form

    def exactly(self, start: float | None, end: float | None) -> bool:
        """Whether the name's times, if it has any, are those of the segment."""
        if not self.start:
            return True
        first = float(self.start)
        if not self.end:
            return _same(first, start)
        last = float(self.end)
        return (_same(first, start) and _same(last, end)) or (
            _same(first / 1000, start) and _same(last / 1000, end)
        )

    def roughly(self, start: float | None, end: float | None) -> bool:
        """Whether the name's times are those of the segment cut to whole seconds."""
        if "." in self.start or "." in self.end:
            return False
        return self.exactly(*(time if time is None else math.floor(time) for time in (start, end)))


def readings(stem: str) -> Iterator[Reading]:
    """The ways to read a file's name without suffix, the preferred one first.

    The whole name as an id goes first, because ids may look like anything; then both times, then
    one; then the same after a leading Y; then the forms of other downloaders.
    """
    yield from _plain(stem)
    if stem[:1] == "Y" and len(stem) > 1:
        yield from _plain(stem[1:])
    name = _tidied(stem)
    if name != stem:
        yield from _plain(name)
    yield from _with_times_behind(name)
    yield from _beside_a_title(name)


def _same(time: float, other: float | None) -> bool:
    return other is not None and abs(time - other) < _TOLERANCE


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


def _tidied(stem: str) -> str:
    """A name with the signs of a plain keyboard, without what programs append to it."""
    name = stem if stem.isascii() else unicodedata.normalize("NFKC", stem)
    name = name.translate(_SIGNS)
    while match := _PUT_BEHIND.fullmatch(name):
        name = match[1]
    return name


def _with_times_behind(name: str) -> Iterator[Reading]:
    """Any id that is followed by times."""
    for sign in _BEFORE_TIMES.finditer(name):
        head = name[: sign.start()]
        for start, end in times_behind(name[sign.start() :]):
            for video_id in (head, head.removeprefix("Y"), head.removeprefix("[")):
                yield Reading(video_id, start, end)


def _beside_a_title(name: str) -> Iterator[Reading]:
    """Ids in brackets; and YouTube ids at either end of the name, or set off in its middle."""
    spans = [match.span(1) for match in _IN_BRACKETS.finditer(name)]
    spans += [span for match in _ID.finditer(name) if _stands_alone(name, *(span := match.span(1)))]
    ids = dict.fromkeys(name[start:end] for start, end in spans)
    for start, end in spans:
        video_id = name[start:end]
        rivals = tuple(other for other in ids if other != video_id)
        lead, tail = name[:start], name[end:]
        times = [*times_behind(tail)] or [*times_before(lead)]
        for first, last in times:
            yield Reading(video_id, first, last, rivals)
        if not times:
            yield Reading(video_id, rivals=rivals, is_unclear=speaks_of_time(tail))


def _stands_alone(name: str, start: int, end: int) -> bool:
    """Whether a possible id is at either end of a name, or set off on both sides."""
    lead, tail = name[:start], name[end:]
    if lead.endswith("[") and not tail.startswith("]"):
        return False
    at_end = not lead.strip(_LOOSE) or not tail.strip(_LOOSE) or any(times_behind(tail))
    return at_end or (
        _SET_OFF_BEFORE.fullmatch(lead) is not None and _SET_OFF_BEHIND.match(tail) is not None
    )
