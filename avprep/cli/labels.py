"""`avprep labels`: make, check and download class CSVs."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import click

import avprep
from avprep.cli.common import Summary
from avprep.cli.flags import PATH, flags
from avprep.cli.lazy import LazyCommand, LazyGroup
from avprep.cli.progress import Bars, say
from avprep.option import Options, option
from avprep.options import FetchOptions
from avprep.wording import counted

_HERE = "avprep.cli.labels"
COMMANDS = {
    "folder": LazyCommand(f"{_HERE}:folder", "Class CSV from a folder's sub-folders."),
    "vggsound": LazyCommand(f"{_HERE}:vggsound", "VGGSound's 309 classes, as published."),
    "check": LazyCommand(f"{_HERE}:check", "Check a class CSV."),
    "fetch": LazyCommand(f"{_HERE}:fetch", "Download AudioSet's or VGGSound's official CSVs."),
}


@click.group(cls=LazyGroup, table=COMMANDS)
def labels() -> None:
    """Class CSVs: index,mid,display_name. The index of a class is its place in the file.

    \b
    Example:
      avprep labels fetch audioset --out metadata/
      avprep labels vggsound vggsound.csv --out labels.csv
    """


@dataclass(frozen=True)
class Target(Options):
    """The class CSV that a command writes."""

    out: Path = option(help="Class CSV to write.")


@dataclass(frozen=True)
class Folder(Options):
    """Where the files of a data set go."""

    out: Path = option(help="Folder for the files.")


@click.command()
@click.argument("root", metavar="DIR", type=PATH)
@flags(target=Target)
def folder(root: Path, target: Target) -> None:
    """Write a class CSV of the classes in DIR, sorted by name: see `avprep manifest folder`.

    \b
    Example:
      avprep labels folder videos/train --out labels.csv
    """
    with Bars("labels") as bars:
        label_set = avprep.write_folder_labels(root, target.out, bars)
    click.echo(f"{target.out}: {counted(len(label_set), 'class')}")


@click.command()
@click.argument("csv_file", metavar="[CSV]", type=PATH, required=False)
@flags(target=Target)
def vggsound(csv_file: Path | None, target: Target) -> None:
    """Write VGGSound's 309 classes in their published order, and check that CSV names no other.

    \b
    Example:
      avprep labels vggsound vggsound.csv --out labels.csv
    """
    label_set, notes = avprep.write_vggsound_labels(target.out, csv_file)
    click.echo(f"{target.out}: {counted(len(label_set), 'class')}")
    for note in notes:
        click.echo(note)


@click.command()
@click.argument("csv_file", metavar="CSV", type=PATH)
@flags(summary=Summary)
def check(csv_file: Path, summary: Summary) -> None:
    """Check the class CSV: header, numbering, and every mid once; errors name the line.

    Display names that two classes share are allowed, and listed: such a class can be named by its
    mid only.

    \b
    Example:
      avprep labels check class_labels_indices.csv
    """
    found = avprep.check_labels(csv_file)
    shared = [f"{count} classes are called {name!r}" for name, count in found.shared_names.items()]
    words = "\n".join([f"{csv_file}: {counted(found.classes, 'class')}", *shared])
    summary.show({"classes": found.classes, "shared_names": [*found.shared_names]}, words)


@click.command()
@click.argument("data_set", type=click.Choice(["audioset", "vggsound"]))
@flags(target=Folder, options=FetchOptions)
def fetch(
    data_set: Literal["audioset", "vggsound"],
    target: Folder,
    options: FetchOptions,
) -> None:
    """Download the CSVs of AudioSet or VGGSound into a folder, and print each file's sha256.

    A file gets its name when it is complete. An existing file is kept. The authors publish
    no digests; note the ones printed here, and give them with --sha256 on other machines.

    \b
    Example:
      avprep labels fetch audioset --out metadata/
      avprep labels fetch audioset --out metadata/ --file class_labels_indices.csv
    """
    with Bars("fetch") as bars:
        for fetched in avprep.fetch_labels(data_set, target.out, options, bars):
            state = "was there" if fetched.found else "fetched"
            say(
                f"{fetched.path}: {state}, {fetched.size} bytes, sha256 {fetched.sha256}",
                sys.stdout,
            )
