"""What the columns of a CSV are, by their names, in any order, case and spelling.

A column that may hold times is read or refused, never ignored: a list of segments whose times
are not understood would become a list of whole files.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from avprep.csvfile import shown
from avprep.errors import UserError

PATHS = (
    *("path", "file", "filename", "filepath", "fname", "video", "videopath", "videofile"),
    *("videoname", "clip", "clippath", "clipname", "relativepath", "relpath"),
)
URLS = (
    *("url", "uri", "videourl", "videouri", "contenturl", "downloadurl", "mediaurl", "fileurl"),
    *("s3path", "s3uri", "s3url", "gcspath", "gcsuri"),
)
IDS = ("videoid", "ytid", "youtubeid", "ytvideoid", "clipid", "id", "name")
LABEL = (
    *("label", "class", "category", "labelname", "classname", "categoryname", "displayname"),
    *("tag", "mid"),
)
LABELS = ("labels", "classes", "categories", "tags", "positivelabels", "labelnames", "mids")
SPLIT = ("split", "subset", "partition", "set", "fold")


def _set(words: str) -> frozenset[str]:
    return frozenset(words.split())


_START = _set("start starting begin beginning beg onset stime btime t0 tmin")
_END = _set("end ending stop finish etime t1 tmax")
_DURATION = _set("duration dur length len")
_PAIRS = {  # times only as a pair
    **dict.fromkeys(_set("from in ss st"), "start"),
    **dict.fromkeys(_set("to out et"), "end"),
}
_SECONDS_PER = {
    **dict.fromkeys(_set("us usec microseconds"), 1e-6),
    **dict.fromkeys(_set("ms msec msecs millis millisecond milliseconds"), 1e-3),
    **dict.fromkeys(_set("s sec secs second seconds"), 1.0),
    **dict.fromkeys(_set("m min mins minute minutes"), 60.0),
    **dict.fromkeys(_set("h hour hours"), 3600.0),
}
_CLOCK = _set("time times timestamp timestamps timecode timespan timing timings interval")
_FILLERS = _set("t ts at of segment seg clip video event trim cut point")
_RANGES = _set("segment segments seg segs span spans window windows trim")  # both times in one cell
_UNDERSTOOD = frozenset(
    (*_START, *_END, *_DURATION, *_PAIRS, *_SECONDS_PER, *_CLOCK, *_FILLERS, "offset")
)
_ALONE = frozenset(_SECONDS_PER) - {"min"} | {"t", "ts"}  # a time, where no other word is with it
# Times of the file's life, not of its content.
_CALENDAR = _set(
    "upload uploaded publish published create created creation modified update updated download "
    "downloaded recorded date day daytime zone"
)
_SHORT = _set("t s m h to in at of us ms ts ss st et len dur beg")  # part of many other words
_VOCABULARY = sorted(_UNDERSTOOD - _SHORT, key=len, reverse=True)
_RUN_TOGETHER = re.compile(f"({'|'.join(_VOCABULARY)})")  # `starttime`, `timestart`
_PREFIXED = re.compile(r"t(start|begin|end|stop)")
_NUMBERED = re.compile(r"([a-z]+)(\d+)")  # `time1`; which time that is, nobody knows
_CLOCK_TIME = re.compile(r"(?:(\d{1,3}):)?(\d{1,2}):(\d{2}(?:\.\d+)?)", re.ASCII)
_UNIT_BEHIND = re.compile(r"(.*(?:start|begin|onset|end|stop|time|duration))(s|ms)")
_UNNAMED = frozenset(("", "index", "unnamed0", "row", "rownumber", "number", "no"))


@dataclass(frozen=True)
class Columns:
    """Where each known column stands.

    Attributes:
        places: role → position.
        seconds_per: role of a time → seconds per unit.
        others: names of all other columns.
        width: number of columns.
    """

    places: Mapping[str, int]
    seconds_per: Mapping[str, float] = field(default_factory=dict)
    others: tuple[str, ...] = ()
    width: int = 0

    def cell(self, row: Sequence[str], name: str) -> str:
        """A row's cell, without the spaces around it; empty where it has none."""
        place = self.places.get(name)
        return row[place].strip() if place is not None and place < len(row) else ""


def known_columns(
    where: object, header: Sequence[str], known: Mapping[str, Iterable[str]]
) -> Columns:
    """The columns of a header: those that are known, and `start`, `end` and `duration`.

    Args:
        where: file and line, for messages.
        header: the names as written.
        known: role → its names, folded as `folded` does, the best first.

    Raises:
        UserError: a column looks like a time of an unknown kind, or two columns have the same role.
    """
    names = [folded(name) for name in header]
    places: dict[str, int] = {}
    for role, spellings in known.items():
        place = next((names.index(spelling) for spelling in spellings if spelling in names), None)
        if place is not None and place not in places.values():
            if names.count(names[place]) > 1:
                raise UserError(
                    f"{where}: two columns are called {shown(header[place].strip())}. Rename one."
                )
            places[role] = place
    times = _times(where, header, set(places.values()))
    seconds_per = {role: scale for role, (_, scale) in times.items()}
    places |= {role: place for role, (place, _) in times.items()}
    others = [
        name
        for place, name in enumerate(header)
        if place not in places.values() and names[place] not in _UNNAMED
    ]
    return Columns(places, seconds_per, tuple(others), len(header))


