"""`avprep manifest convert|merge|split|sample`: manifests from manifests."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from avprep.errors import UserError

if TYPE_CHECKING:
    from avprep.clips import Clip

_PATH = click.Path(path_type=Path)
_OUT_HELP = "Manifest to write: .json, .jsonl, .csv or .parquet."
_SHOWN = 5  # examples in a message


@click.command()
@click.argument("source", type=_PATH)
@click.argument("target", type=_PATH)
@click.option(
    "--root",
    "roots",
    multiple=True,
    metavar="OLD=NEW",
    help="Paths below OLD go below NEW. An empty OLD stands for relative paths, an empty NEW makes "
    "paths relative. May be given several times; the first that fits a path is taken.",
)
def convert(source: Path, target: Path, roots: tuple[str, ...]) -> None:
    """Write the manifest SOURCE as TARGET; their suffixes tell the formats.

    .json is the published format, .jsonl has one entry a line, .csv and .parquet one row an entry.
    The class CSV beside SOURCE is copied beside TARGET.

    \b
    Example:
      avprep manifest convert manifest.json manifest.parquet
      avprep manifest convert manifest.json moved.json --root videos=/data/videos
    """
    from avprep.manifest.model import iter_manifest, write_manifest
    from avprep.manifest.paths import NewRoot, rerooted

    count = write_manifest(target, rerooted(iter_manifest(source), [*map(NewRoot.parse, roots)]))
    keep_labels(source, target.parent)
    click.echo(f"{target}: {count} clips")


@click.command()
@click.argument("sources", metavar="MANIFEST…", type=_PATH, nargs=-1, required=True)
@click.option("--out", type=_PATH, required=True, help=_OUT_HELP)
@click.option(
    "--on-conflict",
    type=click.Choice(["refuse", "first"]),
    default="refuse",
    show_default=True,
    help="One video_id with two contents: an error, or the first is taken.",
)
def merge(sources: tuple[Path, ...], out: Path, on_conflict: str) -> None:
    """Put several manifests together, each clip once, in the order given.

    They must have the same classes: the class CSVs beside them are compared.

    \b
    Example:
      avprep manifest merge balanced.json unbalanced.jsonl --out all.jsonl
    """
    from avprep.manifest.model import iter_manifest, write_manifest
    from avprep.manifest.ops import merge_clips

    for source in sources:
        keep_labels(source, out.parent)
    clips, same, conflicts = merge_clips(map(iter_manifest, sources))
    if conflicts and on_conflict == "refuse":
        kept, dropped = conflicts[0].kept, conflicts[0].dropped
        raise UserError(
            f"{len(conflicts)} clips have one video_id and two contents; the first is "
            f"{kept.video_id!r}: {kept} and {dropped}. To take the first of each, give "
            "--on-conflict first."
        )
    write_manifest(out, clips)
    repeated = f", {same} were there again" if same else ""
    dropped_note = f", {len(conflicts)} others of the same video_id left out" if conflicts else ""
    click.echo(f"{out}: {len(clips)} clips from {len(sources)} manifests{repeated}{dropped_note}")


@click.command()
@click.argument("source", metavar="MANIFEST", type=_PATH)
@click.option(
    "--parts",
    required=True,
    metavar="NAME=SHARE,…",
    help="Parts and their shares, as in train=0.8,val=0.1,test=0.1 or train=8,val=1,test=1.",
)
@click.option("--out", type=_PATH, required=True, help="Folder: NAME.json for every part.")
@click.option("--seed", type=int, default=0, show_default=True, help="Seed of the split.")
def split(source: Path, parts: str, out: Path, seed: int) -> None:
    """Divide MANIFEST into parts in which every class has its share.

    Clips with several labels are dealt out by iterative stratification; segments of one video stay
    together. The same seed gives the same parts. Each clip gets its part's name as `split`.

    \b
    Example:
      avprep manifest split manifest.json --parts train=0.9,test=0.1 --out splits/
    """
    from avprep.manifest.model import read_manifest, write_manifest
    from avprep.manifest.ops import split_clips

    shares = parse_parts(parts)
    clips = read_manifest(source)
    suffix = source.suffix if source.suffix in (".jsonl", ".csv", ".parquet") else ".json"
    divided = split_clips(clips, shares, seed)
    if empty := [name for name, chosen in divided.items() if not chosen]:
        raise UserError(f"{source}: {len(clips)} clips are too few, {empty[0]!r} would get none.")
    for name, chosen in divided.items():
        path = out / f"{name}{suffix}"
        write_manifest(path, chosen)
        click.echo(f"{path}: {len(chosen)} clips, {len(classes_of(chosen))} classes")
    keep_labels(source, out)
    everything = classes_of(clips)
    for name, chosen in divided.items():
        if lacking := sorted(everything.keys() - classes_of(chosen).keys()):
            click.echo(f"{name} has no clip of {len(lacking)} classes: {some_of(lacking)}")


@click.command()
@click.argument("source", metavar="MANIFEST", type=_PATH)
@click.option("--per-class", type=click.IntRange(min=1), required=True, help="Clips a class.")
@click.option("--out", type=_PATH, required=True, help=_OUT_HELP)
@click.option("--seed", type=int, default=0, show_default=True, help="Seed of the choice.")
def sample(source: Path, per_class: int, out: Path, seed: int) -> None:
    """Choose so many clips of every class, such as the 5 a class of retrieval.

    Clips with several labels count for each of them, so frequent classes may get more. A class
    with fewer clips gives all it has. The same seed gives the same clips.

    \b
    Example:
      avprep manifest sample test.json --per-class 5 --out retrieval.json
    """
    from avprep.manifest.model import read_manifest, write_manifest
    from avprep.manifest.ops import sample_per_class

    clips = read_manifest(source)
    chosen = sample_per_class(clips, per_class, seed)
    if not chosen:
        raise UserError(f"{source}: not one of its {len(clips)} clips has a label.")
    write_manifest(out, chosen)
    keep_labels(source, out.parent)
    counts = classes_of(chosen)
    click.echo(f"{out}: {len(chosen)} clips, {len(counts)} classes")
    if short := sorted(label for label, count in counts.items() if count < per_class):
        click.echo(f"{len(short)} classes have fewer than {per_class} clips: {some_of(short)}")
    if unlabelled := sum(not clip.labels for clip in clips):
        click.echo(f"{unlabelled} clips without a label were not considered")


def parse_parts(text: str) -> dict[str, float]:
    """`train=0.8,test=0.2` → shares by name.

    Raises:
        UserError: not of this form.
    """
    shares: dict[str, float] = {}
    for part in text.split(","):
        name, _, share = part.strip().partition("=")
        try:
            value = float(share)
        except ValueError:
            value = -1.0
        if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_-]*", name) or not 0 < value < float("inf"):
            raise UserError(
                f"--parts {text!r}: {part.strip()!r} is not NAME=SHARE with a name of letters and "
                "digits and a share above 0; for example train=0.9,test=0.1."
            )
        if name in shares:
            raise UserError(f"--parts {text!r}: {name!r} stands there twice.")
        shares[name] = value
    if len(shares) < 2:
        raise UserError(f"--parts {text!r}: give at least two parts, as in train=0.9,test=0.1.")
    return shares


def keep_labels(source: Path, folder: Path) -> None:
    """Copy the class CSV beside a manifest into another folder.

    Raises:
        UserError: that folder has another one.
    """
    from avprep.labels import copy_label_csv

    copy_label_csv(source.with_name("labels.csv"), folder / "labels.csv")


def classes_of(clips: Sequence[Clip]) -> Counter[str]:
    """How many clips each label has."""
    return Counter(label for clip in clips for label in set(clip.labels))


def some_of(names: Sequence[str]) -> str:
    """The first few names."""
    return ", ".join(names[:_SHOWN]) + (", …" if len(names) > _SHOWN else "")
