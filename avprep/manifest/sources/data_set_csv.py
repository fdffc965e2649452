"""Read a data set's own CSV row by row, also after a spreadsheet or program has changed it."""

from __future__ import annotations

import itertools
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from avprep.columns import (
    IDS,
    LABEL,
    LABELS,
    PATHS,
    SPLIT,
    Columns,
    folded,
    is_known,
    known_columns,
    times_of,
)
from avprep.csvfile import csv_lines, delimiter_of, shown, split_fields
from avprep.errors import UserError
from avprep.manifest.sources.rows import (
    SPREADSHEET_ERRORS,
    CsvNotes,
    Row,
    RowError,
    Segments,
    checked_id,
)

SPLITS = frozenset(("train", "test", "val", "valid", "validation", "dev", "eval"))
_DECIMAL_COMMA = re.compile(r"^(\d+),(\d+)$", re.ASCII)
_YOUTUBE_ID = 11  # characters
_DELIMITERS = {",": "commas", "\t": "tabs", ";": "semicolons"}


@dataclass(frozen=True)
class Layout:
    """What the rows of a data set's CSV hold.

    Attributes:
        whose: the data set, as in `AudioSet's`.
        known: column → its names; times have names of their own, see `avprep.columns`.
        order: the columns of a row where there is no header; the last may be absent.
        needed: columns that a header must name.
        example: a row, for messages.
        command: what reads such a CSV.
    """

    whose: str
    known: Mapping[str, tuple[str, ...]]
    order: tuple[str, ...]
    needed: frozenset[str]
    example: str
    command: str

    def fits(self, columns: Columns) -> bool:
        """Whether these are columns of the data set, and no others."""
        there = set(columns.places)
        if "end" in self.order and "duration" in there:
            there = there - {"duration"} | {"end"}
        return self.needed <= there <= set(self.order) and not columns.others

    def expected(self, text: str) -> RowError:
        """The error of a row that does not look like `example`."""
        return RowError(f"expected {self.example}, found {shown(text)}")


_ID = (*IDS, *PATHS)
AUDIOSET = Layout(
    whose="AudioSet's",
    known={"id": _ID, "labels": (*LABELS, *LABEL)},
    order=("id", "start", "end", "labels"),
    needed=frozenset(("id", "start", "end", "labels")),
    example='YTID, start_seconds, end_seconds, "mid,mid,…"',
    command="avprep manifest audioset --segments",
)
VGGSOUND = Layout(
    whose="VGGSound's",
    known={"id": _ID, "labels": (*LABEL, *LABELS), "split": SPLIT},
    order=("id", "start", "labels", "split"),
    needed=frozenset(("id", "labels")),
    example="YTID,start_seconds,label,split or YTID_000030.mp4,label",
    command="avprep manifest vggsound --csv",
)


def read_segments(
    path: Path,
    layout: Layout,
    parse: Callable[[int, str, list[str]], Row],
    notes: CsvNotes,
    parse_published: Callable[[int, str], Row | None] = lambda line, text: None,
) -> Segments:
    """The rows of a CSV that can be used; the others go to `notes`.

    Comments and empty lines are passed over. A header says which column is which.

    Args:
        path: the CSV, gzipped or not.
        layout: whose it is.
        parse: makes a row of a line's number, its text, and its fields in the order of `layout`.
        notes: gets the rows that cannot be used.
        parse_published: the same, for the text of a row that is just as published, and faster;
            None for other rows.

    Raises:
        UserError: the file cannot be read, has no rows, or has another data set's columns.
    """
    segments, odd_lengths = Segments(), list[int | None]()
    rows, splitter = _rows(path, layout)
    count, is_as_published = 0, splitter.is_as_published
    for line, text in rows:
        try:
            row = parse_published(line, text) if is_as_published else None
            row = row or parse(line, text, splitter.fields(text))
        except RowError as error:
            notes.bad.append((line, str(error)))
            continue
        segments.add(row)
        count += 1
        if len(row.name) != _YOUTUBE_ID:
            odd_lengths.append(line)
    if not count and not notes.bad:
        raise UserError(f"{path}: has no rows. Is it truncated, or the wrong file?")
    if 0 < len(odd_lengths) < count:
        # A spreadsheet makes 123456789 of the id 00123456789, which looks like an id.
        notes.corrected["ids that are not 11 characters long, as YouTube's are"] = odd_lengths
    return segments


