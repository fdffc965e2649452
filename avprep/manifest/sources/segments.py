"""The files of a data set's segments, and the clips that they become."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator
from pathlib import Path

from avprep.clips import VIDEO_SUFFIXES, described_passed_over, scan_files
from avprep.errors import UserError
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
    data_set: DataSet, sources: Sources, on_file: Callable[[], object] = lambda: None
) -> Matched:
    """Find the files of a data set's rows.

    Args:
        data_set: the rows.
        sources: where to look.
        on_file: called after each file found.

    Raises:
        UserError: a folder is missing or cannot be listed.
    """
    segments, passed_over = data_set.segments, list[str]()

    def files(folders: Iterable[Path], suffixes: Collection[str]) -> Iterator[tuple[str, str]]:
        return (
            file
            for folder in folders
            for file in scan_files(folder, suffixes, passed_over, on_file)
        )

    videos = match_files(segments, files(sources.videos, VIDEO_SUFFIXES), sources.trim)
    audio = match_files(segments, files(sources.audio, AUDIO_SUFFIXES))
    return Matched(
        data_set,
        clip_ids(segments, data_set.named_by == "id and start"),
        videos,
        audio,
        sources.extracted,
        sources.trim,
        passed_over,
        _why_nothing(data_set, sources, [*videos.extras, *audio.extras], passed_over),
    )


def _why_nothing(
    data_set: DataSet, sources: Sources, extras: list[tuple[str, str]], passed_over: list[str]
) -> str:
    rows = data_set.segments.rows
    if not rows:
        return f"not one of its {len(data_set.notes.bad)} rows can be used."
    there = f"the first of the {len(extras)} there is {extras[0][0]}" if extras else "none there"
    folders = ", ".join(map(str, (*sources.videos, *sources.audio)))
    name = rows[0].name
    return (
        f"not one of its {len(rows)} clips has a file in {folders}. Looked for names such as "
        f"{name}.mp4 and {name}_{_seconds(rows[0].start)}.mp4; {there}."
        + "".join(f" {text}." for text in described_passed_over(passed_over))
    )


def clip_ids(segments: Segments, named_by_start: bool) -> list[str]:
    """A video_id for each segment, no two the same.

    Args:
        segments: the rows.
        named_by_start: `ID_000030` for all, as VGGSound's clips are called; otherwise `ID`, as
            AudioSet's, and `ID_000030` where an id has several segments.
    """
    starts = Counter(row[1:3] for row in segments.rows if len(segments.places_of(row.name)) > 1)
    ids = []
    for row in segments.rows:
        sharing = starts.get(row[1:3], 0)  # segments of this id that start together
        start = f"_{_seconds(row.start)}" if named_by_start or sharing else ""
        end = f"_{_seconds(row.end)}" if sharing > 1 else ""
        ids.append(f"{row.name}{start}{end}" if start else row.name)
    return ids


def _seconds(time: float | None) -> str:
    """`000030`, or `000030.500`; different for different times."""
    if time is None:
        return ""
    if time == int(time):
        return f"{time:06.0f}"
    return f"{time:010.3f}" if round(time, 3) == time else repr(time)
