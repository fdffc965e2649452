"""Tables of clips as people have them, CSV, JSON lines or Parquet, read as if all were CSV."""

from __future__ import annotations

import contextlib
import io
import json
import re
import tarfile
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from avprep import storage
from avprep.columns import IDS, PATHS, URLS, folded
from avprep.csvfile import csv_lines, csv_records, shown
from avprep.errors import UserError
from avprep.manifest.tables import open_parquet

_TABLE = re.compile(r".+\.(csv|tsv|jsonl|ndjson|parquet)(\.gz)?", re.IGNORECASE | re.DOTALL)
_JSON_LINES = re.compile(r".+\.(jsonl|ndjson)(\.gz)?", re.IGNORECASE | re.DOTALL)

_CONTENT = frozenset(
    (
        *("bytes", "content", "data", "file", "clip", "media", "video", "videos", "videobytes"),
        *("mp4", "webm", "mkv", "mov", "avi", "audio", "wav", "flac", "mp3", "ogg", "m4a"),
    )
)
_FILES_AT_ONCE = 8  # in memory

Record = tuple[int, list[str]]  # line or row, from 1; cells


def is_table(place: str) -> bool:
    """Whether a path is of a table, by its name."""
    return _TABLE.fullmatch(place) is not None


def records(path: Path, archive: Path | None = None) -> Iterator[Record]:
    """The records of a table; the first has the names of the columns.

    Args:
        path: CSV, JSON lines or Parquet.
        archive: the tar that `unpack_column` makes; the files in it are what a column `path` names.

    Raises:
        UserError: it cannot be read; with the line.
    """
    if _JSON_LINES.fullmatch(path.name):
        return _json_records(path)
    if path.suffix.lower() == ".parquet":
        return _parquet_records(path, archive)
    return csv_records(path)


def _json_records(path: Path) -> Iterator[Record]:
    columns = list(dict.fromkeys(key for _, entry in _json_objects(path) for key in entry))
    yield 1, columns
    for line, entry in _json_objects(path):
        yield line, [_cell(entry.get(name)) for name in columns]


def _json_objects(path: Path) -> Iterator[tuple[int, Mapping[str, Any]]]:
    for line, text in csv_lines(path):
        if not text.strip():
            continue
        try:
            entry = json.loads(text)
        except (ValueError, RecursionError) as error:
            raise UserError(f"{path}: line {line}: not JSON ({error}).") from error
        if not isinstance(entry, dict):
            raise UserError(f"{path}: line {line}: expected an object, found {shown(text)}.")
        yield line, entry


def content_column(path: Path) -> str:
    """The column of a Parquet file that holds the videos themselves; "" where there is none."""
    if path.suffix.lower() != ".parquet":
        return ""
    with _opened(path) as table:
        kinds = {one.name: str(one.type) for one in table.schema_arrow}
    binary = [name for name, kind in kinds.items() if "binary" in kind]
    named = [name for name in binary if folded(name) in _CONTENT]
    has_names = not {*map(folded, kinds.keys() - binary)}.isdisjoint((*PATHS, *URLS, *IDS))
    return next(iter(named if has_names else [*named, *binary]), "")


def unpack_column(
    path: Path, column: str, archive: Path, on_file: Callable[[], object] = lambda: None
) -> None:
    """Write the files in a column of bytes into a tar, each named by its row.

    Args:
        path: the Parquet file.
        column: bytes; or structs with a field `bytes`, as the datasets library writes them.
        archive: the tar, whole or not at all.
        on_file: called after each file.
    """
    storage.make_folder(archive.parent)
    with (
        _opened(path) as table,
        storage.replacing(archive) as file,
        tarfile.open(fileobj=file, mode="w|") as packed,
    ):
        groups = table.iter_batches(_FILES_AT_ONCE, columns=[column])
        values = (value for group in groups for value in group.column(0).to_pylist())
        for number, value in enumerate(values, start=1):
            content = value.get("bytes") if isinstance(value, dict) else value
            if content:
                member = tarfile.TarInfo(_member(number))
                member.size = len(content)
                packed.addfile(member, io.BytesIO(content))
                on_file()


def _member(row: int) -> str:
    return f"{row:08d}.mp4"


def _parquet_records(path: Path, archive: Path | None) -> Iterator[Record]:
    content = content_column(path)
    with _opened(path) as table:
        names = [one.name for one in table.schema_arrow if "binary" not in str(one.type)]
        if archive is not None:
            names = [name for name in names if folded(name) not in PATHS]
        elif content and not {*map(folded, names)}.intersection((*PATHS, *URLS, *IDS)):
            raise UserError(
                f"{path}: its column {shown(content)} holds the videos themselves, so there are "
                "none to look for. Give the table alone, without --csv."
            )
        yield 1, names if archive is None else [*names, "path"]
        number = 0
        for group in table.iter_batches(columns=names):
            for entry in group.to_pylist():
                number += 1
                cells = [_cell(entry[name]) for name in names]
                if archive is not None:
                    cells.append(f"tar://{_member(number)}::{archive}")
                yield number, cells


@contextlib.contextmanager
def _opened(path: Path) -> Iterator[Any]:
    try:
        with open_parquet(path) as table:
            yield table
    except FileNotFoundError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror or error}).") from error


def _cell(value: Any) -> str:
    """A value as text; each label of a list is followed by a semicolon."""
    if value is None or value != value:  # NaN
        return ""
    if isinstance(value, (list, tuple)):
        return "".join(f"{_cell(part)};" for part in value)
    return value if isinstance(value, str) else str(value)
