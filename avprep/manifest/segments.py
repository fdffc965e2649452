"""Rows of a data set's CSV: segments of videos with their classes, and what is odd about them."""

from __future__ import annotations

import itertools
import math
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from avprep.columns import (
    IDS,
    LABEL,
    LABELS,
    PATHS,
    SPLIT,
    Columns,
    is_known,
    known_columns,
    times_of,
)
from avprep.csvfile import csv_lines, delimiter_of, first_of, shown, split_fields
from avprep.errors import UserError
from avprep.labels import LabelSet
from avprep.wording import counted

if TYPE_CHECKING:  # pandas takes half a second to import
    import pandas as pd

SPREADSHEET_ERRORS = frozenset(
    ("#NAME?", "#REF!", "#VALUE!", "#DIV/0!", "#N/A", "#NUM!", "#NULL!", "#SPILL!")
)
_NUMBER_WITH_EXPONENT = re.compile(r"[-+]?\d+(?:[.,]\d+)?E\+\d+|[-+]?\d+[.,]\d+E-?\d+", re.I)
_DECIMAL_COMMA = re.compile(r"^(\d+),(\d+)$", re.ASCII)
_LONGEST_ID = 200  # bytes; names of files end at 255
_YOUTUBE_ID = 11
SPLITS = frozenset(("train", "test", "val", "valid", "validation", "dev", "eval"))
_HINTS = 3  # bad labels that get a "did you mean", which is slow to find


class RowError(ValueError):
    """A row that cannot be used; the text says why, without file and line."""


class Segment(NamedTuple):  # made for every row of millions, for which a dataclass is slow
    """One row: the segment [start, end) of a video."""

    line: int
    video_id: str
    start: float  # seconds
    end: float  # seconds
    labels: str  # mids joined with commas; or, where no class CSV was given, one name
    split: str = ""


@dataclass
class Findings:
    """What was found in a CSV besides good rows."""

    bad: list[tuple[int, str]] = field(default_factory=list)  # line, reason
    notes: dict[str, list[int]] = field(default_factory=dict)  # what was put right, in which lines

    def note(self, what: str, line: int) -> None:
        """Remember that something was put right in a line."""
        self.notes.setdefault(what, []).append(line)

    def described_notes(self, where: object) -> list[str]:
        """A line for a person for each kind of note."""
        return [
            f"{where}: {what}: {counted(len(lines), 'row')} (line {first_of(lines)})"
            for what, lines in self.notes.items()
        ]

    def refuse_bad_rows(self, where: object) -> None:
        """Raises:
        UserError: there are bad rows: the first with its reason, and where the others are.
        """
        if not self.bad:
            return
        line, reason = self.bad[0]
        others = [number for number, _ in self.bad[1:]]
        more = (
            f" {counted(len(others), 'more bad row')}: line {first_of(others)}." if others else ""
        )
        skip = " To leave bad rows out and have them listed, give --bad-rows skip."
        raise UserError(f"{where}: line {line}: {reason}.{more}{skip}")


@dataclass(frozen=True)
class Layout:
    """What the rows of a data set's CSV hold.

    Attributes:
        whose: the data set, as in `AudioSet's`.
        known: column → its names; times have names of their own, see `avprep.columns`.
        order: the columns of a row, where no header says otherwise; the last may be absent.
        needed: of these each header must name one.
        command: what reads such a CSV.
    """

    whose: str
    known: Mapping[str, tuple[str, ...]]
    order: tuple[str, ...]
    needed: frozenset[str]
    command: str

    def fits(self, columns: Columns) -> bool:
        """Whether these are columns of the data set, and no others."""
        there = set(columns.places)
        if "end" in self.order and "duration" in there:
            there = there - {"duration"} | {"end"}
        return self.needed <= there <= set(self.order) and not columns.others


_ID = (*IDS, *PATHS)
AUDIOSET = Layout(
    "AudioSet's",
    {"id": _ID, "labels": (*LABELS, *LABEL)},
    ("id", "start", "end", "labels"),
    frozenset(("id", "start", "end", "labels")),
    "avprep manifest audioset --segments",
)
VGGSOUND = Layout(
    "VGGSound's",
    {"id": _ID, "labels": (*LABEL, *LABELS), "split": SPLIT},
    ("id", "start", "labels", "split"),
    frozenset(("id", "labels")),
    "avprep manifest vggsound --csv",
)


