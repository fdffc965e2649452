"""`avprep manifest folder|audioset|vggsound`: manifests from what people have on disk."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from avprep.errors import UserError, WorkFailed
from avprep.failures import printable
from avprep.wording import counted

if TYPE_CHECKING:  # imported for real inside the commands, to keep --help quick
    from avprep.labels import LabelSet
    from avprep.manifest.build import Matched, Sources
    from avprep.manifest.segments import Findings

Command = TypeVar("Command", bound=Callable[..., Any])
_PATH = click.Path(path_type=Path)


@dataclass(frozen=True)
class Output:
    """What a builder writes, and how strict it is."""

    out: Path
    report: Path | None
    bad_rows: str
    strict: bool
    as_json: bool

    @property
    def report_path(self) -> Path:
        """The report's file."""
        return self.report or self.out.with_suffix(".report.csv")


def output_options(command: Command) -> Command:
    """Options that all builders share."""
    for option in (
        click.option("--json", "as_json", is_flag=True, help="Print the summary as JSON."),
        click.option(
            "--strict",
            is_flag=True,
            help="Write no manifest and end with exit code 1 if a clip is missing or a row is bad.",
        ),
        click.option(
            "--bad-rows",
            type=click.Choice(["refuse", "skip"]),
            default="refuse",
            show_default=True,
            help="Rows of the CSV that cannot be used: an error, or left out and reported.",
        ),
        click.option(
            "--report",
            type=_PATH,
            help="CSV of what matched and what did not. [default: M.report.csv beside M.json]",
        ),
        click.option(
            "--out",
            type=_PATH,
            required=True,
            help="Manifest to write: .json, .jsonl, .csv or .parquet.",
        ),
    ):
        command = option(command)
    return command


def source_options(command: Command) -> Command:
    """Options that say where the clips' files are."""
    for option in (
        click.option(
            "--trim",
            is_flag=True,
            help="Files named by the id alone are whole videos: take the CSV's start and end.",
        ),
        click.option(
            "--extracted",
            type=_PATH,
            help="Output of `avprep extract`: shards are packed from its audio/ and frames/.",
        ),
        click.option(
            "--videos",
            type=_PATH,
            multiple=True,
            help="Folder of the videos, with sub-folders. May be given several times.",
        ),
    ):
        command = option(command)
    return command


@click.command()
@click.option("--segments", type=_PATH, required=True, help="Segments CSV, gzipped or not.")
@click.option("--labels", type=_PATH, required=True, help="Class CSV: class_labels_indices.csv.")
@source_options
@output_options
def audioset(
    segments: Path,
    labels: Path,
    videos: tuple[Path, ...],
    extracted: Path | None,
    trim: bool,
    **options: Any,
) -> None:
    """List the clips of an AudioSet segments CSV whose videos are there.

    Videos may be named ID, YID, ID_30, ID_000030, ID_30.000, ID_30-40, ID_30000_40000,
    [ID]-[30-40], "Title [ID]" or Title-ID, and similarly, with any video suffix, in any sub-folder.
    A clip without a video is left out and listed in the report.
    The class CSV is copied beside M.json as M.classes.csv, where `avprep shard` looks for it.

    \b
    Example:
      avprep manifest audioset --segments balanced_train_segments.csv \\
          --labels class_labels_indices.csv --videos videos/ --out manifest.json
    """
    from avprep.cli.progress import ProgressBar
    from avprep.labels import read_label_csv
    from avprep.manifest.audioset import read_audioset
    from avprep.manifest.build import Sources, match_segments
    from avprep.manifest.segments import Findings

    output = Output(**options)
    sources = Sources(videos, extracted, trim)
    check_sources(sources)
    label_set = read_label_csv(labels)
    findings = Findings()
    table = read_audioset(segments, label_set, findings)
    refuse_bad_rows(segments, findings, output)
    with ProgressBar("manifest", "file") as bar:
        matched = match_segments(table, findings, sources, named_by_start=False, on_file=bar.update)
    publish(matched, label_set, segments, output)


