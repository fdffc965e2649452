"""A manifest from a folder and a CSV that names its videos and their classes."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from avprep import storage
from avprep.clips import (
    Places,
    Scan,
    VideoFile,
    distinct_paths,
    expanded,
    find_files,
    ids_of,
    is_writable,
    path_below,
)
from avprep.columns import IDS, LABEL, LABELS, PATHS, SPLIT, URLS, Columns, known_columns, times_of
from avprep.csvfile import shown
from avprep.errors import UserError
from avprep.kinds import SUFFIXES, FileKind
from avprep.labels import LabelSet
from avprep.manifest.sources.match import (
    UNNAMEABLE,
    Matches,
    container_rank,
    extracted_audio,
    match_files,
)
from avprep.manifest.sources.matched import DataSet, Matched
from avprep.manifest.sources.records import Record, records
from avprep.manifest.sources.rows import (
    CsvNotes,
    Row,
    RowError,
    Segments,
    check_order,
    checked_label,
    checked_labels,
    checked_seconds,
    numbered,
)
from avprep.wording import counted

_KNOWN = {"label": LABEL, "labels": LABELS, "split": SPLIT}
_SEVERAL = "files in several rows have the classes of all of them"


def read_listing(path: Path, labels: LabelSet | None) -> DataSet:
    """Read a table with the columns `path` and `label` (or `labels`), in any order.

    Columns of a split and of times are read too, others are ignored; for the names see
    `avprep.columns`. `label` is one class; `labels` are several, separated by `;` or `|`, or by
    commas where neither occurs; the brackets of a Python list are removed. A file in several rows
    has the classes of all of them.

    Args:
        path: CSV, JSON lines or Parquet; the first line of a CSV names the columns.
        labels: its classes; None to number the sorted names.

    Raises:
        UserError: it cannot be read, lacks a column, or has no rows.
    """
    return _read_rows(path, records(path), (*PATHS, *IDS, *URLS), ("path", "label"), labels)


def read_clip_table(path: Path, labels: LabelSet | None, archive: Path | None = None) -> DataSet:
    """Read a table that says by itself where the clips are, as paths or URLs; labels are optional.

    Args:
        path: the table.
        labels: see `read_listing`.
        archive: see `records`.

    Raises:
        UserError: see `read_listing`.
    """
    return _read_rows(path, records(path, archive), (*PATHS, *URLS, *IDS), ("path",), labels)


def _read_rows(
    path: Path,
    rows: Iterator[Record],
    names: tuple[str, ...],
    needed: tuple[str, ...],
    labels: LabelSet | None,
) -> DataSet:
    """The rows of a table.

    Args:
        path: the table.
        rows: its records; the first has the names of the columns.
        names: of the column of paths, the best first.
        needed: columns that must be there; for a `label` there may be `labels`.
        labels: see `read_listing`.
    """
    _, header = next(rows, (1, []))
    columns = known_columns(f"{path}: line 1", header, {"path": names, **_KNOWN})
    there = {name.removesuffix("s") for name in columns.places}
    if not there.issuperset(needed):
        raise UserError(
            f"{path}: line 1 must name the columns, at least {' and '.join(needed)}, found "
            f"{shown(','.join(header) or 'nothing')}."
        )
    segments, notes = Segments(), CsvNotes()
    for line, cells in rows:
        if not any(cell.strip() for cell in cells):
            continue
        try:
            is_new = segments.add(_parse_row(line, cells, columns, labels, notes))
        except RowError as error:
            notes.bad.append((line, str(error)))
            continue
        if not is_new:
            notes.note(_SEVERAL, line)
    if not segments.rows and not notes.bad:
        raise UserError(f"{path}: has no rows below its header.")
    if labels is None:
        labels, with_mids = numbered(segments.rows, path)
        segments = Segments(with_mids)
    return DataSet(segments, labels, notes, named_by="path")


def match_listing(
    data_set: DataSet,
    root: Places,
    extracted: Path | None,
    on_files: Callable[[int], object] = lambda count: None,
    base: str = "",
    kinds: tuple[FileKind, ...] = (),
) -> Matched:
    """Find the videos that a list names.

    Args:
        data_set: see `read_listing`.
        root: the place, or places, that are scanned and that relative paths start from.
        extracted: what `avprep extract` wrote for the same folder.
        on_files: called with the number of files found in each folder.
        base: a further folder that relative paths start from, and that is not scanned.
        kinds: of files that are scanned for, see `Scan`; by default also those that rows name.

    Raises:
        UserError: nothing is there, or a place cannot be listed.
    """
    roots, scan = expanded(root), Scan(kinds or _named_kinds(data_set))
    found = find_files(roots, scan, on_files)
    files = [file for file in found if is_writable(file.video)]
    extras = [(file.video, UNNAMEABLE) for file in found if not is_writable(file.video)]
    videos = {path: file.video for path, file in zip(distinct_paths(files), files, strict=True)}
    path_of = {video: path for path, video in videos.items()}
    rows = [
        row._replace(name=path_of.get(row.name) or _below(roots, row.name))
        for row in data_set.segments.rows
    ]
    unscanned = {row.name for row in rows} - videos.keys()
    videos |= _named_elsewhere(unscanned, [*filter(os.path.isdir, roots), *filter(None, [base])])
    passed_over = filter(storage.is_url, scan.passed_over)  # unless a row asks for it
    below = {path_below(file, root): file for file in passed_over for root in roots}
    videos |= {name: below[name] for name in unscanned & below.keys()}
    rows = _found_by_stem(rows, videos)
    rows = _found_by_times(rows, videos, data_set.notes)
    segments = Segments(rows)
    for row, _ in segments.repeated:  # that spell the path otherwise
        data_set.notes.note(_SEVERAL, row.line)
    ids = _ids(segments.rows)
    for name in sorted(videos.keys() - {row.name for row in rows}):
        extras.append((videos[name], "no row of the CSV names it"))
    data_set = replace(data_set, segments=segments)
    matches = Matches.named([videos.get(row.name, "") for row in segments.rows], extras)
    return Matched(
        data_set,
        ids,
        matches,
        extracted_audio(matches, ids, extracted),
        extracted,
        is_cut=True,
        scan=scan,
        looked_in=", ".join(roots) or base,
        looked_for=rows[0].name if rows else "",
        remarks=list(_not_looked_at(videos[row.name] for row in rows if row.name in videos)),
    )


def _named_kinds(data_set: DataSet) -> tuple[FileKind, ...]:
    """Videos, and the other kinds of files that rows name; () where they name none of these."""
    named = {os.path.splitext(row.name)[1].lower() for row in data_set.segments.rows}
    others: list[FileKind] = [
        kind for kind, suffixes in SUFFIXES.items() if kind != "video" and suffixes & named
    ]
    return ("video", *others) if others else ()


def _parse_row(
    line: int, cells: list[str], columns: Columns, labels: LabelSet | None, notes: CsvNotes
) -> Row:
    path, label, several, split = (
        columns.cell(cells, name) for name in ("path", "label", "labels", "split")
    )
    if not path:
        raise RowError("has no path")
    width = columns.width
    if any(cell.strip() for cell in cells[width:]):
        raise RowError(f"has more fields than the {width} of line 1; quote a field with commas in")
    starts, ends = times_of(cells, columns)
    start = checked_seconds(starts, "start") if starts else None
    end = checked_seconds(ends, "end") if ends else None
    if end is not None:
        check_order(start or 0.0, end)
    several, separator = _list_of(several)
    if labels is not None and separator == ",":
        names = [label, *(checked_labels(several, labels, notes) if several else ())]
    else:
        names = [label, *map(str.strip, several.split(separator))]
    names = [name for name in names if name]
    if labels is not None:
        names = [checked_label(name, labels, notes) for name in names]
    name = path if storage.is_url(path) else os.path.normpath(path)
    return Row(line, name, start, end, tuple(dict.fromkeys(names)), split)


def _list_of(text: str) -> tuple[str, str]:
    """A cell of several labels without the brackets of a Python list, and what separates them."""
    if text.startswith("[") and text.endswith("]"):
        text = text[1:-1].replace("'", "").replace('"', "")
    return text, next((sign for sign in ";|" if sign in text), ",")


def _below(roots: Sequence[str], path: str) -> str:
    """An absolute path as one below a root, if it is."""
    for root in roots:
        top = os.path.abspath(root)
        if os.path.isabs(path) and os.path.commonpath((top, path)) == top:
            return os.path.relpath(path, top)
    return path


def _named_elsewhere(names: Iterable[str], folders: Sequence[str]) -> dict[str, str]:
    """Files that rows name and that no scan found; by name, their path or URL."""
    places = {name: _places_of(name, folders) for name in names}
    there = storage.present(dict.fromkeys(place for some in places.values() for place in some))
    found = {name: [place for place in some if place in there] for name, some in places.items()}
    return {name: some[0] for name, some in found.items() if some}


def _places_of(name: str, folders: Sequence[str]) -> list[str]:
    """Where a file may be that a row names; a relative path starts from any of the folders."""
    member, chain, file = name.rpartition("::") if storage.is_chained(name) else ("", "", name)
    if storage.is_url(file) or os.path.isabs(file):
        return [name]
    return [f"{member}{chain}{os.path.join(top, file).removeprefix('./')}" for top in folders]


def _not_looked_at(videos: Iterable[str]) -> Iterator[str]:
    count = sum(video.startswith(("http://", "https://")) for video in videos)
    if count:
        yield f"{counted(count, 'clip')} on web servers, which are not checked"


def _found_by_stem(rows: list[Row], videos: Collection[str]) -> list[Row]:
    """Rows with the files that they name without suffix, with their folders or without."""
    if all(row.name in videos for row in rows):
        return rows
    stem_of = {path: os.path.splitext(path)[0] for path in videos}
    found: dict[str, str] = {}
    for path in sorted(stem_of, key=lambda path: (container_rank(path), path)):
        for name in {stem_of[path], os.path.basename(stem_of[path])}:
            other = found.setdefault(name, path)
            if other and stem_of[other] != stem_of[path]:
                found[name] = ""  # in several folders: it could be any
    return [
        row if row.name in stem_of else row._replace(name=found.get(row.name) or row.name)
        for row in rows
    ]


def _found_by_times(rows: list[Row], videos: Mapping[str, str], notes: CsvNotes) -> list[Row]:
    """Rows with the files that are named by their id and times, as `ID_000020_000030.mp4`."""
    stems = {os.path.splitext(os.path.basename(path))[0] for path in videos}
    known = {*videos, *stems}  # a stem that was not resolved by now belongs to several files
    lacking = Segments(row for row in rows if row.name not in known and "/" not in row.name)
    if not lacking.rows:
        return rows
    below = {"/".join(os.path.split(path)): path for path in videos}
    matches = match_files(lacking, map(os.path.split, videos), whole_videos=True)
    file_of = {
        row[1:4]: (below[path], matches.names_id_alone(place))
        for place, (row, path) in enumerate(zip(lacking.rows, matches.paths, strict=True))
        if path
    }
    found = []
    for row in rows:
        path, is_whole = file_of.get(row[1:4], (row.name, True))
        if not is_whole:
            notes.note("files with the row's times in their names are taken whole", row.line)
            row = row._replace(start=None, end=None)
        found.append(row._replace(name=path))
    return found


def _ids(rows: list[Row]) -> list[str]:
    names = list(dict.fromkeys(row.name for row in rows))
    files = [
        VideoFile(path_below(name, "") if storage.is_chained(name) else name, name)
        for name in names
    ]
    id_of = dict(zip(names, ids_of(files), strict=True))
    segments = Counter(row.name for row in rows)

    def video_id(row: Row) -> str:
        if segments[row.name] == 1:
            return id_of[row.name]
        end = "end" if row.end is None else _seconds(row.end)
        return f"{id_of[row.name]}_{_seconds(row.start or 0.0)}_{end}"

    return [video_id(row) for row in rows]


def _seconds(time: float) -> str:
    """`30`, `30.5`; different for different times."""
    short = f"{time:g}"
    return short if float(short) == time else repr(time)
