"""VGGSound's CSVs: `YTID,start_seconds,label,split`, or `YTID_000030.mp4,label` in old ones."""

from __future__ import annotations

import re
from pathlib import Path

from avprep.csvfile import shown
from avprep.labels import LabelSet, vggsound_labels
from avprep.manifest.sources.data_set_csv import AUDIOSET, SPLITS, VGGSOUND, read_segments
from avprep.manifest.sources.matched import DataSet
from avprep.manifest.sources.rows import (
    CsvNotes,
    Row,
    RowError,
    Segments,
    checked_label,
    checked_seconds,
    numbered,
)

CLIP_SECONDS = 10.0  # every clip of VGGSound
_FILE = re.compile(r"(.+)_(\d{1,9}(?:\.\d{1,9})?)(?:\.[A-Za-z0-9]{2,4})?")
_NUMBER = re.compile(r"\d+(?:\.\d*)?")


def read_vggsound(path: Path, labels: LabelSet | None) -> DataSet:
    """Read a VGGSound CSV of any release.

    Args:
        path: the CSV, gzipped or not.
        labels: its classes; None to number the sorted names of all rows, of all splits.

    Raises:
        UserError: the file cannot be read, or has no rows.
    """
    notes = CsvNotes()
    segments = read_segments(path, VGGSOUND, _RowParser(path, labels, notes), notes)
    if labels is None:
        rows = [*segments.rows, *(row for row, _ in segments.repeated)]
        labels, rows = numbered(rows, path)
        segments = Segments(rows)
    return DataSet(segments, labels, notes, named_by="id and start")


def segment_of(name: str) -> tuple[str, float] | None:
    """Id and start of the clip that a file or clip is named after, such as `YTID_000030.mp4`."""
    found = _FILE.fullmatch(name)
    return (found[1], float(found[2])) if found else None


class _RowParser:
    """Makes rows of lines; each row must agree with those before it."""

    def __init__(self, path: Path, labels: LabelSet | None, notes: CsvNotes) -> None:
        self._path, self._labels, self._notes = path, labels, notes
        self._has_split: bool | None = None  # whether the first row ends in a split
        self._first_of: dict[tuple[str, float], tuple[str, int]] = {}  # segment → label, line

    def __call__(self, line: int, text: str, fields: list[str]) -> Row:
        video_id, start, names = _parted(fields, text)
        if len(names) > 1 and _NUMBER.fullmatch(names[0]):
            raise RowError(
                f"has an end, as AudioSet's rows have, which `{AUDIOSET.command}` reads: "
                f"{shown(text)}"
            )
        split = ""
        if len(names) > 1 and names[-1].casefold() in SPLITS:
            split = names.pop().casefold()
        name = " ".join(", ".join(part for part in names if part).split())
        if not name:
            raise RowError("has no label")
        if self._has_split and not split:
            raise RowError(f"does not end in train or test as others do: {shown(text)}")
        if len(names) > 1:
            if (self._labels or vggsound_labels()).resolve(name) is None:
                raise RowError(f"expected {VGGSOUND.example}, found more fields: {shown(text)}")
            self._notes.note("the quotes around the label were lost, and were restored", line)
        label = self._label(name, line)
        if self._has_split is None:
            self._has_split = bool(split)
        first_label, first_line = self._first_of.setdefault((video_id, start), (label, line))
        if first_label != label:
            raise RowError(
                f"is the clip of line {first_line} with another label, but VGGSound's clips have "
                "only one. A list with several is read by `avprep manifest folder DIR --csv "
                f"{self._path}`, if its first line names the columns path (or video_id) and label"
            )
        return Row(line, video_id, start, start + CLIP_SECONDS, (label,), split)

    def _label(self, name: str, line: int) -> str:
        if self._labels is None:
            return name
        mid = checked_label(name, self._labels, self._notes)
        if name != mid and name not in self._labels.names:
            self._notes.note(
                "labels are spelled differently in the class CSV, and were looked up", line
            )
        return mid


def _parted(fields: list[str], text: str) -> tuple[str, float, list[str]]:
    """Id and start, from two fields or from a file's name, and the fields after them."""
    if _NUMBER.fullmatch(fields[1]):
        return fields[0], checked_seconds(fields[1], "start"), fields[2:]
    if segment := segment_of(fields[0]):
        return *segment, fields[1:]
    raise VGGSOUND.expected(text)