@click.command()
@click.option("--csv", "csv_file", type=_PATH, required=True, help="VGGSound's CSV, any release.")
@click.option("--split", help="Only the rows of this split: train or test. [default: all]")
@click.option(
    "--labels",
    type=_PATH,
    help="Class CSV: read if it is there, else written from the CSV's sorted names. "
    "[default: VGGSound's 309 classes in their published order]",
)
@source_options
@output_options
def vggsound(
    csv_file: Path,
    split: str | None,
    labels: Path | None,
    videos: tuple[Path, ...],
    extracted: Path | None,
    trim: bool,
    **options: Any,
) -> None:
    """List the clips of a VGGSound CSV whose videos are there.

    Both releases are read: YTID,start_seconds,label,split and YTID_000030.mp4,label. Videos may
    be named as for `avprep manifest audioset`. Classes have the numbers of the published
    classifiers, whichever rows the CSV has.

    \b
    Example:
      avprep manifest vggsound --csv vggsound.csv --split train --videos videos/ --out train.json
    """
    from avprep.cli.progress import ProgressBar
    from avprep.labels import vggsound_labels
    from avprep.manifest.build import Sources, match_segments
    from avprep.manifest.segments import Findings
    from avprep.manifest.vggsound import check_split, read_vggsound

    output = Output(**options)
    sources = Sources(videos, extracted, trim)
    check_sources(sources)
    findings = Findings()
    known = known_labels(labels) if labels is not None else vggsound_labels()
    table, label_set = read_vggsound(csv_file, known, findings)
    refuse_bad_rows(csv_file, findings, output)
    if split is not None:
        check_split(table, split, csv_file)
    with ProgressBar("manifest", "file") as bar:
        matched = match_segments(table, findings, sources, True, split or "", bar.update)
    publish(matched, label_set, csv_file, output, labels)


@click.command()
@click.argument("root", metavar="DIR", type=_PATH)
@click.option(
    "--csv",
    "csv_file",
    type=_PATH,
    help="Take the classes not from the sub-folders but from this CSV with the columns path and "
    "label (or labels), and optionally split, start, and end or duration.",
)
@click.option(
    "--labels",
    type=_PATH,
    help="Class CSV: read if it is there, else written from the sorted names. "
    "[default: M.classes.csv beside M.json]",
)
@click.option(
    "--split",
    default="",
    help="Only this split: one of the folders train/, test/ … in DIR, or of the CSV's column. "
    "[default: all]",
)
@click.option(
    "--extracted",
    type=_PATH,
    help="Output of `avprep extract` for the same folder; shards are packed from its files.",
)
@output_options
def folder(
    root: Path,
    csv_file: Path | None,
    split: str,
    labels: Path | None,
    extracted: Path | None,
    **options: Any,
) -> None:
    """List the videos under DIR; each first-level sub-folder is a class.

    Folders named train, test, val and so on are splits instead, and the folders in them classes,
    numbered over all splits, so that manifests made with --split agree. Videos in no class folder
    stay unlabelled, which is enough to pretrain on. With --csv, that file says which videos are
    taken and what their classes are. A class CSV that is there keeps its numbering.

    \b
    Example:
      avprep manifest folder videos/ --out manifest.json
      avprep manifest folder videos/ --split train --out train.json
      avprep manifest folder videos/ --csv clips.csv --out manifest.json
    """
    from avprep.cli.progress import ProgressBar
    from avprep.labels import class_csv_of, labels_of
    from avprep.manifest.folder import chosen_split, match_folder
    from avprep.manifest.listing import match_listing, read_listing
    from avprep.manifest.segments import Findings

    output = Output(**options)
    check_extracted(extracted)
    label_csv = labels or class_csv_of(output.out)
    known = known_labels(labels) if labels is not None else labels_of(output.out) or None
    if csv_file is None:
        with ProgressBar("manifest", "file") as bar:
            found = match_folder(root, extracted, known, label_csv, split, bar.update)
        publish(found, found.labels, root, output, labels)
        return
    findings = Findings()
    rows = read_listing(csv_file, known, findings)
    refuse_bad_rows(csv_file, findings, output)
    if split:
        split = chosen_split(split, {row.split for row in rows}, csv_file)
    with ProgressBar("manifest", "file") as bar:
        listed = match_listing(rows, root, extracted, known, findings, split, bar.update)
    publish(listed, listed.labels, csv_file, output, labels)


