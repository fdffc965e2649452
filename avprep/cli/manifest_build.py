"""`avprep manifest folder|audioset|vggsound`: manifests from what people have on disk."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from avprep.failures import printable
from avprep.wording import counted

if TYPE_CHECKING:  # imported for real inside the commands, to keep --help quick
    from avprep.manifest.make import ManifestSummary

Command = TypeVar("Command", bound=Callable[..., Any])
_PATH = click.Path(path_type=Path)
_LISTED = {
    "missing": "missing clip",
    "bad-row": "bad row",
    "duplicate-row": "repeated row",
    "duplicate-file": "duplicate file",
    "extra": "extra file",
}


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
    as_json: bool,
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
    from avprep.manifest.make import Output, Sources, from_audioset
    from avprep.progress import ProgressBar

    sources = Sources(videos, extracted, trim)
    with ProgressBar("manifest", "file") as bar:
        summary = from_audioset(segments, labels, sources, Output(**options), bar.update)
    show(summary, as_json)


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
    as_json: bool,
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
    from avprep.manifest.make import Output, Sources, from_vggsound
    from avprep.progress import ProgressBar

    output, sources = Output(**options), Sources(videos, extracted, trim)
    with ProgressBar("manifest", "file") as bar:
        summary = from_vggsound(csv_file, labels, split or "", sources, output, bar.update)
    show(summary, as_json)


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
    as_json: bool,
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
    from avprep.manifest.make import Output, from_folder
    from avprep.progress import ProgressBar

    output = Output(**options)
    with ProgressBar("manifest", "file") as bar:
        summary = from_folder(root, csv_file, labels, split, extracted, output, bar.update)
    show(summary, as_json)


def show(summary: ManifestSummary, as_json: bool) -> None:
    """Print what was written, for a program or a person."""
    from avprep.manifest.sources.matched import STATUSES

    counts = summary.counts
    if as_json:
        values = {
            "manifest": str(summary.manifest),
            "clips": summary.clips,
            "classes": summary.classes,
            "labels": str(summary.labels),
            "report": str(summary.report),
            **{status.replace("-", "_"): counts[status] for status in STATUSES},
            "notes": summary.notes,
        }
        click.echo(json.dumps(values))
        return
    click.echo(
        f"{summary.manifest}: {counted(summary.clips, 'clip')}, "
        f"{counted(summary.classes, 'class')} in {summary.labels}"
    )
    listed = [counted(counts[status], words) for status, words in _LISTED.items() if counts[status]]
    if listed:
        click.echo(f"{', '.join(listed)}: listed in {summary.report}")
    for note in summary.notes:
        click.echo(printable(note))
