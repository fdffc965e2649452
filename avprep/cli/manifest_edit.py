"""`avprep manifest convert|merge|split|sample`: manifests from manifests."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from avprep.errors import UserError
from avprep.wording import counted

if TYPE_CHECKING:
    from avprep.clips import Clip
    from avprep.labels import LabelSet

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
    The class CSV of SOURCE is copied for TARGET.

    \b
    Example:
      avprep manifest convert manifest.json manifest.parquet
      avprep manifest convert manifest.json moved.json --root videos=/data/videos
    """
    from avprep.labels import labels_of
    from avprep.manifest.model import iter_manifest, write_labelled
    from avprep.manifest.paths import NewRoot, rerooted

    clips = rerooted(iter_manifest(source), [*map(NewRoot.parse, roots)])
    count = write_labelled(target, clips, labels_of(source))
    click.echo(f"{target}: {counted(count, 'clip')}")


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

    Those that have classes must have the same, in the same order: their class CSVs are compared.
    Manifests without classes may be among them.

    \b
    Example:
      avprep manifest merge balanced.json unbalanced.jsonl --out all.jsonl
    """
    from avprep.manifest.model import iter_manifest, write_labelled
    from avprep.manifest.ops import merge_clips

    labels = common_labels(sources)
    clips, same, conflicts = merge_clips(
        known_by(iter_manifest(source), labels, source) for source in sources
    )
    if conflicts and on_conflict == "refuse":
        kept, dropped = conflicts[0].kept, conflicts[0].dropped
        raise UserError(
            f"{counted(len(conflicts), 'clip')} with one video_id and two contents; the first is "
            f"{kept.video_id!r}: {kept} and {dropped}. To take the first of each, give "
            "--on-conflict first."
        )
    write_labelled(out, clips, labels)
    repeated = f", {same} were there again" if same else ""
    dropped_note = f", {len(conflicts)} others of the same video_id left out" if conflicts else ""
    click.echo(
        f"{out}: {counted(len(clips), 'clip')} from {counted(len(sources), 'manifest')}"
        f"{repeated}{dropped_note}"
    )


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
    from avprep.labels import labels_of
    from avprep.manifest.model import check_class_csv, read_manifest, write_labelled
    from avprep.manifest.ops import classes_of, split_clips

    shares = parse_parts(parts)
    clips = read_manifest(source)
    suffix = source.suffix if source.suffix in (".jsonl", ".csv", ".parquet") else ".json"
    divided = split_clips(clips, shares, seed)
    if empty := [name for name, chosen in divided.items() if not chosen]:
        raise UserError(f"{source}: {len(clips)} clips are too few, {empty[0]!r} would get none.")
    labels = labels_of(source)
    paths = {name: out / f"{name}{suffix}" for name in divided}
    for path in paths.values():
        check_class_csv(path, labels)
    for name, chosen in divided.items():
        write_labelled(paths[name], chosen, labels)
        click.echo(
            f"{paths[name]}: {counted(len(chosen), 'clip')}, "
            f"{counted(len(classes_of(chosen)), 'class')}"
        )
    everything = classes_of(clips)
    for name, chosen in divided.items():
        if lacking := sorted(everything.keys() - classes_of(chosen).keys()):
            click.echo(
                f"{name} has no clip of {counted(len(lacking), 'class')}: {some_of(lacking)}"
            )


@click.command()
@click.argument("source", metavar="MANIFEST", type=_PATH)
@click.option("--per-class", type=click.IntRange(min=1), required=True, help="Clips per class.")
@click.option("--out", type=_PATH, required=True, help=_OUT_HELP)
@click.option("--seed", type=int, default=0, show_default=True, help="Seed of the choice.")
def sample(source: Path, per_class: int, out: Path, seed: int) -> None:
    """Choose N clips of every class, such as the 5 per class used for retrieval.

    Clips with several labels count for each of them, so frequent classes may get more. A class
    with fewer clips gives all it has. The same seed gives the same clips.

    \b
    Example:
      avprep manifest sample test.json --per-class 5 --out retrieval.json
    """
    from avprep.labels import labels_of
    from avprep.manifest.model import read_manifest, write_labelled
    from avprep.manifest.ops import classes_of, sample_per_class

    clips = read_manifest(source)
    chosen = sample_per_class(clips, per_class, seed)
    if not chosen:
        raise UserError(f"{source}: not one of its {len(clips)} clips has a label.")
    write_labelled(out, chosen, labels_of(source))
    counts = classes_of(chosen)
    click.echo(f"{out}: {counted(len(chosen), 'clip')}, {counted(len(counts), 'class')}")
    if short := sorted(label for label, count in counts.items() if count < per_class):
        number = "1 class has" if len(short) == 1 else f"{len(short)} classes have"
        click.echo(f"{number} fewer than {counted(per_class, 'clip')}: {some_of(short)}")
    if unlabelled := sum(not clip.labels for clip in clips):
        click.echo(f"{counted(unlabelled, 'clip')} without a label not considered")


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


def common_labels(sources: Sequence[Path]) -> LabelSet | None:
    """The label set that all manifests with classes share; None if not one has a class CSV.

    Raises:
        UserError: two differ.
    """
    from avprep.labels import class_csv_of, labels_of

    common, first = None, sources[0]
    for source in sources:
        labels = labels_of(source)
        if labels is None or (not labels and common is not None):
            continue
        if common and labels != common:
            raise UserError(
                f"{class_csv_of(source)}: holds other classes than {class_csv_of(first)}, or the "
                "same in another order. Build both manifests with one class CSV, given by --labels."
            )
        common, first = labels, source
    return common


def known_by(clips: Iterable[Clip], labels: LabelSet | None, source: Path) -> Iterator[Clip]:
    """The clips of a manifest, whose labels must be in the label set, if there is one.

    Raises:
        UserError: one is not.
    """
    for clip in clips:
        for label in clip.labels:
            if labels is not None and not labels.knows(label):
                raise UserError(
                    f"{source}: {clip.video_id!r} has the label {label!r}, which the class CSVs of "
                    "the other manifests do not have, and it has no class CSV of its own."
                )
        yield clip


def some_of(names: Sequence[str]) -> str:
    """The first few names."""
    return ", ".join(names[:_SHOWN]) + (", …" if len(names) > _SHOWN else "")
