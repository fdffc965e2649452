"""A manifest from a data set's CSV and the files that are there, and a report of what matched."""

from __future__ import annotations

import csv
import io
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple, Protocol

from avprep import storage
from avprep.clips import VIDEO_SUFFIXES, Clip, described_passed_over, scan_files
from avprep.manifest.match import Matches, match_files, no_files
from avprep.manifest.segments import Findings

if TYPE_CHECKING:
    import pandas as pd

AUDIO_SUFFIXES = frozenset((".wav", ".flac"))
_SEGMENT = ["video_id", "start", "end"]
STATUSES = ("matched", "missing", "extra", "duplicate-file", "duplicate-row", "bad-row")


@dataclass(frozen=True)
class Sources:
    """Where the clips' files are.

    Attributes:
        videos: folders of videos.
        extracted: what `avprep extract` wrote, `audio/` and `frames/`.
        trim: a file named by the id alone is the whole video: decode only the row's segment.
    """

    videos: tuple[Path, ...] = ()
    extracted: Path | None = None
    trim: bool = False


class Finding(NamedTuple):  # made for every row of millions, for which a dataclass is slow
    """One line of the report."""

    status: str  # one of STATUSES
    video_id: str = ""
    start: float | None = None
    end: float | None = None
    line: int | None = None  # of the CSV
    path: str = ""
    detail: str = ""


class Matched(Protocol):
    """A manifest to be, and what became of every row and file."""

    def clips(self) -> Iterator[Clip]:
        """The clips whose file is there."""

    def report(self) -> Iterator[Finding]:
        """What became of every row and file."""

    def notes(self, source: object) -> list[str]:
        """Lines for a person; `source` names the CSV or folder."""

    def why_nothing_matched(self) -> str:
        """Where not one clip has a file: what was looked for and what was there."""


@dataclass(frozen=True)
class MatchedSegments:
    """The rows of a CSV beside the files there are.

    Attributes:
        rows: the segments, each once; columns as `avprep.manifest.segments.read_table` gives them.
        repeated: rows that name a segment again.
        ids: the video_id of each row.
        videos, audio: the file of each row.
        findings: of reading the CSV.
        sources: where the files were looked for.
        split: the clips that are wanted; "" for all. Files of other splits are no extra ones.
        passed_over: see `avprep.clips.scan_files`.
    """

    rows: pd.DataFrame
    repeated: pd.DataFrame
    ids: list[str]
    videos: Matches
    audio: Matches
    findings: Findings
    sources: Sources
    split: str = ""
    passed_over: Sequence[str] = ()

    def clips(self) -> Iterator[Clip]:
        """The clips whose file is there, in the order of the CSV."""
        frames = str(self.sources.extracted / "frames") if self.sources.extracted else ""
        trim = self.sources.trim
        columns = (self.rows[name].tolist() for name in ("start", "end", "labels", "split"))
        for row, (start, end, labels, split) in enumerate(zip(*columns, strict=True)):
            video, wav = self.videos.paths[row], self.audio.paths[row]
            if not (video or wav) or self._is_of_other_split(split):
                continue
            cut = trim and self.videos.names_id_alone(row)
            yield Clip(
                # Extracted frames are named as their audio is.
                video_id=Path(wav).stem if wav else self.ids[row],
                labels=tuple(labels.split(",")),
                video=video,
                start=start if cut else None,
                end=end if cut else None,
                wav=wav,
                video_path=frames if wav else "",
                split=split,
            )

    def report(self) -> Iterator[Finding]:
        """What became of every row and file."""
        yield from (Finding("bad-row", line=n, detail=why) for n, why in self.findings.bad)
        starts, ends, lines = (self.rows[name].tolist() for name in ("start", "end", "line"))
        splits = self.rows["split"].tolist()
        files = zip(self.videos.paths, self.audio.paths, splits, strict=True)
        for row, (video, wav, split) in enumerate(files):
            if self._is_of_other_split(split):
                continue
            status = "matched" if wav or video else "missing"
            yield Finding(status, self.ids[row], starts[row], ends[row], lines[row], wav or video)
        yield from self._report_repeated()
        for matches in (self.videos, self.audio):
            for path, row in matches.duplicates:
                if self._is_of_other_split(splits[row]):
                    continue
                yield Finding(
                    "duplicate-file", self.ids[row], starts[row], ends[row], lines[row], path,
                    f"{matches.paths[row]} is taken",
                )  # fmt: skip
            for path, reason in matches.extras:
                yield Finding("extra", path=path, detail=reason)

    def notes(self, source: object) -> list[str]:
        """What was put right in the CSV, and passed over in the folders."""
        return self.findings.described_notes(source) + described_passed_over(self.passed_over)

    def why_nothing_matched(self) -> str:
        """What was looked for and what was there."""
        if not len(self.rows):
            return f"not one of its {len(self.findings.bad)} rows can be used."
        extras = [*self.videos.extras, *self.audio.extras]
        there = (
            f"the first of the {len(extras)} there is {extras[0][0]}" if extras else "none there"
        )
        folders = [*self.sources.videos]
        if self.sources.extracted is not None:
            folders.append(self.sources.extracted / "audio")
        passed_over = "".join(f" {text}." for text in described_passed_over(self.passed_over))
        (first, start), *_ = self.rows[["video_id", "start"]].head(1).to_numpy().tolist()
        name = f"{first}_{_seconds(start)}.mp4"
        return (
            f"not one of its {len(self.rows)} clips has a file in {', '.join(map(str, folders))}. "
            f"Looked for names such as {first}.mp4 and {name}; {there}.{passed_over}"
        )

    def _is_of_other_split(self, split: str) -> bool:
        return bool(self.split) and split != self.split

    def _report_repeated(self) -> Iterator[Finding]:
        pairs = self.repeated.merge(self.rows, on=_SEGMENT, suffixes=("", "_first"))
        wanted = [*_SEGMENT, "line", "labels", "line_first", "labels_first"]
        for video_id, start, end, line, labels, first, joined in pairs[wanted].to_numpy().tolist():
            detail = f"the same segment as line {first}"
            if labels != joined:
                detail += f", with other labels ({labels}); the clip has those of both"
            yield Finding("duplicate-row", video_id, start, end, line, detail=detail)


