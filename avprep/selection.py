"""Selections: CSV files with a column `video_id` and a row per clip that is kept.

`avprep filter` and `avprep duplicates` write them; `avprep manifest select` and the commands of
`cavmae` read them. Further columns are ignored, so any table that has that column is a selection.
So is a JSON list of ids, and a manifest, which is how subsets of data sets are published.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from avprep import storage
from avprep.columns import folded
from avprep.csvfile import csv_bytes, csv_records, shown
from avprep.errors import UserError

COLUMN = "video_id"


@dataclass(frozen=True)
class Selected:
    """Which of some clips a selection names.

    Attributes:
        positions: of the clips that it names, ascending.
        strangers: the ids in it that none of the clips has, in its order.
    """

    positions: tuple[int, ...]
    strangers: tuple[str, ...]


def read_selection(path: str | Path) -> tuple[str, ...]:
    """The ids in a selection, in its order, each once.

    Raises:
        UserError: the file cannot be read, has no column `video_id`, or names no clip.
    """
    path = Path(path)
    ids = _ids_of_json(path) if path.suffix == ".json" else _ids_of_csv(path)
    if not ids:
        raise UserError(f"{path}: names no clip. Give a selection with at least one row.")
    return tuple(ids)


def _ids_of_json(path: Path) -> dict[str, None]:
    try:
        document = json.loads(path.read_text(encoding="utf-8-sig"))
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror or error}).") from error
    except (ValueError, RecursionError) as error:
        raise UserError(f"{path}: not JSON ({error}).") from error
    entries = document.get("data") if isinstance(document, dict) else document
    if not isinstance(entries, list):
        raise UserError(f'{path}: give a JSON list of ids, or a manifest {{"data": [ … ]}}.')
    ids: dict[str, None] = {}
    for number, entry in enumerate(entries):
        video_id = entry.get(COLUMN) if isinstance(entry, dict) else entry
        if not isinstance(video_id, str) or not video_id:
            raise UserError(f"{path}: entry {number}: expected an id, found {shown(str(entry))}.")
        ids[_as_written(video_id)] = None
    return ids


def _ids_of_csv(path: Path) -> dict[str, None]:
    records = csv_records(path)
    _, header = next(records, (1, []))
    places = [place for place, name in enumerate(header) if folded(name) == folded(COLUMN)]
    if len(places) != 1:
        found = shown(",".join(header)) if header else "nothing"
        raise UserError(
            f"{path}: line 1 must name one column {COLUMN}, found {found}. Give a CSV with that "
            "header and a row per clip to keep, as `avprep filter` writes it."
        )
    ids: dict[str, None] = {}
    for line, row in records:
        if len(row) != len(header):
            raise UserError(
                f"{path}: line {line}: has {len(row)} fields, line 1 has {len(header)}. Put fields "
                "that hold commas, semicolons or tabs in quotes."
            )
        if not row[places[0]]:
            raise UserError(f"{path}: line {line}: {COLUMN} is empty. Name a clip, or delete it.")
        ids[row[places[0]]] = None
    return ids


def write_selection(path: str | Path, video_ids: Iterable[str]) -> None:
    """Write a selection whole or not at all.

    Raises:
        UserError: it cannot be written.
    """
    path = Path(path)
    storage.make_folder(path.parent)
    storage.write_atomic(path, csv_bytes([[COLUMN], *([name] for name in video_ids)]))


def select(path: str | Path, video_ids: Iterable[str]) -> Selected:
    """Find the clips that a selection names.

    Args:
        path: the selection.
        video_ids: of the clips, in their order.

    Raises:
        UserError: see `read_selection`.
    """
    wanted = dict.fromkeys(read_selection(path), False)
    positions = []
    for position, video_id in enumerate(video_ids):
        name = _as_written(video_id)
        if name in wanted:
            wanted[name] = True
            positions.append(position)
    strangers = tuple(name for name, is_found in wanted.items() if not is_found)
    return Selected(tuple(positions), strangers)


def _as_written(video_id: str) -> str:
    """An id as `csv_bytes` writes it."""
    return video_id.encode("utf-8", "backslashreplace").decode()