def is_known(name: str, known: Mapping[str, Iterable[str]]) -> bool:
    """Whether a text is the name of a known column, or of one of times."""
    text = folded(name)
    return any(text in names for names in known.values()) or _role(_time_words(name), True) in (
        "start",
        "end",
        "duration",
    )


def folded(name: str) -> str:
    """A column's name without case, spaces and signs: `File Name`, `fileName` → `filename`."""
    return "".join(_words(name))


def times_of(row: Sequence[str], columns: Columns) -> tuple[str, str]:
    """Start and end of a row in seconds, as text; what is not a number is kept as written.

    The end may come from a duration. Either is empty where the row has none.
    """
    start, end, duration = (
        _in_seconds(columns.cell(row, role), columns.seconds_per.get(role, 1.0))
        for role in ("start", "end", "duration")
    )
    if end or not duration:
        return start, end
    try:
        return start, repr(round(float(start or 0) + float(duration), 6))
    except ValueError:
        return start, duration


def _in_seconds(text: str, scale: float) -> str:
    if scale == 1.0:
        if clock := _CLOCK_TIME.fullmatch(text):
            hours, minutes, seconds = (float(part or 0) for part in clock.groups())
            return repr(round(3600 * hours + 60 * minutes + seconds, 6))
        return text
    try:
        return repr(round(float(text) * scale, 6))
    except ValueError:
        return text


def _times(where: object, header: Sequence[str], taken: set[int]) -> dict[str, tuple[int, float]]:
    """(position, seconds per unit) of each column of times."""
    found: dict[str, tuple[int, float]] = {}
    parts = [_time_words(name) for name in header]
    paired = {
        place: words
        for place, words in enumerate(parts)
        if place not in taken and len(words & _PAIRS.keys()) == 1
    }
    is_pair = {_PAIRS[w] for words in paired.values() for w in words & _PAIRS.keys()} == {
        "start",
        "end",
    }
    roles = {place: _role(words, is_pair and place in paired) for place, words in enumerate(parts)}
    everything = {role for role in roles.values() if role}
    for place, role in roles.items():
        if place in taken or role is None:
            continue
        if role == "offset":  # the end of an onset, or where a duration begins
            onset = any("onset" in words for words in parts)
            role = "end" if onset else "start"
            if not onset and ("duration" not in everything or "start" in everything):
                role = "unclear"
        if "t1" in parts[place] and not any("t0" in words for words in parts):
            role = "unclear"  # t1 and t2
        name = header[place].strip()
        if role == "unclear":
            raise UserError(
                f"{where}: the column {shown(name)} looks like a time, but it is not clear which. "
                "Call it start, end or duration (in seconds; start_ms and the like are "
                "milliseconds), or leave it out."
            )
        if role in found:
            other = header[found[role][0]].strip()
            raise UserError(
                f"{where}: the columns {shown(other)} and {shown(name)} are both the {role}. "
                "Leave one out."
            )
        scales = [_SECONDS_PER[word] for word in parts[place] if word in _SECONDS_PER]
        found[role] = (place, scales[0] if scales else 1.0)
    return found


def _role(words: frozenset[str], paired: bool) -> str | None:
    """The role of a column of times, from the words of its name.

    Returns:
        `start`, `end`, `duration`, `offset`; `unclear`; None if it is not a time.
    """
    if words & _CALENDAR or not words:
        return None
    roles = {
        role
        for role, named in (("start", _START), ("end", _END), ("duration", _DURATION))
        if words & named
    }
    if paired and not roles:
        roles = {_PAIRS[word] for word in words & _PAIRS.keys()}
    if not roles and "offset" in words:
        roles = {"offset"}
    units = [word for word in words if word in _SECONDS_PER]
    understood = words <= _UNDERSTOOD
    if len(roles) == 1 and understood and len(units) <= 1:
        return roles.pop()
    is_time = bool(
        words & (_START | _END | _CLOCK | {"duration", "hms", "t2"})
        or roles - {"duration"}
        or words <= _RANGES
    )
    is_unit = understood and any(word in ("t", "ts") or len(word) > 1 for word in words & _ALONE)
    return "unclear" if is_time or is_unit else None


def _time_words(name: str) -> frozenset[str]:
    """The words of a name; words that are written together are separated."""
    words: list[str] = []
    squeezed = folded(name)
    if squeezed in _START | _END or re.fullmatch(r"t\d", squeezed):
        return frozenset((squeezed,))
    for word in _words(name):
        words += _taken_apart(word)
    return frozenset(words)


def _taken_apart(word: str) -> list[str]:
    if word in _VOCABULARY:
        return [word]
    if match := _PREFIXED.fullmatch(word):
        return [match[1]]
    if match := _UNIT_BEHIND.fullmatch(word):
        return [*_taken_apart(match[1]), match[2]]
    if match := _NUMBERED.fullmatch(word):
        return [*_taken_apart(match[1]), match[2]]
    parts = _RUN_TOGETHER.findall(word)
    return parts if "".join(parts) == word else [word]


def _words(name: str) -> list[str]:
    spaced = re.sub(r"(?<=[a-z0-9])(?=[A-Z])", " ", name)
    return re.findall(r"[^\W_]+", spaced.casefold())
