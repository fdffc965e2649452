"""The files of a data set's segments, and the ids of its clips."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator
from pathlib import Path

from avprep.clips import Scan, expanded, scan_files
from avprep.errors import UserError
from avprep.kinds import VIDEO_SUFFIXES
from avprep.manifest.sources.match import check_extracted, match_files
from avprep.manifest.sources.matched import DataSet, Matched
from avprep.manifest.sources.rows import Segments
from avprep.options import Sources

AUDIO_SUFFIXES = frozenset((".wav", ".flac"))


def check_sources(sources: Sources) -> None:
    """Raises:
    UserError: no folder is given, or the extracted one is not what `avprep extract` wrote.
    """
    if not sources.videos and sources.extracted is None:
        raise UserError("give the folder of the videos with --videos, or --extracted, or both.")
    check_extracted(sources.extracted)


def match_segments(
    data_set: DataSet, sources: Sources, on_files: Callable[[int], object] = lambda count: None
) -> Matched:
    """Find the files of a data set's rows.

    Args:
        data_set: the rows.
        sources: where to look.
        on_files: called with the number of files found in each folder.

    Raises:
        UserError: a place is missing or cannot be listed.
    """
    segments, scan = data_set.segments, Scan()
    videos = expanded(sources.videos)

    def files(places: Iterable[str | Path], suffixes: Collection[str]) -> Iterator[tuple[str, str]]:
        return (file for place in places for file in scan_files(place, suffixes, scan, on_files))

    row = next(iter(segments.rows), None)
    return Matched(
        data_set,
        clip_ids(segments, data_set.named_by == "id and start"),
        match_files(segments, files(videos, VIDEO_SUFFIXES), sources.trim),
        match_files(segments, files(sources.audio, AUDIO_SUFFIXES)),
        sources.extracted,
        sources.trim,
        scan,
        looked_in=", ".join(map(str, (*videos, *sources.audio))),
        looked_for=f"{row.name}.mp4 and {row.name}_{_seconds(row.start)}.mp4" if row else "",
    )


def clip_ids(segments: Segments, named_by_start: bool) -> list[str]:
    """A video_id for each segment, no two the same.

    Args:
        segments: the rows.
        named_by_start: `ID_000030` for all, as VGGSound's clips are called; otherwise `ID`, as
            AudioSet's, and `ID_000030` where an id has several segments.
    """
    starts = Counter((row.name, row.start) for row in segments.rows if segments.shares_id(row))
    ids = []
    for row in segments.rows:
        video_id = row.name
        if named_by_start or segments.shares_id(row):
            video_id += f"_{_seconds(row.start)}"
        if starts and starts[row.name, row.start] > 1:
            video_id += f"_{_seconds(row.end)}"
        ids.append(video_id)
    return ids


def _seconds(time: float | None) -> str:
    """`000030`, or `000030.500`; different for different times."""
    if time is None:
        return ""
    if time == int(time):
        return f"{time:06.0f}"
    return f"{time:010.3f}" if round(time, 3) == time else repr(time)
