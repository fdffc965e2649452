"""Which clips of a manifest belong together, so that a split must not part them."""

from __future__ import annotations

import re
from collections.abc import Hashable, Iterator, Mapping, Sequence
from pathlib import Path, PurePosixPath

from avprep.clips import Clip
from avprep.columns import folded
from avprep.csvfile import csv_records, shown
from avprep.errors import UserError
from avprep.manifest.sources.naming import readings

_COLUMNS = ("group", "video_id")
_YOUTUBE_ID = re.compile(r"[A-Za-z0-9_-]{11}")
_MAY_BE_A_SEGMENT = re.compile(r"[A-Za-z0-9_-]{11}[^A-Za-z0-9].*\d")  # quick to tell
_KINDS = tuple(re.compile(kind) for kind in ("[a-z]", "[A-Z]", "[0-9]"))
_TIME_OF_A_SEGMENT = re.compile(r"\d+\.\d+|\d{6}")  # a shorter number may just count files


def read_groups(path: Path) -> dict[str, list[str]]:
    """The groups of each clip in a CSV with the columns `group` and `video_id`.

    `avprep duplicates` writes such a table.

    Raises:
        UserError: the file cannot be read, or lacks one of the columns.
    """
    records = csv_records(path)
    _, header = next(records, (1, []))
    names = [folded(name) for name in header]
    if any(names.count(folded(column)) != 1 for column in _COLUMNS):
        raise UserError(
            f"{path}: line 1 must name the columns group and video_id, found "
            f"{shown(','.join(header))}. Give the duplicates.csv of `avprep duplicates`, or a "
            "table like it."
        )
    group, video_id = (names.index(folded(column)) for column in _COLUMNS)
    groups: dict[str, list[str]] = {}
    for line, row in records:
        if len(row) != len(header) or not row[group] or not row[video_id]:
            raise UserError(f"{path}: line {line}: needs a group and a video_id.")
        groups.setdefault(row[video_id], []).append(row[group])
    return groups


def held_together(
    clips: Sequence[Clip], groups: Mapping[str, Sequence[str]] | None = None
) -> list[list[int]]:
    """The positions of clips that belong together, in the order of their first ones.

    Clips of one video file do, clips whose names begin with one YouTube id and tell their times,
    and clips of one of the groups; and what belongs to the same clip belongs together.

    Args:
        clips: of a manifest.
        groups: of duplicates, by `video_id`.
    """
    leader = list(range(len(clips)))

    def leader_of(position: int) -> int:
        while leader[position] != position:
            leader[position] = leader[leader[position]]
            position = leader[position]
        return position

    first: dict[Hashable, int] = {}
    for position, clip in enumerate(clips):
        for key in _keys(clip, groups or {}):
            one, other = leader_of(first.setdefault(key, position)), leader_of(position)
            leader[max(one, other)] = min(one, other)
    together: dict[int, list[int]] = {}
    for position in range(len(clips)):
        together.setdefault(leader_of(position), []).append(position)
    return list(together.values())


def _keys(clip: Clip, groups: Mapping[str, Sequence[str]]) -> Iterator[Hashable]:
    """What a clip shares with those that it belongs to."""
    if clip.video:
        yield "file", clip.video
    for name in {clip.video_id, PurePosixPath(clip.video.partition("::")[0]).stem}:
        if source := _youtube_id(name):
            yield "YouTube", source
    for group in groups.get(clip.video_id.encode("utf-8", "backslashreplace").decode(), ()):
        yield "group", group


def _youtube_id(name: str) -> str:
    """The YouTube id that a segment's name begins with; empty where the name is another one.

    Words such as `playingdrum_7` look much the same, so the id must be as mixed as nearly all ids
    are, and the times must be those of a segment.
    """
    for reading in readings(name) if _MAY_BE_A_SEGMENT.search(name) else ():
        video_id, start, end = reading.video_id, reading.start, reading.end
        if (
            start
            and _YOUTUBE_ID.fullmatch(video_id)
            and sum(kind.search(video_id) is not None for kind in _KINDS) > 1
            and (float(end) > float(start) if end else _TIME_OF_A_SEGMENT.fullmatch(start))
        ):
            return video_id
    return ""
