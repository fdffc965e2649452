"""AudioSet's segment CSVs: `YTID, start_seconds, end_seconds, "mid,mid,…"`."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING

from avprep.csvfile import shown
from avprep.labels import LabelSet
from avprep.manifest.segments import (
    AUDIOSET,
    SPLITS,
    VGGSOUND,
    Findings,
    RowError,
    Segment,
    checked_labels,
    checked_seconds,
    read_table,
    row_fields,
)

if TYPE_CHECKING:
    import pandas as pd

_ROW = 'YTID, start_seconds, end_seconds, "mid,mid,…"'
_AS_PUBLISHED = re.compile(
    r'([A-Za-z0-9_-]{11}), (\d{1,6}\.\d{1,6}), (\d{1,6}\.\d{1,6}), "([^"]+)"', re.ASCII
)


def read_audioset(path: Path, labels: LabelSet, findings: Findings) -> pd.DataFrame:
    """Read a segments CSV.

    What a spreadsheet or another program did to a row is undone where that is certain.

    Args:
        path: the CSV, gzipped or not.
        labels: its classes; rows name them by mid, or by display name with a note.
        findings: gets the rows that cannot be used, and the notes.

    Returns:
        see `read_table`.

    Raises:
        UserError: the file cannot be read, or holds no row.
    """
    seen: dict[str, str] = {}  # one string for each list of mids, not one a row

    def parse(line: int, text: str) -> Segment:
        match = _AS_PUBLISHED.fullmatch(text)
        if match is not None:
            video_id, start, end = match[1], float(match[2]), float(match[3])
            mids = seen.get(match[4])
            if mids is None and labels.know_all(match[4].split(",")):
                mids = seen[match[4]] = match[4]
            if mids is not None and start < end:
                return Segment(line, video_id, start, end, mids)
        return parse_row(line, text, labels, findings)

    return read_table(path, AUDIOSET, parse, findings)


def parse_row(line: int, text: str, labels: LabelSet, findings: Findings) -> Segment:
    """One row of a segments CSV.

    Raises:
        RowError: it cannot be used.
    """
    fields = row_fields(text, _ROW)
    if len(fields) < 3:
        raise RowError(f"expected {_ROW}, found {shown(text)}")
    start = checked_seconds(fields[1], "start")
    if fields[3:] and fields[-1].casefold() in SPLITS and re.search("[a-z]", fields[2]):
        raise RowError(
            f"ends in a split, as VGGSound's rows do, which `{VGGSOUND.command}` reads: "
            f"{shown(text)}"
        )
    end = checked_seconds(fields[2], "end")
    if end <= start:
        raise RowError(f"the end, {end:g} s, does not come after the start, {start:g} s")
    parts = [part.strip('" ') for field in fields[3:] for part in field.split(",")]
    parts = [part for part in parts if part]
    if not parts:
        raise RowError("has no labels")
    mids = checked_labels(",".join(parts), labels, findings)
    if len(fields) > 4:
        findings.note("the quotes around the labels were lost, and are not missed", line)
    if any(part not in mids.split(",") for part in parts):
        findings.note("classes are named by display name, and were looked up", line)
    return Segment(line, fields[0], start, end, mids)