def read_table(
    path: Path, layout: Layout, parse: Callable[[int, str], Segment], findings: Findings
) -> pd.DataFrame:
    """A table of the rows of a CSV that can be used; the others go to `findings`.

    Comments and empty lines are passed over. A header says which column is which.

    Args:
        path: the CSV.
        layout: whose it is.
        parse: makes a segment of a row, whose fields are in the order of `layout`.
        findings: gets the rows that cannot be used.

    Returns:
        columns `line` int, `video_id` str, `start` and `end` float (s), `labels`, `split` str.

    Raises:
        UserError: the file cannot be read, holds no row, or its columns are another data set's.
    """
    import pandas as pd

    lines, ids, starts, ends, labels, splits = [], [], [], [], [], []
    odd_lengths = []
    rows, arrange = _rows(path, layout)
    for line, text in rows:
        try:
            segment = parse(line, text if arrange is None else arrange(text))
        except RowError as error:
            findings.bad.append((line, str(error)))
            continue
        lines.append(segment.line)
        ids.append(segment.video_id)
        starts.append(segment.start)
        ends.append(segment.end)
        labels.append(segment.labels)
        splits.append(segment.split)
        if len(segment.video_id) != _YOUTUBE_ID:
            odd_lengths.append(line)
    if not lines and not findings.bad:
        raise UserError(f"{path}: holds no row. Is it cut short, or another file?")
    if 0 < len(odd_lengths) < len(lines):
        # A spreadsheet makes 123456789 of the id 00123456789, which cannot be told from an id.
        findings.notes["ids that are not 11 characters long, as YouTube's are"] = odd_lengths
    return pd.DataFrame(
        {
            "line": pd.Series(lines, dtype="int64"),
            "video_id": pd.Series(ids, dtype=object),
            "start": pd.Series(starts, dtype="float64"),
            "end": pd.Series(ends, dtype="float64"),
            "labels": pd.Series(labels, dtype=object),
            "split": pd.Series(splits, dtype=object),
        }
    )


def row_fields(text: str, expected: str) -> list[str]:
    """The fields of a row, without the spaces and quotes that programs left around them.

    Raises:
        RowError: a quote is never closed, or it is no row of commas; `expected` is a good one.
    """
    try:
        fields = split_fields(text)
        if len(fields) == 1 and "," in fields[0]:
            fields = split_fields(fields[0])  # the row had become one cell of a spreadsheet
    except ValueError as error:
        raise RowError(f"{error}: {shown(text)}") from error
    if len(fields) == 1:
        for other, name in (("\t", "tabs"), (";", "semicolons")):
            if other in fields[0]:
                raise RowError(f"has {name} between its fields, not commas: {shown(text)}")
    fields = [field.strip('" ') for field in fields]
    checked_id(fields[0] if fields else "")
    if len(fields) < 2:
        raise RowError(f"expected {expected}, found {shown(text)}")
    return fields


def checked_id(text: str) -> str:
    """A video id.

    Raises:
        RowError: none, or what a spreadsheet made of one.
    """
    if not text:
        raise RowError("has no id")
    if text.upper() in SPREADSHEET_ERRORS:
        raise RowError(
            f"{text!r} is what a spreadsheet makes of an id that begins with '-' or '='. The id is "
            "lost: get the CSV again, and do not save it from a spreadsheet"
        )
    if _NUMBER_WITH_EXPONENT.fullmatch(text):
        raise RowError(
            f"{text!r} is what a spreadsheet makes of an id that looks like a number. The id is "
            "lost: get the CSV again, and do not save it from a spreadsheet"
        )
    if not text.isprintable() or "/" in text or len(text.encode()) > _LONGEST_ID:
        raise RowError(f"{shown(text)} cannot be a video's id, because no file can be named so")
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


def checked_label(text: str, labels: LabelSet, findings: Findings) -> str:
    """The mid of a class given by mid or display name.

    Raises:
        RowError: there is no such class.
    """
    mid = labels.resolve(text)
    if mid is None:
        near = labels.nearest(text) if len(findings.bad) < _HINTS else None
        hint = f", did you mean {near!r}?" if near else ""
        raise RowError(
            f"unknown label {shown(text)}: neither mid nor name of the {len(labels)} classes{hint}"
        )
    return mid


def checked_labels(text: str, labels: LabelSet, findings: Findings) -> str:
    """Mids joined with commas, each once, of such a list of mids or display names.

    Raises:
        RowError: a part of the list is no class.
    """
    try:
        return ",".join(dict.fromkeys(labels.resolve_list(text)))
    except ValueError as error:
        return checked_label(error.args[0], labels, findings)