def match_segments(
    table: pd.DataFrame,
    findings: Findings,
    sources: Sources,
    named_by_start: bool,
    split: str = "",
    on_file: Callable[[], object] = lambda: None,
) -> MatchedSegments:
    """Find the files of a CSV's rows.

    Args:
        table: see `avprep.manifest.segments.read_table`.
        findings: of reading it.
        sources: where to look.
        named_by_start: see `clip_ids`.
        split: the clips that are wanted; "" for all.
        on_file: called after each file found.

    Raises:
        UserError: a folder is missing or cannot be listed.
    """
    again = table.duplicated(_SEGMENT)
    rows = _with_all_labels(table[~again].reset_index(drop=True), table[again])
    passed_over: list[str] = []
    videos = (
        file
        for folder in sources.videos
        for file in scan_files(folder, VIDEO_SUFFIXES, passed_over, on_file)
    )
    audio = no_files(rows)
    if sources.extracted is not None:
        files = scan_files(sources.extracted / "audio", AUDIO_SUFFIXES, passed_over, on_file)
        audio = match_files(rows, files)
    return MatchedSegments(
        rows,
        table[again],
        clip_ids(rows, named_by_start),
        match_files(rows, videos, sources.trim),
        audio,
        findings,
        sources,
        split,
        passed_over,
    )


def _with_all_labels(rows: pd.DataFrame, repeated: pd.DataFrame) -> pd.DataFrame:
    """Segments with the labels of the rows that name them again, too."""
    if not len(repeated):
        return rows
    more: dict[tuple[str, float, float], list[str]] = {}
    for *segment, labels in repeated[[*_SEGMENT, "labels"]].to_numpy().tolist():
        more.setdefault(tuple(segment), []).extend(labels.split(","))
    joined = [
        ",".join(dict.fromkeys([*labels.split(","), *more.get(tuple(segment), ())]))
        for *segment, labels in rows[[*_SEGMENT, "labels"]].to_numpy().tolist()
    ]
    return rows.assign(labels=joined)


def clip_ids(rows: pd.DataFrame, named_by_start: bool) -> list[str]:
    """A video_id for each segment, no two the same.

    Args:
        rows: columns `video_id`, `start`, `end`.
        named_by_start: `ID_000030` for all, as VGGSound's clips are called; otherwise `ID`, as
            AudioSet's, and `ID_000030` where an id has several segments.
    """
    ids, starts, ends = (rows[name].tolist() for name in ("video_id", "start", "end"))
    timed = rows["video_id"].duplicated(keep=False).to_numpy() | named_by_start
    ambiguous = rows.duplicated(["video_id", "start"], keep=False).to_numpy()
    for row in timed.nonzero()[0].tolist():
        ids[row] += f"_{_seconds(starts[row])}"
    for row in ambiguous.nonzero()[0].tolist():
        ids[row] += f"_{_seconds(ends[row])}"
    return ids


def _seconds(time: float) -> str:
    """`000030`, or `000030.500`; different for different times."""
    if time == int(time):
        return f"{time:06.0f}"
    return f"{time:010.3f}" if round(time, 3) == time else repr(time)


def write_report(path: Path, findings: Iterable[Finding]) -> Counter[str]:
    """Write a report as CSV, whole or not at all.

    Returns:
        how many findings there are of each status.
    """
    counts: Counter[str] = Counter()
    storage.make_folder(path.parent)
    with storage.replacing(path) as file:
        text = io.TextIOWrapper(file, "utf-8", "backslashreplace", newline="")
        writer = csv.writer(text, lineterminator="\n")
        writer.writerow(Finding._fields)
        for found in findings:
            counts[found.status] += 1
            writer.writerow(found)
        text.flush()
        text.detach()
    return counts
