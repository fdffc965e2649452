"""`avprep manifest folder|audioset|vggsound|vggsounder`: manifests from what is on disk."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import click

import avprep
from avprep.cli.common import Summary
from avprep.cli.flags import flags
from avprep.cli.progress import Bars
from avprep.failures import printable
from avprep.options import (
    AudioSetOptions,
    FolderOptions,
    ManifestOutput,
    Sources,
    VGGSounderOptions,
    VGGSoundOptions,
)
from avprep.progress import OnProgress
from avprep.wording import counted

_LISTED = {
    "missing": "missing clip",
    "bad-row": "bad row",
    "duplicate-row": "repeated row",
    "duplicate-file": "duplicate file",
    "extra": "extra file",
    "lost": "unusable file",
}


@click.command()
@flags(options=AudioSetOptions, sources=Sources, output=ManifestOutput, summary=Summary)
def audioset(
    options: AudioSetOptions, sources: Sources, output: ManifestOutput, summary: Summary
) -> None:
    """List the clips of an AudioSet segments CSV whose videos exist.

    Videos may be named ID, YID, ID_30, ID_000030, ID_30.000, ID_30-40, ID_30000_40000,
    [ID]-[30-40], "Title [ID]" or Title-ID, and similarly, with any video suffix, in any sub-folder.
    A clip without a video is left out and listed in the report.
    The class CSV is copied beside M.json as M.classes.csv, where `avprep shard` looks for it.

    \b
    Example:
      avprep manifest audioset --segments balanced_train_segments.csv \\
          --labels class_labels_indices.csv --videos videos/ --out manifest.json
    """
    show(summary, lambda bars: avprep.make_audioset_manifest(options, sources, output, bars))


@click.command()
@flags(options=VGGSoundOptions, sources=Sources, output=ManifestOutput, summary=Summary)
def vggsound(
    options: VGGSoundOptions, sources: Sources, output: ManifestOutput, summary: Summary
) -> None:
    """List the clips of a VGGSound CSV whose videos exist.

    Both releases are read: YTID,start_seconds,label,split and YTID_000030.mp4,label. Videos may
    be named as for `avprep manifest audioset`. Classes have the numbers of the published
    classifiers, whichever rows the CSV has.

    \b
    Example:
      avprep manifest vggsound --csv vggsound.csv --split train --videos videos/ --out train.json
    """
    show(summary, lambda bars: avprep.make_vggsound_manifest(options, sources, output, bars))


@click.command()
@flags(options=VGGSounderOptions, sources=Sources, output=ManifestOutput, summary=Summary)
def vggsounder(
    options: VGGSounderOptions, sources: Sources, output: ManifestOutput, summary: Summary
) -> None:
    """List the clips of VGGSounder whose videos exist, each with all its labels.

    The CSV has the columns video_id,label,modality,background_music,static_image,voice_over and
    comes with the Python package vggsounder. Videos may be named as for `avprep manifest audioset`.
    `cavmae eval --vggsounder` reads the other columns of the same CSV.

    \b
    Example:
      avprep manifest vggsounder --csv vggsounder.csv --videos videos/ --out vggsounder.json
    """
    show(summary, lambda bars: avprep.make_vggsounder_manifest(options, sources, output, bars))


@click.command()
@click.argument("places", metavar="PLACE...", nargs=-1, required=True)
@flags(options=FolderOptions, output=ManifestOutput, summary=Summary)
def folder(
    places: tuple[str, ...], options: FolderOptions, output: ManifestOutput, summary: Summary
) -> None:
    """List the videos in a folder; each first-level sub-folder is a class.

    A PLACE is a folder, an archive (.tar, .tar.gz, .tar.bz2, .tar.xz, .zip), a prefix of an object
    store such as s3://bucket/videos, or a pattern of these in quotes. Several count as one folder.
    A table (CSV, JSON lines, Parquet) of paths or URLs may be given instead.

    Folders named train, test, val and so on are splits instead, and the folders in them classes,
    numbered over all splits, so that manifests made with --split agree. Videos in no class folder
    stay unlabelled, which is enough to pretrain on. With --csv, that file says which videos are
    taken and what their classes are. An existing class CSV keeps its numbering.

    \b
    Example:
      avprep manifest folder videos/ --out manifest.json
      avprep manifest folder videos/ --split train --out train.json
      avprep manifest folder videos/ --csv clips.csv --out manifest.json
      avprep manifest folder 'parts/*.tar.gz' --out manifest.json
    """
    show(summary, lambda bars: avprep.make_folder_manifest(places, output, options, bars))


def show(summary: Summary, make: Callable[[OnProgress], avprep.ManifestSummary]) -> None:
    """Make a manifest, and say what it holds."""
    with Bars("manifest") as bars:
        made = make(bars)
    summary.show(facts_of(made), "\n".join(described(made)))


def facts_of(made: avprep.ManifestSummary) -> dict[str, Any]:
    """The summary for a program."""
    from avprep.manifest.sources.matched import STATUSES

    return {
        "manifest": str(made.manifest),
        "clips": made.clips,
        "classes": made.classes,
        "labels": str(made.labels),
        "report": str(made.report),
        **{status.replace("-", "_"): made.counts[status] for status in STATUSES},
        "notes": made.notes,
    }


def described(made: avprep.ManifestSummary) -> Iterator[str]:
    """The summary for a person."""
    clips, classes = counted(made.clips, "clip"), counted(made.classes, "class")
    yield f"{made.manifest}: {clips}, {classes} in {made.labels}"
    counts = made.counts
    listed = [counted(counts[status], words) for status, words in _LISTED.items() if counts[status]]
    if listed:
        yield f"{', '.join(listed)}: listed in {made.report}"
    yield from map(printable, made.notes)
