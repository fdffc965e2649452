"""A manifest from a folder and a CSV that names its videos and their classes."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from avprep.clips import (
    VIDEO_SUFFIXES,
    Clip,
    described_passed_over,
    is_writable,
    scan_files,
    video_ids,
)
from avprep.columns import IDS, LABEL, LABELS, PATHS, SPLIT, Columns, known_columns, times_of
from avprep.csvfile import csv_records, shown
from avprep.errors import UserError
from avprep.labels import LabelSet, label_set_for
from avprep.manifest.build import Finding
from avprep.manifest.folder import with_extracted
from avprep.manifest.match import container_rank, match_files
from avprep.manifest.segments import (
    Findings,
    RowError,
    checked_label,
    checked_labels,
    checked_seconds,
)
from avprep.wording import counted

_KNOWN = {"path": (*PATHS, *IDS), "label": LABEL, "labels": LABELS, "split": SPLIT}


@dataclass(frozen=True)
class Listed:
    """A file, or a segment of one, that the CSV names.

    Attributes:
        line: of the CSV.
        path: below the folder, or absolute.
        labels: mids; or, where no label set was given, names.
        start, end: seconds; None for the whole file.
        split: "" for none.
    """

    line: int
    path: str
    labels: tuple[str, ...]
    start: float | None = None
    end: float | None = None
    split: str = ""


def read_listing(path: Path, labels: LabelSet | None, findings: Findings) -> list[Listed]:
    """Read a CSV with the columns `path` and `label` (or `labels`), in any order.

    Columns of a split and of times are taken too, others are passed over; for the names see
    `avprep.columns`. `label` is one class; `labels` are several, separated by `;` or `|`, or by
    commas where neither is, also in the brackets of a Python list. A file that stands in several
    rows has the classes of all of them.

    Args:
        path: the CSV; its first line names the columns.
        labels: its classes; None to take the names as they are.
        findings: gets the rows that cannot be used, and the notes.

    Raises:
        UserError: it cannot be read, lacks a column, or holds no row.
    """
    records = csv_records(path)
    _, header = next(records, (1, []))
    columns = _columns(path, header)
    listed: dict[tuple[str, float | None, float | None], Listed] = {}
    for line, row in records:
        if not any(cell.strip() for cell in row):
            continue
        try:
            found = _parse(line, row, columns, labels, findings)
        except RowError as error:
            findings.bad.append((line, str(error)))
            continue
        key = (found.path, found.start, found.end)
        if (first := listed.get(key)) is not None:
            findings.note("a file that stands in several rows has the classes of all", line)
            found = replace(first, labels=tuple(dict.fromkeys((*first.labels, *found.labels))))
        listed[key] = found
    if not listed and not findings.bad:
        raise UserError(f"{path}: holds no row below its header.")
    return list(listed.values())


@dataclass(frozen=True)
class MatchedListing:
    """The rows of a CSV beside the videos there are.

    Attributes:
        rows: (row, video_id) of each row.
        videos: path below the folder, or absolute → path to open, of the files that are there.
        labels: the label set.
        extracted: what `avprep extract` wrote for the same folder.
        findings: of reading the CSV.
        split: the rows that are wanted; "" for all. Files of others are no extra ones.
        passed_over: see `avprep.clips.scan_files`.
    """

    rows: list[tuple[Listed, str]]
    videos: dict[str, str]
    labels: LabelSet
    extracted: Path | None
    findings: Findings
    split: str = ""
    passed_over: Sequence[str] = ()

    def clips(self) -> Iterator[Clip]:
        """The clips whose file is there, in the order of the CSV."""
        for row, video_id in self._wanted():
            if row.path in self.videos:
                video = self.videos[row.path]
                clip = Clip(video_id, row.labels, video, row.start, row.end, split=row.split)
                yield with_extracted(clip, self.extracted)

    def notes(self, source: object) -> list[str]:
        """What was put right in the CSV."""
        unlabelled = sum(not row.labels for row, _ in self._wanted())
        more = [f"{source}: {counted(unlabelled, 'row')} without a label"] if unlabelled else []
        more += described_passed_over(self.passed_over)
        return self.findings.described_notes(source) + more

    def why_nothing_matched(self) -> str:
        """What was looked for and what was there."""
        if not self.rows:
            return f"not one of its {len(self.findings.bad)} rows can be used."
        there = f"one that is there is {min(self.videos)}" if self.videos else "there is none"
        return (
            f"not one of the {len(self.rows)} files it names is there. The first is "
            f"{self.rows[0][0].path}; below the folder {there}."
        )

    def report(self) -> Iterator[Finding]:
        """What became of every row and file."""
        yield from (Finding("bad-row", line=n, detail=why) for n, why in self.findings.bad)
        for row, video_id in self._wanted():
            path = self.videos.get(row.path, "")
            status = "matched" if path else "missing"
            yield Finding(status, video_id, row.start, row.end, row.line, path or row.path)
        named = {row.path for row, _ in self.rows}
        for name in sorted(self.videos.keys() - named):
            yield Finding("extra", path=self.videos[name], detail="no row of the CSV names it")

    def _wanted(self) -> Iterator[tuple[Listed, str]]:
        return ((row, name) for row, name in self.rows if self.split in ("", row.split))


def match_listing(
    rows: list[Listed],
    root: Path,
    extracted: Path | None,
    labels: LabelSet | None,
    findings: Findings,
    split: str = "",
    on_file: Callable[[], object] = lambda: None,
) -> MatchedListing:
    """Find the videos that a CSV names.

    Args:
        rows: see `read_listing`.
        root: the folder that relative paths start from.
        extracted: what `avprep extract` wrote for the same folder.
        labels: the label set that the rows were read with; None to number the sorted names.
        findings: of reading the rows.
        split: see `MatchedListing`.
        on_file: called after each file found.

    Raises:
        UserError: no such folder, or one that cannot be listed.
    """
    if labels is None:
        labels, mids = label_set_for((name for row in rows for name in row.labels), None, root)
        rows = [replace(row, labels=tuple(mids[name] for name in row.labels)) for row in rows]
    rows = [replace(row, path=_below(root, row.path)) for row in rows]
    videos = {}
    passed_over: list[str] = []
    for folder, name in scan_files(root, VIDEO_SUFFIXES, passed_over, on_file):
        path = os.path.join(folder, name)
        if is_writable(path):
            videos[os.path.relpath(path, root)] = path
    for row in rows:
        if row.path not in videos and os.path.isfile(os.path.join(root, row.path)):
            videos[row.path] = os.path.join(root, row.path)
    if not all(row.path in videos for row in rows):
        named = _by_stem(videos)
        rows = [
            row if row.path in videos else replace(row, path=named.get(row.path, row.path))
            for row in rows
        ]
    rows = _found_by_names(rows, videos, findings)
    with_ids = list(zip(rows, _ids(rows), strict=True))
    return MatchedListing(with_ids, videos, labels, extracted, findings, split, passed_over)


def _by_stem(paths: Iterable[str]) -> dict[str, str]:
    """The file that a CSV may mean by a name without suffix, with its folders or without."""
    found: dict[str, str] = {}
    for path in sorted(paths, key=lambda path: (container_rank(path), path)):
        stem = os.path.splitext(path)[0]
        for name in {stem, os.path.basename(stem)}:
            other = found.setdefault(name, path)
            if os.path.splitext(other)[0] != stem:
                found[name] = ""  # in several folders: it could be any
    return {name: path for name, path in found.items() if path}


def _found_by_names(
    rows: list[Listed], videos: Mapping[str, str], findings: Findings
) -> list[Listed]:
    """Rows with the files that are named by their id and times, as `ID_000020_000030.mp4`."""
    stems = {os.path.splitext(os.path.basename(path))[0] for path in videos}
    known = {*videos, *stems}  # a stem that is no row's file yet is that of several
    lacking = [n for n, row in enumerate(rows) if row.path not in known and "/" not in row.path]
    if not lacking:
        return rows
    import pandas as pd

    never = -1.0  # no name has this time
    table = pd.DataFrame(
        {
            "video_id": [rows[n].path for n in lacking],
            "start": [never if rows[n].start is None else rows[n].start for n in lacking],
            "end": [never if rows[n].end is None else rows[n].end for n in lacking],
        }
    )
    path_of = {"/".join(os.path.split(path)): path for path in videos}
    matches = match_files(table, map(os.path.split, videos), whole_videos=True)
    rows = list(rows)
    for place, n in enumerate(lacking):
        if path := path_of.get(matches.paths[place]):
            rows[n] = replace(rows[n], path=path)
            if not matches.names_id_alone(place):
                rows[n] = replace(rows[n], start=None, end=None)
                findings.note("the file has the row's times in its name and is cut", rows[n].line)
    return rows


def _ids(rows: list[Listed]) -> list[str]:
    paths = list(dict.fromkeys(row.path for row in rows))
    id_of = dict(zip(paths, video_ids(paths), strict=True))
    segments = Counter(row.path for row in rows)

    def video_id(row: Listed) -> str:
        if segments[row.path] == 1:
            return id_of[row.path]
        end = "end" if row.end is None else _seconds(row.end)
        return f"{id_of[row.path]}_{_seconds(row.start or 0.0)}_{end}"

    return [video_id(row) for row in rows]


def _seconds(time: float) -> str:
    """`30`, `30.5`; different for different times."""
    short = f"{time:g}"
    return short if float(short) == time else repr(time)


def _below(root: Path, path: str) -> str:
    """An absolute path as one below `root`, if it is."""
    top = os.path.abspath(root)
    inside = os.path.isabs(path) and os.path.commonpath((top, path)) == top
    return os.path.relpath(path, top) if inside else path


def _columns(path: Path, header: list[str]) -> Columns:
    """Where each known column stands."""
    columns = known_columns(f"{path}: line 1", header, _KNOWN)
    if "path" not in columns.places or not columns.places.keys() & {"label", "labels"}:
        found = ",".join(header) or "nothing"
        raise UserError(
            f"{path}: line 1 must name the columns, at least path and label, found {shown(found)}."
        )
    return columns


def _parse(
    line: int, row: list[str], columns: Columns, labels: LabelSet | None, findings: Findings
) -> Listed:
    path, label, several, split = (
        columns.cell(row, name) for name in ("path", "label", "labels", "split")
    )
    if not path:
        raise RowError("has no path")
    width = columns.width
    if any(value.strip() for value in row[width:]):
        raise RowError(f"has more fields than the {width} of line 1; quote a field with commas in")
    starts, ends = times_of(row, columns)
    start = checked_seconds(starts, "start") if starts else None
    end = checked_seconds(ends, "end") if ends else None
    if end is not None and end <= (start or 0):
        raise RowError(f"the end, {end:g} s, does not come after the start, {start or 0:g} s")
    names = [label] if label else []
    several, separator = _list_of(several)
    if separator != "," or labels is None:
        names += [name.strip() for name in several.split(separator)]
    elif several:
        names += checked_labels(several, labels, findings).split(",")
    if labels is not None:
        names = [checked_label(name, labels, findings) for name in names if name]
    mids = tuple(dict.fromkeys(filter(None, names)))
    return Listed(line, os.path.normpath(path), mids, start, end, split)


def _list_of(text: str) -> tuple[str, str]:
    """A cell of several labels without the brackets of a Python list, and what separates them."""
    if text.startswith("[") and text.endswith("]"):
        text = text[1:-1].replace("'", "").replace('"', "")
    return text, next((sign for sign in ";|" if sign in text), ",")
