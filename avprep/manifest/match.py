"""Which file belongs to which row: one pass over the files, one dictionary of the ids."""

from __future__ import annotations

import os
from array import array
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple

from avprep.clips import is_writable, without_stream
from avprep.manifest.naming import Reading, readings

if TYPE_CHECKING:
    import pandas as pd

_SUFFIX_ORDER = (".mp4", ".mkv", ".webm", ".mov", ".m4v", ".avi", ".wav", ".flac")
_NO_FILE, _BOTH_TIMES, _START, _ID_ALONE = range(4)  # how a name was read; the least wins
_ONE_STREAM = 4  # is added where the file is but one stream of the video


@dataclass
class Matches:
    """The file of each row of a table, and what else was found.

    Attributes:
        paths: of each row; "" where it has none.
        kinds: int8 of each row: how its file's name was read.
        duplicates: (path, row): files for a row that has a better one.
        extras: (path, reason): files for no row.
    """

    paths: list[str]
    kinds: array[int]
    duplicates: list[tuple[str, int]] = field(default_factory=list)
    extras: list[tuple[str, str]] = field(default_factory=list)

    def names_id_alone(self, row: int) -> bool:
        """Whether the name of the row's file has no times: it may be the whole video."""
        return self.kinds[row] % _ONE_STREAM == _ID_ALONE


class _Verdict(NamedTuple):
    """What one file is: for these rows, or for none and why."""

    rows: tuple[int, ...] = ()
    kind: int = _NO_FILE
    reason: str = ""


def match_files(
    table: pd.DataFrame, files: Iterable[tuple[str, str]], whole_videos: bool = False
) -> Matches:
    """Find the file of each row.

    Args:
        table: see `read_table`; no two rows are the same segment.
        files: (folder, name) of each, in any order; the result does not depend on it.
        whole_videos: a file named by the id alone is the whole video, for all its segments.
            Otherwise it is the one segment its id has; of several it could be any, so it is none.
    """
    rows_of = _rows_of_ids(table["video_id"])
    starts, ends = table["start"].tolist(), table["end"].tolist()
    found = no_files(table)
    for folder, name in files:
        path = f"{folder}/{name}"
        if not is_writable(path):
            found.extras.append((path, "its name is not UTF-8; rename it"))
            continue
        stem = name[: name.rindex(".")]
        verdict = _judge(stem, rows_of, starts, ends, whole_videos)
        if video := without_stream(stem):
            whole = _judge(video, rows_of, starts, ends, whole_videos)
            if whole.rows:
                verdict = whole._replace(kind=whole.kind + _ONE_STREAM)
        if not verdict.rows:
            found.extras.append((path, verdict.reason))
        for row in verdict.rows:
            _offer(found, row, path, verdict.kind)
    found.duplicates.sort()
    found.extras.sort()
    return found


def no_files(table: pd.DataFrame) -> Matches:
    """The matches of a table where no files are looked for."""
    return Matches([""] * len(table), array("b", bytes(len(table))))


def _rows_of_ids(ids: Iterable[str]) -> dict[str, int | list[int]]:
    rows_of: dict[str, int | list[int]] = {}
    for row, video_id in enumerate(ids):
        known = rows_of.setdefault(video_id, row)
        if isinstance(known, list):
            known.append(row)
        elif known != row:
            rows_of[video_id] = [known, row]
    return rows_of


def _judge(
    stem: str,
    rows_of: Mapping[str, int | list[int]],
    starts: Sequence[float],
    ends: Sequence[float],
    whole_videos: bool,
) -> _Verdict:
    reason = "no row of the CSV has such an id"
    for reading in readings(stem):
        known = rows_of.get(reading.video_id)
        if known is None:
            continue
        if any(rival in rows_of for rival in reading.rivals):
            reason = "the name holds two ids of the CSV"
            continue
        if reading.is_unclear:
            reason = "its name may give times or a part, but not so as is known; use ID_START_END"
            continue
        if isinstance(known, int) and reading.exactly(starts[known], ends[known]):
            return _Verdict((known,), _kind(reading))  # nearly all files end here
        rows = known if isinstance(known, list) else [known]
        if not reading.start:
            if whole_videos:
                return _Verdict(tuple(rows), _ID_ALONE)
            reason = f"the CSV has {len(rows)} segments of this id, and the name says not which"
            continue
        chosen = [row for row in rows if reading.exactly(starts[row], ends[row])]
        if not chosen:
            chosen = [row for row in rows if reading.roughly(starts[row], ends[row])]
        if len(chosen) == 1:
            return _Verdict(tuple(chosen), _kind(reading))
        times = ", ".join(f"{starts[row]:g}–{ends[row]:g} s" for row in rows[:3])
        reason = f"the CSV has {reading.video_id!r} at other times ({times})"
        if chosen:
            reason = f"the name fits {len(chosen)} segments of {reading.video_id!r}"
    return _Verdict(reason=reason)


def _kind(reading: Reading) -> int:
    if reading.end:
        return _BOTH_TIMES
    return _START if reading.start else _ID_ALONE


def _offer(found: Matches, row: int, path: str, kind: int) -> None:
    best = found.paths[row]
    if best:
        if _rank(kind, path) >= _rank(found.kinds[row], best):
            found.duplicates.append((path, row))
            return
        found.duplicates.append((best, row))
    found.paths[row] = path
    found.kinds[row] = kind


def _rank(kind: int, path: str) -> tuple[int, int, int, str]:
    """Of two files for one row the lesser is taken.

    The name that says more goes first; then the container that decodes fastest and surest; then
    the shorter path, and the first in the alphabet.
    """
    return kind, *container_rank(path), path


def container_rank(path: str) -> tuple[int, int]:
    """The less, the better: the container that decodes fastest and surest, and few folders."""
    suffix = os.path.splitext(path)[1].lower()
    place = _SUFFIX_ORDER.index(suffix) if suffix in _SUFFIX_ORDER else len(_SUFFIX_ORDER)
    return place, path.count(os.sep)
