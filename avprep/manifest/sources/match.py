"""Which file belongs to which row, found in one pass over the files."""

from __future__ import annotations

import os
from array import array
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from avprep import storage
from avprep.clips import is_writable, without_stream
from avprep.errors import UserError
from avprep.extraction import audio_path, is_extracted
from avprep.manifest.sources.naming import Reading, readings
from avprep.manifest.sources.rows import Row, Segments

UNNAMEABLE = "its path is not UTF-8; rename it"
_SUFFIX_ORDER = (".mp4", ".mkv", ".webm", ".mov", ".m4v", ".avi", ".wav", ".flac")
_NO_FILE, _BOTH_TIMES, _START, _ID_ALONE = range(4)  # how a name was read; the smallest wins
_ONE_STREAM = 4  # is added where the file is only one stream of the video


@dataclass
class Matches:
    """The file of each row, and what else was found.

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

    def offer(self, row: int, path: str, kind: int) -> None:
        """Assign a file to a row, unless the row has a better one."""
        taken = self.paths[row]
        if taken and _rank(kind, path) >= _rank(self.kinds[row], taken):
            self.duplicates.append((path, row))
            return
        if taken:
            self.duplicates.append((taken, row))
        self.paths[row], self.kinds[row] = path, kind

    @classmethod
    def named(cls, paths: list[str], extras: list[tuple[str, str]] | None = None) -> Matches:
        """Files that the rows name themselves; each is the whole video."""
        return cls(paths, array("b", [_ID_ALONE]) * len(paths), extras=extras or [])


class _Verdict(NamedTuple):
    """The rows that a file belongs to, or why it belongs to none."""

    rows: tuple[int, ...] = ()
    kind: int = _NO_FILE
    reason: str = ""


def match_files(
    segments: Segments, files: Iterable[tuple[str, str]], whole_videos: bool = False
) -> Matches:
    """Find the file of each row.

    Args:
        segments: the rows.
        files: (folder, name) of each for `storage.join`, in any order; the result does not depend
            on it.
        whole_videos: a file named by the id alone is the whole video, for all its segments.
            Otherwise it is the one segment its id has; of several it could be any, so it is none.
    """
    count = len(segments.rows)
    found = Matches([""] * count, array("b", bytes(count)))
    for folder, name in files:
        path = storage.join(folder, name)
        if not is_writable(path):
            found.extras.append((path, UNNAMEABLE))
            continue
        stem = name[: name.rindex(".")]
        verdict = _judge(stem, segments, whole_videos)
        if video := without_stream(stem):
            whole = _judge(video, segments, whole_videos)
            if whole.rows:
                verdict = whole._replace(kind=whole.kind + _ONE_STREAM)
        if not verdict.rows:
            found.extras.append((path, verdict.reason))
        for row in verdict.rows:
            found.offer(row, path, verdict.kind)
    found.duplicates.sort()
    found.extras.sort()
    return found


def check_extracted(folder: Path | None) -> None:
    """Raises:
    UserError: a folder is not what `avprep extract` wrote.
    """
    if folder is not None and not (folder / "audio").is_dir():
        raise UserError(f"{folder}: no audio/ in it; give what `avprep extract` wrote.")


def extracted_audio(videos: Matches, ids: Sequence[str], extracted: Path | None) -> Matches:
    """The sound that `avprep extract` wrote for each row's video."""
    if extracted is None:
        return Matches.named([""] * len(ids))
    return Matches.named(
        [
            str(audio_path(extracted, name)) if video and is_extracted(extracted, name) else ""
            for video, name in zip(videos.paths, ids, strict=True)
        ]
    )


def _judge(stem: str, segments: Segments, whole_videos: bool) -> _Verdict:
    reason = "no row of the CSV has such an id"
    for reading in readings(stem):
        places = segments.places_of(reading.video_id)
        if not places:
            continue
        if reading.rivals and any(map(segments.places_of, reading.rivals)):
            reason = "the name contains two ids of the CSV"
        elif reading.is_unclear:
            reason = "its name may give times or a part in an unknown form; use ID_START_END"
        else:
            fitting = _fitting(reading, segments.rows, places)
            if len(fitting) == 1 or (whole_videos and not reading.start):
                kind = _BOTH_TIMES if reading.end else _START if reading.start else _ID_ALONE
                return _Verdict(tuple(fitting), kind)
            reason = _why_unclear(reading, [segments.rows[place] for place in places], fitting)
    return _Verdict(reason=reason)


def _fitting(reading: Reading, rows: list[Row], places: Iterable[int]) -> list[int]:
    """The rows that have a name's times; or else those that have them cut to whole seconds."""
    return [n for n in places if reading.exactly(rows[n].start, rows[n].end)] or [
        n for n in places if reading.roughly(rows[n].start, rows[n].end)
    ]


def _why_unclear(reading: Reading, rows: list[Row], fitting: list[int]) -> str:
    if not reading.start:
        return f"the CSV has {len(rows)} segments of this id, and the name does not say which"
    if fitting:
        return f"the name fits {len(fitting)} segments of {reading.video_id!r}"
    times = ", ".join(
        f"{row.start or 0:g}–{'end' if row.end is None else f'{row.end:g} s'}" for row in rows[:3]
    )
    return f"the CSV has {reading.video_id!r} at other times ({times})"


def _rank(kind: int, path: str) -> tuple[int, int, int, str]:
    """The smaller, the better: of two files for one row that one is taken.

    The name that says more goes first; then see `container_rank`; then the first in the alphabet.
    """
    return kind, *container_rank(path), path


def container_rank(path: str) -> tuple[int, int]:
    """The smaller, the better: the container that decodes fastest and surest, and few folders."""
    if storage.is_chained(path):
        path = path.partition("::")[0]
    suffix = os.path.splitext(path)[1].lower()
    place = _SUFFIX_ORDER.index(suffix) if suffix in _SUFFIX_ORDER else len(_SUFFIX_ORDER)
    return place, path.count(os.sep)
