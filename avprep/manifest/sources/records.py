"""Tables of clips as people have them, CSV, JSON lines or Parquet, read as if all were CSV."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from avprep.columns import IDS, PATHS, URLS, folded
from avprep.csvfile import csv_lines, csv_records, shown
from avprep.errors import UserError
from avprep.manifest.tables import open_parquet

_TABLE = re.compile(r".+\.(csv|tsv|jsonl|ndjson|parquet)(\.gz)?", re.IGNORECASE | re.DOTALL)
_JSON_LINES = re.compile(r".+\.(jsonl|ndjson)(\.gz)?", re.IGNORECASE | re.DOTALL)

Record = tuple[int, list[str]]  # line or row, from 1; cells


def is_table(place: str) -> bool:
    """Whether a path is of a table, by its name."""
    return _TABLE.fullmatch(place) is not None


def records(path: Path) -> Iterator[Record]:
    """The records of a table; the first has the names of the columns.

    Raises:
        UserError: it cannot be read; with the line.
    """
    if _JSON_LINES.fullmatch(path.name):
        return _json_records(path)
    return _parquet_records(path) if path.suffix.lower() == ".parquet" else csv_records(path)


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


def _parquet_records(path: Path) -> Iterator[Record]:
    try:
        with open_parquet(path) as table:
            types = {one.name: str(one.type) for one in table.schema_arrow}
            columns = [name for name, kind in types.items() if "binary" not in kind]
            if not {*map(folded, columns)}.intersection((*PATHS, *URLS, *IDS)):
                _refuse_content(path, types.keys() - columns)
            yield 1, columns
            number = 0
            for group in table.iter_batches(columns=columns):
                for entry in group.to_pylist():
                    number += 1
                    yield number, [_cell(entry[name]) for name in columns]
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror or error}).") from error


def _refuse_content(path: Path, columns: Iterable[str]) -> None:
    """Raises UserError where a table has the videos themselves, in columns of bytes."""
    for name in columns:
        raise UserError(
            f"{path}: its column {shown(name)} holds files, not their paths, and a manifest only "
            "names files. Write them into a folder or a tar, and their names into a column path."
        )


def _cell(value: Any) -> str:
    """A value as text; each label of a list is followed by a semicolon."""
    if value is None or value != value:  # NaN
        return ""
    if isinstance(value, (list, tuple)):
        return "".join(f"{_cell(part)};" for part in value)
    return value if isinstance(value, str) else str(value)