@dataclass(frozen=True)
class _Splitter:
    """Splits a row into fields in the order of the data set's own CSV."""

    layout: Layout
    delimiter: str = ","
    columns: Columns | None = None  # of the header, if they are not as published

    @property
    def is_as_published(self) -> bool:
        """Whether rows have the data set's own form."""
        return self.delimiter == "," and self.columns is None

    def fields(self, text: str) -> list[str]:
        """The fields, without the spaces and quotes that programs left around them.

        Raises:
            RowError: a quote is never closed, there is no id, or no second field.
        """
        try:
            fields = split_fields(text, self.delimiter)
            if len(fields) == 1 and "," in fields[0] and self.delimiter == ",":
                fields = split_fields(fields[0])  # the row had become one cell of a spreadsheet
        except ValueError as error:
            raise RowError(f"{error}: {shown(text)}") from error
        if len(fields) == 1:
            for sign, name in _DELIMITERS.items():
                if sign != self.delimiter and sign in fields[0]:
                    usual = _DELIMITERS[self.delimiter]
                    raise RowError(f"has {name} between its fields, not {usual}: {shown(text)}")
        if self.delimiter != ",":
            fields = self._with_points(fields)
        if self.columns is not None:
            fields = self._by_name(fields, self.columns, text)
        fields = [field.strip('" ') for field in fields]
        checked_id(fields[0] if fields else "")
        if len(fields) < 2:
            raise self.layout.expected(text)
        return fields

    def _with_points(self, fields: list[str]) -> list[str]:
        """`30,000` → `30.000` in the times, where commas are not what separates the fields."""
        order = self.columns.places if self.columns else _places(self.layout)
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
        cells = {name: columns.cell(fields, name) for name in columns.places}
        cells["start"], cells["end"] = times_of(fields, columns)
        there = columns.places.keys() | ({"end"} if "duration" in columns.places else set())
        fields = [cells[name] for name in self.layout.order if name in there]
        while fields and not fields[-1]:
            fields.pop()
        return fields


def _rows(path: Path, layout: Layout) -> tuple[Iterator[tuple[int, str]], _Splitter]:
    """The rows below a header, if there is one, and how they are split."""
    lines = _data_lines(path)
    first = next(lines, None)
    if first is None:
        return lines, _Splitter(layout)
    line, text = first
    delimiter = delimiter_of(text)
    header = _header(text, delimiter, layout)
    if header is None:
        return itertools.chain((first,), lines), _Splitter(layout, delimiter)
    where = f"{path}: line {line}"
    columns = known_columns(where, header, layout.known)
    if not layout.fits(columns):
        raise UserError(f"{where}: {_not_the_layout(layout, header, path)}")
    is_usual = columns.places.items() <= _places(layout).items()
    in_seconds = all(scale == 1.0 for scale in columns.seconds_per.values())
    if delimiter == "," and is_usual and in_seconds:
        return lines, _Splitter(layout)
    return lines, _Splitter(layout, delimiter, columns)


def _places(layout: Layout) -> dict[str, int]:
    return {name: place for place, name in enumerate(layout.order)}


def _header(text: str, delimiter: str, layout: Layout) -> list[str] | None:
    """The names of the columns, if the first line is a header."""
    try:
        cells = [cell.strip('" ') for cell in split_fields(text, delimiter)]
    except ValueError:
        return None
    if any(cell.replace(".", "").isdigit() for cell in cells):
        return None
    return cells if sum(is_known(cell, layout.known) for cell in cells) > 1 else None


def _not_the_layout(layout: Layout, header: Sequence[str], path: Path) -> str:
    """What to do with a CSV of another data set."""
    for other in (AUDIOSET, VGGSOUND):
        if other is not layout and other.fits(known_columns(path, header, other.known)):
            return f"these are {other.whose} columns, which `{other.command} {path}` reads."
    if {"modality", "voiceover"} <= {folded(name) for name in header}:
        return (
            f"these are VGGSounder's columns: `avprep manifest vggsounder --csv {path}` reads it."
        )
    listed = "the columns path (or video_id) and label, with one row per label of a clip"
    return (
        f"these are not {layout.whose} columns: {shown(','.join(header))}. The list of another "
        f"data set is read by `avprep manifest folder DIR --csv {path}`, if it has {listed}."
    )


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
