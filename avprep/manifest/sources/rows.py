"""Rows of a CSV: segments of videos and their classes, the checks of a row, and notes."""

from __future__ import annotations

import math
import re
from collections.abc import Collection, Iterable
from dataclasses import dataclass, field
from typing import NamedTuple

from avprep.csvfile import shown
from avprep.errors import UserError
from avprep.labels import LabelSet, label_set_for
from avprep.wording import counted, first_of

SPREADSHEET_ERRORS = frozenset(
    ("#NAME?", "#REF!", "#VALUE!", "#DIV/0!", "#N/A", "#NUM!", "#NULL!", "#SPILL!")
)
_NUMBER_WITH_EXPONENT = re.compile(r"[-+]?\d+(?:[.,]\d+)?E\+\d+|[-+]?\d+[.,]\d+E-?\d+", re.I)
_LONGEST_ID = 200  # bytes; names of files end at 255
_HINTS = 3  # bad labels that get a "did you mean", which is slow to compute


class RowError(ValueError):
    """A row that cannot be used; the text says why, without file and line."""


class Row(NamedTuple):  # made for every row of millions, for which a dataclass is slow
    """One row: the segment [start, end) of a video, or all of it."""

    line: int | None  # of the CSV
    name: str  # the video's id; in a list of files it may be a path
    start: float | None  # seconds
    end: float | None
    labels: tuple[str, ...]  # mids; or, where no class CSV was given, names
    split: str = ""


class Segments:
    """The rows of a CSV, each segment once, with the labels of all rows that name it.

    Attributes:
        rows: in the order of the CSV.
        repeated: (row, place of the first) of each row that names a segment again.
    """

    def __init__(self, rows: Iterable[Row] = ()) -> None:
        self.rows: list[Row] = []
        self.repeated: list[tuple[Row, int]] = []
        self._first: dict[str, int] = {}
        self._several: dict[str, dict[tuple[float | None, float | None], int]] = {}
        for row in rows:
            self.add(row)

    def add(self, row: Row) -> bool:
        """Append a row; or add its labels to the row of the same segment.

        Returns:
            whether the segment is new.
        """
        place = len(self.rows)
        first = self._first.setdefault(row.name, place)
        if first != place:
            times = {self.rows[first][2:4]: first}
            same = self._several.setdefault(row.name, times).setdefault(row[2:4], place)
            if same != place:
                self.repeated.append((row, same))
                labels = dict.fromkeys((*self.rows[same].labels, *row.labels))
                self.rows[same] = self.rows[same]._replace(labels=tuple(labels))
                return False
        self.rows.append(row)
        return True

    def shares_id(self, row: Row) -> bool:
        """Whether other segments have the same id."""
        return len(self._several.get(row.name, ())) > 1

    def places_of(self, name: str) -> Collection[int]:
        """The places of an id's rows."""
        first = self._first.get(name)
        if first is None:
            return ()
        return self._several[name].values() if name in self._several else (first,)


def numbered(rows: Iterable[Row], where: object) -> tuple[LabelSet, list[Row]]:
    """The label set of rows whose labels are names, and the rows with mids in their place."""
    rows = list(rows)
    labels, mids = label_set_for((name for row in rows for name in row.labels), None, where)
    return labels, [row._replace(labels=tuple(mids[name] for name in row.labels)) for row in rows]


@dataclass
class CsvNotes:
    """Bad rows of a CSV, and what was corrected in others."""

    bad: list[tuple[int, str]] = field(default_factory=list)  # line, reason
    corrected: dict[str, list[int | None]] = field(default_factory=dict)  # what, in which lines

    def note(self, what: str, line: int | None) -> None:
        """Remember that something was corrected in a line."""
        self.corrected.setdefault(what, []).append(line)

    def lines(self, where: object) -> list[str]:
        """A line for a person for each kind of note."""
        return [
            f"{where}: {what}: {counted(len(lines), 'row')} (line {first_of(lines)})"
            for what, lines in self.corrected.items()
        ]

    def refuse_bad_rows(self, where: object) -> None:
        """Raises:
        UserError: there are bad rows; names the first with its reason, and the lines of others.
        """
        if not self.bad:
            return
        (line, reason), *others = self.bad
        more = ""
        if others:
            lines = first_of(number for number, _ in others)
            more = f" {counted(len(others), 'more bad row')}: line {lines}."
        skip = " To leave bad rows out and list them in the report, give --bad-rows skip."
        raise UserError(f"{where}: line {line}: {reason}.{more}{skip}")


def checked_id(text: str) -> str:
    """A video id.

    Raises:
        RowError: it is empty, cannot name a file, or was changed by a spreadsheet.
    """
    if not text:
        raise RowError("has no id")
    lost = "begins with '-' or '='" if text.upper() in SPREADSHEET_ERRORS else ""
    if _NUMBER_WITH_EXPONENT.fullmatch(text):
        lost = "looks like a number"
    if lost:
        raise RowError(
            f"{text!r} is what a spreadsheet makes of an id that {lost}. The id is lost: get the "
            "CSV again, and do not save it from a spreadsheet"
        )
    if not text.isprintable() or "/" in text or len(text.encode()) > _LONGEST_ID:
        raise RowError(f"{shown(text)} cannot be a video's id, because no file can have that name")
    return text


def checked_seconds(text: str, what: str) -> float:
    """A time.

    Raises:
        RowError: not a number, negative or not finite.
    """
    try:
        seconds = float(text) if text.isascii() and "_" not in text else math.nan
    except ValueError:
        seconds = math.nan
    if not math.isfinite(seconds) or seconds < 0:
        raise RowError(f"the {what} must be seconds, found {shown(text)}")
    return seconds


def check_order(start: float, end: float) -> None:
    """Raises RowError where a segment ends before it starts, or as it starts."""
    if end <= start:
        raise RowError(f"the end, {end:g} s, does not come after the start, {start:g} s")


def checked_label(text: str, labels: LabelSet, notes: CsvNotes) -> str:
    """The mid of a class given by mid or display name.

    Raises:
        RowError: there is no such class.
    """
    mid = labels.resolve(text)
    if mid is None:
        near = labels.nearest(text) if len(notes.bad) < _HINTS else None
        hint = f", did you mean {near!r}?" if near else ""
        raise RowError(
            f"unknown label {shown(text)}: neither mid nor name of the {len(labels)} classes{hint}"
        )
    return mid


def checked_labels(text: str, labels: LabelSet, notes: CsvNotes) -> tuple[str, ...]:
    """The distinct mids of a comma-separated list of mids or display names.

    Raises:
        RowError: a part of the list is not a class.
    """
    try:
        return tuple(dict.fromkeys(labels.resolve_list(text)))
    except ValueError as error:
        return (checked_label(error.args[0], labels, notes),)
