"""VGGSound's CSVs: `YTID,start_seconds,label,split`, and `YTID_000030.mp4,label` of old."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING

from avprep.csvfile import shown
from avprep.errors import UserError
from avprep.labels import LabelSet, label_set_for, vggsound_labels
from avprep.manifest.segments import (
    AUDIOSET,
    SPLITS,
    VGGSOUND,
    Findings,
    RowError,
    Segment,
    checked_label,
    checked_seconds,
    read_table,
    row_fields,
)

if TYPE_CHECKING:
    import pandas as pd

CLIP_SECONDS = 10.0  # every clip of VGGSound
_ROW = "YTID,start_seconds,label,split or YTID_000030.mp4,label"
_FILE = re.compile(r"(.+)_(\d{1,9}(?:\.\d{1,9})?)(?:\.[A-Za-z0-9]{2,4})?")
_NUMBER = re.compile(r"\d+(?:\.\d*)?")


def read_vggsound(
    path: Path, labels: LabelSet | None, findings: Findings
) -> tuple[pd.DataFrame, LabelSet]:
    """Read a VGGSound CSV of any release.

    Args:
        path: the CSV, gzipped or not.
        labels: its classes; None to number the sorted names of all rows, of whatever split.
        findings: gets the rows that cannot be used, and the notes.

    Returns:
        see `read_table`; and the label set.

    Raises:
        UserError: the file cannot be read, or holds no row.
    """
    with_split: list[bool] = []  # of the first row; a row unlike it has lost its end
    label_of: dict[tuple[str, float], tuple[str, int]] = {}

    def parse(line: int, text: str) -> Segment:
        segment = parse_row(line, text, labels, findings, any(with_split))
        if not with_split:
            with_split.append(bool(segment.split))
        key = (segment.video_id, segment.start)
        label, first = label_of.setdefault(key, (segment.labels, line))
        if label != segment.labels:
            raise RowError(
                f"is the clip of line {first} with another label, while VGGSound's clips have one "
                f"each. A list of several is read by `avprep manifest folder DIR --csv {path}`, if "
                "its first line names the columns path (or video_id) and label"
            )
        return segment

    table = read_table(path, VGGSOUND, parse, findings)
    if labels is not None:
        return table, labels
    label_set, mids = label_set_for(table["labels"], None, path)
    return table.assign(labels=table["labels"].map(mids)), label_set


def check_split(table: pd.DataFrame, split: str, path: Path) -> None:
    """Raises:
    UserError: the CSV, `path`, has no row of that split.
    """
    if (table["split"] == split).any():
        return
    splits = ", ".join(sorted(set(filter(None, table["split"]))))
    if not splits:
        raise UserError(
            f"{path}: its rows name no split, so there is no {split!r} to choose. Leave --split "
            "out, or give the CSV of that release that ends its rows in train or test."
        )
    raise UserError(f"{path}: has no row of the split {split!r}; it has {splits}.")


def parse_row(
    line: int, text: str, labels: LabelSet | None, findings: Findings, with_split: bool
) -> Segment:
    """One row of a VGGSound CSV; `with_split`, where others end in train or test.

    Raises:
        RowError: it cannot be used.
    """
    fields = row_fields(text, _ROW)
    named_file = _FILE.fullmatch(fields[0])
    if _NUMBER.fullmatch(fields[1]):
        video_id, start, names = fields[0], checked_seconds(fields[1], "start"), fields[2:]
    elif named_file is not None:
        video_id, start, names = named_file[1], float(named_file[2]), fields[1:]
    else:
        raise RowError(f"expected {_ROW}, found {shown(text)}")
    if len(names) > 1 and _NUMBER.fullmatch(names[0]):
        raise RowError(
            f"has an end, as AudioSet's rows have, which `{AUDIOSET.command}` reads: {shown(text)}"
        )
    split = ""
    if len(names) > 1 and names[-1].casefold() in SPLITS:
        split = names.pop().casefold()
    name = " ".join(", ".join(part for part in names if part).split())
    if not name:
        raise RowError("has no label")
    if with_split and not split:
        raise RowError(f"does not end in train or test as others do: {shown(text)}")
    if len(names) > 1:
        if (labels or vggsound_labels()).resolve(name) is None:
            raise RowError(f"expected {_ROW}, found more fields: {shown(text)}")
        findings.note("the quotes around the label were lost, and are not missed", line)
    return Segment(
        line, video_id, start, start + CLIP_SECONDS, _label(name, line, labels, findings), split
    )


def _label(name: str, line: int, labels: LabelSet | None, findings: Findings) -> str:
    if labels is None:
        return name
    mid = checked_label(name, labels, findings)
    if name != mid and name not in labels.names:
        findings.note("the class CSV spells a label otherwise, and it was looked up", line)
    return mid
