"""`avprep manifest convert|merge|split|select|sample`: manifests from manifests."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import click

import avprep
from avprep.cli.flags import PATH, flags
from avprep.failures import printable
from avprep.manifest.paths import NewRoot
from avprep.option import Options, option
from avprep.options import ManifestFile, MergeOptions, PerClassOptions, SplitOptions
from avprep.wording import counted, first_of


@dataclass(frozen=True)
class Roots(Options):
    """Where the clips' files are now."""

    roots: tuple[NewRoot, ...] = option(
        (),
        "Paths below OLD go below NEW. An empty OLD stands for relative paths, an empty NEW makes "
        "paths relative. May be given several times; the first that fits a path is taken.",
        flag="--root",
        metavar="OLD=NEW",
    )


@dataclass(frozen=True)
class Folder(Options):
    """Where the parts of a manifest go."""

    out: Path = option(help="Folder: NAME.json for every part.")


@click.command()
@click.argument("source", type=PATH)
@click.argument("target", type=PATH)
@flags(roots=Roots)
def convert(source: Path, target: Path, roots: Roots) -> None:
    """Write the manifest SOURCE as TARGET; the suffixes determine the formats.

    .json is the published format, .jsonl has one entry per line, .csv and .parquet one row per
    entry. The class CSV of SOURCE is copied for TARGET.

    \b
    Example:
      avprep manifest convert manifest.json manifest.parquet
      avprep manifest convert manifest.json moved.json --root videos=/data/videos
    """
    count = avprep.convert_manifest(source, target, roots.roots)
    click.echo(f"{target}: {counted(count, 'clip')}")


@click.command()
@click.argument("sources", metavar="MANIFEST…", type=PATH, nargs=-1, required=True)
@flags(target=ManifestFile, options=MergeOptions)
def merge(sources: tuple[Path, ...], target: ManifestFile, options: MergeOptions) -> None:
    """Join several manifests, each clip once, in the order given.

    Those that have classes must have the same, in the same order: their class CSVs are compared.
    Manifests without classes may be among them.

    \b
    Example:
      avprep manifest merge balanced.json unbalanced.jsonl --out all.jsonl
    """
    merged = avprep.merge_manifests(sources, target.out, options)
    repeated = f", {merged.repeated} repeated" if merged.repeated else ""
    left_out = (
        f", {merged.conflicts} others of the same video_id left out" if merged.conflicts else ""
    )
    click.echo(
        f"{target.out}: {counted(merged.clips, 'clip')} from "
        f"{counted(len(sources), 'manifest')}{repeated}{left_out}"
    )


@click.command()
@click.argument("source", metavar="MANIFEST", type=PATH)
@flags(target=Folder, options=SplitOptions)
def split(source: Path, target: Folder, options: SplitOptions) -> None:
    """Divide MANIFEST into parts in which every class has its share.

    Clips with several labels are dealt out by iterative stratification. Clips of one video stay
    together, and so do groups of duplicates (--groups). The same seed gives the same parts. Each
    clip gets its part's name as `split`.

    \b
    Example:
      avprep manifest split manifest.json --parts train=0.9,test=0.1 --out splits/
    """
    parts = avprep.split_manifest(source, target.out, options)
    for part in parts:
        click.echo(f"{part.path}: {counted(part.clips, 'clip')}, {counted(part.classes, 'class')}")
    for part in parts:
        if part.lacking:
            lacking = f"{counted(len(part.lacking), 'class')}: {first_of(part.lacking)}"
            click.echo(f"{part.name} has no clip of {lacking}")


@click.command()
@click.argument("source", metavar="MANIFEST", type=PATH)
@click.argument("selection", type=PATH)
@flags(target=ManifestFile)
def select(source: Path, selection: Path, target: ManifestFile) -> None:
    """Keep the clips of MANIFEST that the CSV SELECTION names in its column video_id.

    `avprep filter` and `avprep duplicates` write such files.

    \b
    Example:
      avprep manifest select manifest.json good.csv --out good.json
    """
    kept = avprep.select_manifest(source, selection, target.out)
    click.echo(f"{target.out}: {kept.clips} of {counted(kept.of, 'clip')}")
    if kept.strangers:
        strangers = counted(len(kept.strangers), "id")
        click.echo(
            printable(f"{selection}: {strangers} not in the manifest: {first_of(kept.strangers)}")
        )


@click.command()
@click.argument("source", metavar="MANIFEST", type=PATH)
@flags(target=ManifestFile, options=PerClassOptions)
def sample(source: Path, target: ManifestFile, options: PerClassOptions) -> None:
    """Choose N clips of every class, such as the 5 per class used for retrieval.

    Clips with several labels count for each of them, so frequent classes may get more. A class
    with fewer clips gives all it has. The same seed gives the same clips.

    \b
    Example:
      avprep manifest sample test.json --per-class 5 --out retrieval.json
    """
    chosen = avprep.sample_manifest(source, target.out, options)
    click.echo(f"{target.out}: {counted(chosen.clips, 'clip')}, {counted(chosen.classes, 'class')}")
    if chosen.short:
        has = f"{counted(len(chosen.short), 'class')} {'has' if len(chosen.short) == 1 else 'have'}"
        fewer = f"fewer than {counted(options.per_class, 'clip')}"
        click.echo(f"{has} {fewer}: {first_of(chosen.short)}")
    if chosen.unlabelled:
        click.echo(f"{counted(chosen.unlabelled, 'clip')} without a label not considered")