def _rows(
    path: Path, layout: Layout
) -> tuple[Iterator[tuple[int, str]], Callable[[str], str] | None]:
    """The rows below a header, and what puts their fields in order; None if they are."""
    lines = _data_lines(path)
    first = next(lines, None)
    if first is None:
        return lines, None
    line, text = first
    delimiter = delimiter_of(text)
    header = _header(text, delimiter, layout)
    if header is None:
        in_order = None if delimiter == "," else _Arrangement(delimiter, layout)
        return itertools.chain((first,), lines), in_order
    where = f"{path}: line {line}"
    columns = known_columns(where, header, layout.known)
    if not layout.fits(columns):
        raise UserError(f"{where}: {_not_the_layout(layout, header, path)}")
    wanted = {name: place for place, name in enumerate(layout.order)}
    is_usual = all(wanted.get(name) == place for name, place in columns.places.items())
    in_seconds = all(scale == 1.0 for scale in columns.seconds_per.values())
    if delimiter == "," and is_usual and in_seconds:
        return lines, None
    return lines, _Arrangement(delimiter, layout, columns)


def _header(text: str, delimiter: str, layout: Layout) -> list[str] | None:
    """The names of the columns, if that is what the first line holds."""
    try:
        cells = split_fields(text, delimiter)
    except ValueError:
        return None
    cells = [cell.strip('" ') for cell in cells]
    if any(cell.replace(".", "").isdigit() for cell in cells):
        return None
    return cells if sum(is_known(cell, layout.known) for cell in cells) > 1 else None


def _not_the_layout(layout: Layout, header: Sequence[str], path: Path) -> str:
    """What to do with a CSV of another data set."""
    for other in (AUDIOSET, VGGSOUND):
        if other is not layout and other.fits(known_columns(path, header, other.known)):
            return f"these are {other.whose} columns, which `{other.command} {path}` reads."
    listed = "the columns path (or video_id) and label, with a row for each label of a clip"
    return (
        f"these are not {layout.whose} columns: {shown(','.join(header))}. The list of another "
        f"data set is read by `avprep manifest folder DIR --csv {path}`, if it has {listed}."
    )


@dataclass(frozen=True)
class _Arrangement:
    """Writes a row as it would stand in the data set's own CSV."""

    delimiter: str
    layout: Layout
    columns: Columns | None = None  # of the header

    def __call__(self, text: str) -> str:
        try:
            fields = split_fields(text, self.delimiter)
        except ValueError as error:
            raise RowError(f"{error}: {shown(text)}") from error
        fields = self._with_points(fields)
        cells = fields if self.columns is None else self._by_name(fields, self.columns, text)
        return ",".join('"{}"'.format(cell.replace('"', '""')) for cell in cells)

    def _with_points(self, fields: list[str]) -> list[str]:
        """`30,000` → `30.000` in the times, where commas are not what separates the fields."""
        if self.delimiter == ",":
            return fields
        by_order = {name: place for place, name in enumerate(self.layout.order)}
        order = self.columns.places if self.columns else by_order
        times = {order[name] for name in ("start", "end", "duration") if name in order}
        return [
            _DECIMAL_COMMA.sub(r"\1.\2", field) if place in times else field
            for place, field in enumerate(fields)
        ]

    def _by_name(self, fields: list[str], columns: Columns, text: str) -> list[str]:
        last = columns.width - 1
        if len(fields) > columns.width:
            if columns.places["labels"] != last:
                raise RowError(f"has more fields than the {columns.width} columns: {shown(text)}")
            fields = [*fields[:last], ",".join(fields[last:])]  # the quotes were lost
        there = set(columns.places) | ({"end"} if "duration" in columns.places else set())
        start, end = times_of(fields, columns)
        return [
            start if name == "start" else end if name == "end" else columns.cell(fields, name)
            for name in self.layout.order
            if name in there
        ]


def _data_lines(path: Path) -> Iterator[tuple[int, str]]:
    """The lines that are neither empty nor comments."""
    for number, text in csv_lines(path):
        stripped = text.strip(" \t,;")
        if stripped and not (stripped[0] in '#"' and _is_comment(stripped)):
            yield number, text


def _is_comment(text: str) -> bool:
    bare = text.lstrip('"')
    if not bare.startswith("#"):
        return False
    return bare.split(",", 1)[0].strip('" ').upper() not in SPREADSHEET_ERRORS
