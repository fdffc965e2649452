"""Manifests as tables, for spreadsheets and data frames: one row per clip, one column per key."""

from __future__ import annotations

import contextlib
import csv
import functools
import io
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import fields
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from avprep.batches import batched
from avprep.clips import Clip
from avprep.columns import folded, known_columns, times_of
from avprep.csvfile import csv_records, shown
from avprep.errors import UserError

if TYPE_CHECKING:
    import pyarrow.parquet

COLUMNS = tuple(field.name for field in fields(Clip))
TIMES = ("start", "end")
TEXTS = tuple(name for name in COLUMNS if name not in TIMES)
_ROWS_AT_ONCE = 65536  # of a Parquet file in memory


def write_csv(file: IO[bytes], entries: Iterable[Mapping[str, Any]]) -> None:
    """Write entries as CSV, UTF-8; empty where a key is not set."""
    text = io.TextIOWrapper(file, "utf-8", newline="")
    plain = csv.writer(text, lineterminator="\n")
    # A lone carriage return must be quoted, or readers take it for the end of a line.
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
    arrow = import_pyarrow()
    import pyarrow.parquet

    types = {True: arrow.float64(), False: arrow.string()}
    schema = arrow.schema([(name, types[name in TIMES]) for name in COLUMNS])
    with pyarrow.parquet.ParquetWriter(file, schema) as writer:
        for group in batched(entries, _ROWS_AT_ONCE):
            writer.write_table(arrow.Table.from_pylist([dict(entry) for entry in group], schema))


def iter_csv(path: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    """The rows of a CSV as entries, each with its place for messages.

    Raises:
        UserError: not the table of a manifest.
    """
    records = csv_records(path)
    _, header = next(records, (1, []))
    columns = known_columns(f"{path}: line 1", header, {name: (folded(name),) for name in TEXTS})
    if "video_id" not in columns.places or not {"wav", "video"} & columns.places.keys():
        raise UserError(
            f"{path}: line 1 must name the columns of a manifest ({','.join(COLUMNS)}), found "
            f"{shown(','.join(header)) if header else 'nothing'}. For a list of paths and labels "
            "use `avprep manifest folder DIR --csv`."
        )
    texts = [(name, columns.places[name]) for name in TEXTS if name in columns.places]
    for line, row in records:
        where = f"{path}: line {line}"
        if len(row) != len(header):
            raise UserError(f"{where}: has {len(row)} fields, line 1 has {len(header)}.")
        entry = {name: row[place] for name, place in texts}
        entry["start"], entry["end"] = times_of(row, columns)
        yield where, _entry(entry, where)


def iter_parquet(path: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    """The rows of a Parquet file as entries, each with its place for messages.

    Raises:
        UserError: not the table of a manifest, or pyarrow is not installed.
    """
    with open_parquet(path) as table:
        names = table.schema_arrow.names
        if "video_id" not in names:
            found = ", ".join(names)
            raise UserError(f"{path}: not a manifest: it has no column video_id, only {found}.")
        if fault := time_passed_over(frozenset(names)):
            raise UserError(f"{path}: {fault}")
        known = [name for name in COLUMNS if name in names]
        groups = table.iter_batches(_ROWS_AT_ONCE, columns=known)
        for number, row in enumerate(row for group in groups for row in group.to_pylist()):
            where = f"{path}: row {number}"
            yield where, _entry(row, where)


@functools.lru_cache(100)
def time_passed_over(names: frozenset[str]) -> str:
    """What is wrong with an entry's keys: one says a time, but is not called so; "" for nothing.

    A segment whose times are passed over would become a whole file.
    """
    others = sorted(names.difference(COLUMNS))
    try:
        times = known_columns("", others, {}).places
    except UserError as error:
        return str(error).removeprefix(": ")
    for role, place in times.items():
        if role != "duration":
            return f"{others[place]!r} looks like the {role}. Call it {role}, or leave it out."
        if "start" in names and "end" not in names:
            return f"{others[place]!r} stands with a start. Give the end instead, or leave it out."
    return ""


@contextlib.contextmanager
def open_parquet(path: Path) -> Iterator[pyarrow.parquet.ParquetFile]:
    """A Parquet file, for reading.

    Raises:
        UserError: it is not one that can be read, or pyarrow is not installed.
    """
    arrow = import_pyarrow()
    import pyarrow.parquet

    try:
        with pyarrow.parquet.ParquetFile(path) as table:
            yield table
    except (arrow.ArrowInvalid, arrow.ArrowNotImplementedError) as error:
        raise UserError(f"{path}: not a Parquet file that can be read ({error}).") from error


def _entry(row: Mapping[str, Any], where: str) -> dict[str, Any]:
    """A row as the manifest's entry: columns that it lacks are empty, times are numbers."""
    entry = {name: "" if (text := row.get(name)) is None else text for name in TEXTS}
    for name in TIMES:
        value = row.get(name)
        if value in (None, "") or value != value:  # NaN
            continue
        try:
            entry[name] = float(value)
        except (TypeError, ValueError):
            raise UserError(f"{where}: {name!r} must be seconds, found {value!r}.") from None
    return entry


def import_pyarrow() -> pyarrow:
    """The library that reads and writes Parquet.

    Raises:
        UserError: it is not installed.
    """
    try:
        import pyarrow
    except ImportError as error:
        raise UserError(
            "Parquet needs pyarrow. Run `pip install 'avprep-cavmae[parquet]'`."
        ) from error
    return pyarrow
