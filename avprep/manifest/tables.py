"""Manifests as tables, for spreadsheets and data frames: one row a clip, one column a key."""

from __future__ import annotations

import csv
import io
import itertools
import math
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from avprep.columns import folded, known_columns, times_of
from avprep.csvfile import csv_records, shown
from avprep.errors import UserError

if TYPE_CHECKING:
    import pyarrow

_TEXTS = ("video_id", "labels", "video", "wav", "video_path", "split")
_TIMES = ("start", "end")
COLUMNS = ("video_id", "labels", "video", "start", "end", "wav", "video_path", "split")
_ROWS_AT_ONCE = 65536  # of a Parquet file in memory


def iter_table(path: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    """The rows of a manifest's table as entries, each with its place for messages.

    Raises:
        UserError: not such a table, or pyarrow is needed and not installed.
    """
    return _iter_parquet(path) if path.suffix == ".parquet" else _iter_csv(path)


def write_csv(file: IO[bytes], entries: Iterable[Mapping[str, Any]]) -> None:
    """Write entries as CSV, UTF-8; empty where a key is not set."""
    text = io.TextIOWrapper(file, "utf-8", newline="")
    plain = csv.writer(text, lineterminator="\n")
    # A lone carriage return must stand in quotes, or readers take it for the end of a line.
    quoted = csv.writer(text, lineterminator="\n", quoting=csv.QUOTE_ALL)
    plain.writerow(COLUMNS)
    for entry in entries:
        row = ["" if (value := entry.get(name)) is None else value for name in COLUMNS]
        returns = any("\r" in value for value in row if isinstance(value, str))
        try:
            (quoted if returns else plain).writerow(row)
        except UnicodeEncodeError as error:
            raise UserError(
                f"{entry['video_id']!r}: has a name that is not UTF-8, which a table cannot hold. "
                "Rename the file, or write the manifest as .json or .jsonl."
            ) from error
    text.flush()
    text.detach()


def write_parquet(file: IO[bytes], entries: Iterable[Mapping[str, Any]]) -> None:
    """Write entries as Parquet, a row group at a time.

    Raises:
        UserError: pyarrow is not installed.
    """
    arrow = _pyarrow()
    import pyarrow.parquet

    texts = [(name, arrow.string()) for name in _TEXTS]
    types = dict([*texts, *((name, arrow.float64()) for name in _TIMES)])
    schema = arrow.schema([(name, types[name]) for name in COLUMNS])
    remaining = iter(entries)
    with pyarrow.parquet.ParquetWriter(file, schema) as writer:
        while group := list(itertools.islice(remaining, _ROWS_AT_ONCE)):
            writer.write_table(arrow.Table.from_pylist([dict(entry) for entry in group], schema))


def _iter_csv(path: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    records = csv_records(path)
    _, header = next(records, (1, []))
    columns = known_columns(f"{path}: line 1", header, {name: (folded(name),) for name in _TEXTS})
    if "video_id" not in columns.places or not {"wav", "video"} & columns.places.keys():
        raise UserError(
            f"{path}: line 1 must name the columns of a manifest ({','.join(COLUMNS)}), found "
            f"{shown(','.join(header)) if header else 'nothing'}. For a list of paths and labels "
            "use `avprep manifest folder DIR --csv`."
        )
    texts = [(name, columns.places[name]) for name in _TEXTS if name in columns.places]
    for line, row in records:
        where = f"{path}: line {line}"
        if len(row) != len(header):
            raise UserError(f"{where}: has {len(row)} fields, line 1 has {len(header)}.")
        start, end = times_of(row, columns)
        entry = {name: row[place] for name, place in texts}
        yield where, _entry({**entry, "start": start, "end": end}, where)


def _iter_parquet(path: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    arrow = _pyarrow()
    import pyarrow.parquet

    try:
        with pyarrow.parquet.ParquetFile(path) as table:
            names = table.schema_arrow.names
            if "video_id" not in names:
                found = ", ".join(names)
                raise UserError(f"{path}: has no column video_id, so is no manifest; has {found}.")
            number = 0
            known = [name for name in COLUMNS if name in names]
            for group in table.iter_batches(_ROWS_AT_ONCE, columns=known):
                for row in group.to_pylist():
                    where = f"{path}: row {number}"
                    yield where, _entry(row, where)
                    number += 1
    except (arrow.ArrowInvalid, arrow.ArrowNotImplementedError) as error:
        raise UserError(f"{path}: not a Parquet file that can be read ({error}).") from error


def _entry(row: Mapping[str, Any], where: str) -> dict[str, Any]:
    """A row as the manifest's entry: columns that it lacks are empty, times are numbers."""
    entry: dict[str, Any] = {}
    for name in _TEXTS:
        value = row.get(name)
        entry[name] = "" if value is None else value
    for name in _TIMES:
        value = row.get(name)
        if value is None or value == "" or (isinstance(value, float) and math.isnan(value)):
            continue
        try:
            entry[name] = float(value)
        except (TypeError, ValueError):
            raise UserError(f"{where}: {name!r} must be seconds, found {value!r}.") from None
    return entry


def _pyarrow() -> pyarrow:
    try:
        import pyarrow
    except ImportError as error:
        raise UserError("Parquet needs pyarrow: `pip install 'avprep-cavmae[parquet]'`.") from error
    return pyarrow
