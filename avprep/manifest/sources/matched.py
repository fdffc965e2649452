"""Rows matched with files: the manifest, and a report of what became of every row and file."""

from __future__ import annotations

import csv
import io
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal, NamedTuple

from avprep import storage
from avprep.clips import Clip, Scan, described_passed_over
from avprep.errors import UserError, WorkFailed
from avprep.labels import LabelSet, class_csv_of, known_labels, write_label_csv
from avprep.manifest.model import check_class_csv, write_labelled
from avprep.manifest.sources.match import UNNAMEABLE, Matches
from avprep.manifest.sources.rows import CsvNotes, Row, Segments
from avprep.options import ManifestOutput
from avprep.wording import counted

STATUSES = ("matched", "missing", "extra", "lost", "duplicate-file", "duplicate-row", "bad-row")


class Finding(NamedTuple):  # made for every row of millions, for which a dataclass is slow
    """One line of the report."""

    status: str  # one of STATUSES
    video_id: str = ""
    start: float | None = None
    end: float | None = None
    line: int | None = None  # of the CSV
    path: str = ""
    detail: str = ""


@dataclass(frozen=True)
class DataSet:
    """The rows of a CSV, or the videos of a folder.

    Attributes:
        segments: the rows.
        labels: the label set of their labels.
        notes: bad rows of the CSV, and what was corrected.
        split: the rows that are wanted; "" for all. Files of other splits are not `extra`.
        named_by: what clips are named by, see `clip_ids`; in lists and folders by their path.
    """

    segments: Segments
    labels: LabelSet
    notes: CsvNotes = field(default_factory=CsvNotes)
    split: str = ""
    named_by: Literal["id", "id and start", "path"] = "id"

    def only(self, split: str, where: object) -> DataSet:
        """The data set with one split selected, ignoring case; "" selects all.

        Raises:
            UserError: there is no such split; `where` names the CSV or folder.
        """
        there = {row.split.casefold(): row.split for row in self.segments.rows if row.split}
        if split and not there:
            raise UserError(
                f"{where}: has no splits, so there is no {split!r} to choose. Leave --split out, "
                "give a CSV that names the splits, or make them with `avprep manifest split`."
            )
        if split and split.casefold() not in there:
            listed = ", ".join(sorted(there.values()))
            raise UserError(f"{where}: has no split {split!r}; it has {listed}.")
        return replace(self, split=there.get(split.casefold(), ""))

    def wants(self, row: Row) -> bool:
        """Whether a row is of the split that is wanted."""
        return self.split in ("", row.split)


