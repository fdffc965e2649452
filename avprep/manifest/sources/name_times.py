"""Times of a segment in a file's name: `30_40`, `30000ms`, `00-00-30`, `1m30s`, `start30_end40`."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

_FLAGS = re.IGNORECASE | re.ASCII
_NUMBER = r"\d{1,9}(?:\.\d{1,9})?"
# Start and end have the same form. `#` becomes 1 in a start and 2 in an end.
_SECONDS = rf"(?P<n#>{_NUMBER})(?:s|secs?|seconds?)?"
_MILLISECONDS = r"(?P<ms#>\d{1,9})ms"
_CLOCK = r"(?P<h#>\d{1,2})(?P<sign#>[:.\-_])(?P<m#>\d{1,2})(?P=sign#)(?P<s#>\d{1,2}(?:\.\d{1,9})?)"
_UNITS = rf"(?=\d+[hm])(?:(?P<h#>\d{{1,2}})h)?(?:(?P<m#>\d{{1,3}})m(?:in)?)?(?:(?P<s#>{_NUMBER})s)?"
_MINUTES = r"(?P<m#>\d{1,3})[:.\-_](?P<s#>\d{2}(?:\.\d{1,9})?)"  # only as a pair: 30-40 is one
_PIECE = r"(?:clip|seg|segment|part|chunk|cut|trim|scene|shot)"
_FROM = r"(?:(?:start|begin|from|at|ss|sec|s|t)[ _.=:\-]?)?"
_TO = r"(?: ?- ?|[ _.\-]?to[ _.\-]?|[ _.~,\-])(?:(?:end|stop|e)[ _.=:\-]?)?"
_PAIRS = [
    kind.replace("#", "1") + _TO + kind.replace("#", "2")
    for kind in (_SECONDS, _MILLISECONDS, _CLOCK, _UNITS, _MINUTES)
]
_STARTS = [kind.replace("#", "1") for kind in (_SECONDS, _MILLISECONDS, _CLOCK, _UNITS)]
_SIGNS = r"[ _.\-@=~#\[]"
_BEHIND = [
    re.compile(rf"\]?{_SIGNS}+(?:{_PIECE}{_SIGNS}*)?{_FROM}{times}\]?", _FLAGS)
    for times in (*_PAIRS, *_STARTS)
]
_BEFORE = [re.compile(pair, _FLAGS) for pair in _PAIRS]
_LONGEST_BEFORE = 6  # digits; 20200101 is a date
_SPEAKS_OF_TIME = re.compile(
    rf"\]?{_SIGNS}*\d"  # no title begins so
    r"|.*(?<![a-z])(?:start|begin|from|to|end|stop|at|ss|s|t|e|secs?|frames?|split|"
    rf"{_PIECE})[ _.=:\-]{{0,2}}\d"
    r"|.*\d ?(?:s|secs?|seconds?|ms|m|min|h)(?![a-z])"
    r"|.*\d(?: ?[\-_~:] ?| to )\d",
    _FLAGS,
)

Times = tuple[str, str]  # start and end in seconds as text; the end may be ""


def times_behind(text: str) -> Iterator[Times]:
    """The ways to read the text after an id as times."""
    return _read(_BEHIND, text)


def times_before(text: str) -> Iterator[Times]:
    """The ways to read the text before an id as start and end.

    A single number could mean anything, and long ones are dates.
    """
    if all(len(digits) <= _LONGEST_BEFORE for digits in re.findall(r"\d+", text)):
        yield from _read(_BEFORE, text.strip(" _.-[]="))


def speaks_of_time(text: str) -> bool:
    """Whether the text after an id may be times or the number of a part, not just a title."""
    return _SPEAKS_OF_TIME.match(text) is not None


def _read(patterns: Sequence[re.Pattern[str]], text: str) -> Iterator[Times]:
    for pattern in patterns:
        if match := pattern.fullmatch(text):
            found = match.groupdict()
            yield _seconds(found, "1"), _seconds(found, "2")


def _seconds(found: dict[str, str | None], which: str) -> str:
    """The time in seconds, as it is written if it is in seconds already."""
    if number := found.get(f"n{which}"):
        return number
    parts = [found.get(f"{unit}{which}") for unit in ("h", "m", "s", "ms")]
    if not any(parts):
        return ""
    hours, minutes, seconds, milliseconds = (float(part or 0) for part in parts)
    total = 3600 * hours + 60 * minutes + seconds + milliseconds / 1000
    return f"{total:.6f}".rstrip("0").rstrip(".")
