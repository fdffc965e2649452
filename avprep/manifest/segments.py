"""Rows of a data set's CSV: segments of videos with their classes, and what is odd about them."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from avprep.csvfile import csv_lines, first_of, shown, split_fields
from avprep.errors import UserError
from avprep.labels import LabelSet

if TYPE_CHECKING:  # pandas takes half a second to import
    import pandas as pd

SPREADSHEET_ERRORS = frozenset(
    ("#NAME?", "#REF!", "#VALUE!", "#DIV/0!", "#N/A", "#NUM!", "#NULL!", "#SPILL!")
)
_NUMBER_WITH_EXPONENT = re.compile(r"[-+]?\d+(?:[.,]\d+)?E\+\d+|[-+]?\d+[.,]\d+E-?\d+", re.I)
_LONGEST_ID = 200  # bytes; names of files end at 255
_YOUTUBE_ID = 11
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
            f"{where}: {what}: {len(lines)} rows (line {first_of(lines)})"
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
        more = f" {len(others)} more bad rows: line {first_of(others)}." if others else ""
        skip = " To leave bad rows out and have them listed, give --bad-rows skip."
        raise UserError(f"{where}: line {line}: {reason}.{more}{skip}")


def read_table(
    path: Path, parse: Callable[[int, str], Segment], findings: Findings
) -> pd.DataFrame:
    """A table of the rows of a CSV that can be used; the others go to `findings`.

    Comments, a header and empty lines are passed over.

    Returns:
        columns `line` int, `video_id` str, `start` and `end` float (s), `labels`, `split` str.

    Raises:
        UserError: the file cannot be read, or holds no row.
    """
    import pandas as pd

    lines, ids, starts, ends, labels, splits = [], [], [], [], [], []
    odd_lengths = []
    for line, text in _data_lines(path):
        try:
            segment = parse(line, text)
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


def _data_lines(path: Path) -> Iterator[tuple[int, str]]:
    above_rows = True
    for number, text in csv_lines(path):
        stripped = text.strip(" \t,")
        if not stripped or (stripped[0] in '#"' and _is_comment(stripped)):
            continue
        if above_rows:
            above_rows = False
            if _is_header(stripped):
                continue
        yield number, text


def _is_comment(text: str) -> bool:
    bare = text.lstrip('"')
    if not bare.startswith("#"):
        return False
    return bare.split(",", 1)[0].strip('" ').upper() not in SPREADSHEET_ERRORS


def _is_header(text: str) -> bool:
    words = [word.strip('" ').casefold() for word in text.split(",")]
    return words[0] in ("ytid", "youtube_id", "video_id", "id", "filename", "file", "video") and (
        len(words) > 1 and not words[1].replace(".", "").isdigit()
    )
