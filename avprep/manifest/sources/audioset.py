"""AudioSet's segment CSVs: `YTID, start_seconds, end_seconds, "mid,mid,…"`."""

from __future__ import annotations

import functools
import re
import sys
from pathlib import Path

from avprep.csvfile import shown
from avprep.labels import LabelSet
from avprep.manifest.sources.data_set_csv import AUDIOSET, SPLITS, VGGSOUND, read_segments
from avprep.manifest.sources.matched import DataSet
from avprep.manifest.sources.rows import (
    CsvNotes,
    Row,
    RowError,
    check_order,
    checked_labels,
    checked_seconds,
)

_AS_PUBLISHED = re.compile(
    r'([A-Za-z0-9_-]{11}), (\d{1,6}\.\d{1,6}), (\d{1,6}\.\d{1,6}), "([^"]+)"', re.ASCII
)


def read_audioset(path: Path, labels: LabelSet) -> DataSet:
    """Read a segments CSV.

    What a spreadsheet or another program did to a row is undone where that is certain.

    Args:
        path: the CSV, gzipped or not.
        labels: its classes; rows name them by mid, or by display name with a note.

    Raises:
        UserError: the file cannot be read, or has no rows.
    """
    notes = CsvNotes()
    # Millions of rows share few times and lists of mids, so each of these is kept once.
    seconds = functools.cache(float)
    seen: dict[str, tuple[str, ...]] = {}

    def parse_published(line: int, text: str) -> Row | None:
        match = _AS_PUBLISHED.fullmatch(text)
        if match is None:
            return None
        video_id, first, last, listed = match.groups()
        start, end, mids = seconds(first), seconds(last), seen.get(listed)
        if mids is None and labels.know_all(parts := listed.split(",")):
            mids = seen[listed] = tuple(map(sys.intern, parts))
        return Row(line, video_id, start, end, mids) if mids and start < end else None

    def parse(line: int, text: str, fields: list[str]) -> Row:
        return _parse_row(line, text, fields, labels, notes)

    return DataSet(read_segments(path, AUDIOSET, parse, notes, parse_published), labels, notes)


def _parse_row(line: int, text: str, fields: list[str], labels: LabelSet, notes: CsvNotes) -> Row:
    if len(fields) < 3:
        raise AUDIOSET.expected(text)
    start = checked_seconds(fields[1], "start")
    if fields[3:] and fields[-1].casefold() in SPLITS and re.search("[a-z]", fields[2]):
        raise RowError(
            f"ends in a split, as VGGSound's rows do, which `{VGGSOUND.command}` reads: "
            f"{shown(text)}"
        )
    end = checked_seconds(fields[2], "end")
    check_order(start, end)
    parts = [part.strip('" ') for field in fields[3:] for part in field.split(",")]
    parts = [part for part in parts if part]
    if not parts:
        raise RowError("has no labels")
    mids = checked_labels(",".join(parts), labels, notes)
    if len(fields) > 4:
        notes.note("the quotes around the labels were lost, and were restored", line)
    if any(part not in mids for part in parts):
        notes.note("classes are named by display name, and were looked up", line)
    return Row(line, fields[0], start, end, mids)