@dataclass(frozen=True)
class Matched:
    """Rows matched with files: the clips of a manifest, and what became of every row and file.

    Attributes:
        data_set: the rows.
        ids: the video_id of each row.
        videos, audio: the files of each row.
        extracted: what `avprep extract` wrote, with the frames that belong to `audio`.
        is_cut: whether a file whose name has no times is cut to the times of its row.
        scan: what was met on the way; see `avprep.clips.Scan`.
        looked_in, looked_for: folders, and possible names of the first row's file, for messages.
        remarks: what else a person should know.
    """

    data_set: DataSet
    ids: Sequence[str]
    videos: Matches
    audio: Matches
    extracted: Path | None
    is_cut: bool
    scan: Scan
    looked_in: str
    looked_for: str
    remarks: Sequence[str] = ()

    def clips(self) -> Iterator[Clip]:
        """The clips whose file was found, in the order of the rows."""
        frames = str(self.extracted / "frames") if self.extracted else ""
        for place, row in self._wanted():
            video, wav = self.videos.paths[place], self.audio.paths[place]
            if video or wav:
                has_times = self.is_cut and self.videos.names_id_alone(place)
                yield Clip(
                    # Extracted frames are named as their audio is.
                    video_id=Path(wav).stem if wav else self.ids[place],
                    labels=row.labels,
                    video=video,
                    start=row.start if has_times else None,
                    end=row.end if has_times else None,
                    wav=wav,
                    video_path=frames if wav else "",
                    split=row.split,
                )

    def report(self) -> Iterator[Finding]:
        """What became of every row and file."""
        rows, is_list = self.data_set.segments.rows, self.data_set.named_by == "path"
        yield from (Finding("bad-row", line=n, detail=why) for n, why in self.data_set.notes.bad)
        for place, row in self._wanted():
            path = self.audio.paths[place] or self.videos.paths[place]
            status = "matched" if path else "missing"
            path = path or (row.name if is_list else "")
            yield Finding(status, self.ids[place], row.start, row.end, row.line, path)
        for row, place in () if is_list else self.data_set.segments.repeated:
            detail = f"the same segment as line {rows[place].line}"
            if row.labels != rows[place].labels:
                labels = ",".join(row.labels)
                detail += f", with other labels ({labels}); the clip has those of both"
            yield Finding("duplicate-row", row.name, row.start, row.end, row.line, detail=detail)
        for matches in (self.videos, self.audio):
            for path, place in matches.duplicates:
                row, detail = rows[place], f"{matches.paths[place]} is taken"
                if self.data_set.wants(row):
                    times = (row.start, row.end, row.line)
                    yield Finding("duplicate-file", self.ids[place], *times, path, detail)
            for path, reason in matches.extras:
                yield Finding("extra", path=path, detail=reason)
        for path, reason in self.scan.lost:
            yield Finding("lost", path=path, detail=reason)

    def notes(self, source: object) -> list[str]:
        """Lines for a person; `source` names the CSV or folder."""
        unlabelled = sum(not row.labels for _, row in self._wanted())
        unnameable = sum(reason == UNNAMEABLE for _, reason in self._extras())
        remarks = [*self.remarks]
        if unlabelled and len(self.data_set.labels):
            remarks.append(f"{counted(unlabelled, 'clip')} without a label")
        if unnameable:
            remarks.append(f"{counted(unnameable, 'path')} not in UTF-8, left out")
        archives = [
            (path, why)
            for path, why in self.scan.lost
            if not storage.is_chained(path) and storage.is_archive(path)
        ]
        return [
            *self.data_set.notes.lines(source),
            *(f"{source}: {remark}" for remark in remarks),
            *(f"{path}: {reason}" for path, reason in archives),
            *described_passed_over(self.scan.passed_over),
        ]

    def why_nothing(self) -> str:
        """If no row has a file: what was looked for and what was found."""
        count, bad, extras = len(self.ids), len(self.data_set.notes.bad), self._extras()
        if not count:
            return f"none of its {bad or len(extras)} {'rows' if bad else 'paths'} can be used."
        there = (
            f"{counted(len(extras), 'other file')}, such as {extras[0][0]}"
            if extras
            else "no other file"
        )
        passed_over = "".join(f" {text}." for text in described_passed_over(self.scan.passed_over))
        lost = "".join(f" {path} {reason}." for path, reason in self.scan.lost[:3])
        return (
            f"none of its {count} clips has a file in {self.looked_in}. Looked for names such "
            f"as {self.looked_for}; found {there}.{lost}{passed_over}"
        )

    def _extras(self) -> list[tuple[str, str]]:
        return [*self.videos.extras, *self.audio.extras]

    def _wanted(self) -> Iterator[tuple[int, Row]]:
        rows = enumerate(self.data_set.segments.rows)
        return ((place, row) for place, row in rows if self.data_set.wants(row))


@dataclass(frozen=True)
class ManifestSummary:
    """What was written.

    Attributes:
        manifest, labels, report: the files: manifest, its class CSV, and report.
        clips: number of clips in the manifest.
        classes: number of classes in the label set.
        counts: number of lines of the report by status.
        notes: remarks for the user.
    """

    manifest: Path
    clips: int
    classes: int
    labels: Path
    report: Path
    counts: Counter[str]
    notes: list[str]


def write_matched(
    matched: Matched, source: object, output: ManifestOutput, label_csv: Path | None = None
) -> ManifestSummary:
    """Write report, manifest and class CSV.

    Args:
        matched: what the manifest holds.
        source: what it is made from, for messages.
        output: where it goes.
        label_csv: a second class CSV to write, unless it exists.

    Raises:
        UserError: no clip has a file, or the path of the class CSV is taken by other classes.
        WorkFailed: output.strict, and a clip is missing, a row is bad or a file is lost.
    """
    labels = matched.data_set.labels
    check_class_csv(output.out, labels)
    counts = write_report(output.report_path, matched.report())
    missing, bad, lost = counts["missing"], counts["bad-row"], counts["lost"]
    if not counts["matched"]:
        raise UserError(f"{source}: {matched.why_nothing()} Listed in {output.report_path}.")
    if output.strict and missing + bad + lost:
        unusable = f" and {counted(lost, 'file')} unusable" if lost else ""
        raise WorkFailed(
            f"{source}: {counted(missing, 'clip')} missing and {counted(bad, 'row')} bad, "
            f"of {counts['matched'] + missing + bad}{unusable}; no manifest is written. "
            f"{output.report_path} lists them."
        )
    clips = write_labelled(output.out, matched.clips(), labels)
    if label_csv is not None and not known_labels(label_csv):
        write_label_csv(label_csv, labels)
    return ManifestSummary(
        manifest=output.out,
        clips=clips,
        classes=len(labels),
        labels=class_csv_of(output.out),
        report=output.report_path,
        counts=counts,
        notes=matched.notes(source),
    )


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