def known_labels(label_csv: Path) -> LabelSet | None:
    """The label set of a class CSV that is there and has a class."""
    from avprep.labels import read_label_csv

    return (read_label_csv(label_csv) or None) if label_csv.exists() else None


def check_sources(sources: Sources) -> None:
    """Raises:
    UserError: no folder is given, or the extracted one is not what `avprep extract` wrote.
    """
    if not sources.videos and sources.extracted is None:
        raise UserError("give the folder of the videos with --videos, or --extracted, or both.")
    check_extracted(sources.extracted)


def check_extracted(folder: Path | None) -> None:
    """Raises UserError where a folder is not what `avprep extract` wrote."""
    if folder is not None and not (folder / "audio").is_dir():
        raise UserError(f"{folder}: no audio/ in it; give what `avprep extract` wrote.")


def refuse_bad_rows(path: Path, findings: Findings, output: Output) -> None:
    """Raises:
    UserError: there are bad rows, and they are not to be skipped.
    """
    if output.bad_rows == "refuse":
        findings.refuse_bad_rows(path)


def publish(
    matched: Matched,
    labels: LabelSet,
    source: Path,
    output: Output,
    label_csv: Path | None = None,
) -> None:
    """Write report, manifest and class CSV, and say what is in them.

    Args:
        matched: what the manifest holds.
        labels: its label set.
        source: the CSV or folder it is made from.
        output: where it goes.
        label_csv: a class CSV to write besides, if it is not there.

    Raises:
        UserError: not one clip has a file, or another class CSV lies where this one goes.
        WorkFailed: --strict, and a clip is missing or a row is bad.
    """
    from avprep.labels import class_csv_of, write_label_csv
    from avprep.manifest.build import STATUSES, write_report
    from avprep.manifest.model import check_class_csv, write_labelled

    check_class_csv(output.out, labels)
    counts = write_report(output.report_path, matched.report())
    rows = counts["matched"] + counts["missing"]
    if not counts["matched"]:
        raise UserError(
            f"{source}: {matched.why_nothing_matched()} Listed in {output.report_path}."
        )
    lost = counts["missing"] + counts["bad-row"]
    if output.strict and lost:
        raise WorkFailed(
            f"{source}: {counted(counts['missing'], 'clip')} missing and "
            f"{counted(counts['bad-row'], 'row')} bad, of {rows + counts['bad-row']}; "
            f"no manifest is written. {output.report_path} lists them."
        )
    write_labelled(output.out, matched.clips(), labels)
    if label_csv is not None and not known_labels(label_csv):
        write_label_csv(label_csv, labels)
    notes = matched.notes(source)
    summary = {
        "manifest": str(output.out),
        "clips": counts["matched"],
        "classes": len(labels),
        "labels": str(class_csv_of(output.out)),
        "report": str(output.report_path),
        **{status.replace("-", "_"): counts[status] for status in STATUSES},
        "notes": notes,
    }
    click.echo(json.dumps(summary) if output.as_json else describe(summary))


def describe(summary: dict[str, Any]) -> str:
    """The summary for a person."""
    rest = {
        "missing": "missing clip",
        "bad_row": "bad row",
        "duplicate_row": "repeated row",
        "duplicate_file": "duplicate file",
        "extra": "extra file",
    }
    lines = [
        f"{summary['manifest']}: {counted(summary['clips'], 'clip')}, "
        f"{counted(summary['classes'], 'class')} in {summary['labels']}"
    ]
    listed = [counted(summary[key], words) for key, words in rest.items() if summary[key]]
    if listed:
        lines.append(f"{', '.join(listed)}: listed in {summary['report']}")
    return "\n".join([*lines, *map(printable, summary["notes"])])
