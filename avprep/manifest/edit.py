"""Manifests from manifests."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from avprep.clips import Clip
from avprep.compact import CompactClips
from avprep.errors import UserError
from avprep.labels import LabelSet, class_csv_of, labels_of
from avprep.manifest.groups import held_together, read_groups
from avprep.manifest.model import check_class_csv, iter_manifest, read_manifest, write_labelled
from avprep.manifest.ops import classes_of, merge_clips, sample_per_class, split_clips
from avprep.manifest.paths import NewRoot, rerooted
from avprep.options import MergeOptions, PerClassOptions, SplitOptions
from avprep.selection import select
from avprep.wording import counted, first_of


def convert_manifest(source: str | Path, target: str | Path, roots: Sequence[NewRoot] = ()) -> int:
    """Write a manifest under another name; the suffixes determine the formats.

    The class CSV is copied along.

    Args:
        source: `.json`, `.jsonl`, `.csv` or `.parquet`.
        target: likewise.
        roots: old and new folders; the first that fits a path is used.

    Returns:
        The number of clips.

    Raises:
        UserError: the manifest cannot be read or written, or a root fits no path.
    """
    source, target = Path(source), Path(target)
    return write_labelled(target, rerooted(iter_manifest(source), roots), labels_of(source))


@dataclass(frozen=True)
class Merged:
    """The result of joining manifests."""

    clips: int
    repeated: int  # entries left out because they were there already
    conflicts: int  # entries left out because another clip had the same video_id


def merge_manifests(
    sources: Sequence[str | Path], out: str | Path, options: MergeOptions = MergeOptions()
) -> Merged:
    """Join several manifests, each clip once, in the order given.

    Manifests without classes may be among them.

    Args:
        sources: the manifests.
        out: the new one, in the format of its suffix.
        options: what to do if a video_id has different contents.

    Raises:
        UserError: classes differ, or a video_id has different contents and the options refuse
            that.
    """
    paths = [Path(source) for source in sources]
    labels = common_labels(paths)
    clips, repeated, conflicts = merge_clips(
        known_by(iter_manifest(path), labels, path) for path in paths
    )
    if conflicts and options.on_conflict == "refuse":
        kept, dropped = conflicts[0].kept, conflicts[0].dropped
        raise UserError(
            f"{counted(len(conflicts), 'video_id')} with two different entries; the first is "
            f"{kept.video_id!r}: {kept} and {dropped}. To take the first of each, give "
            "--on-conflict first."
        )
    write_labelled(Path(out), clips, labels)
    return Merged(len(clips), repeated, len(conflicts))


@dataclass(frozen=True)
class ManifestPart:
    """A part of a manifest that was divided."""

    name: str
    path: Path
    clips: int
    classes: int
    lacking: tuple[str, ...]  # classes of the whole that no clip of this part has


def split_manifest(
    source: str | Path, out: str | Path, options: SplitOptions
) -> tuple[ManifestPart, ...]:
    """Divide a manifest into parts in which every class has its share.

    Clips of one video stay together, and so do groups of duplicates. Each clip gets its part's
    name as `split`.

    Args:
        source: the manifest.
        out: folder for a manifest per part, in the format of `source`.
        options: the parts, and what stays together.

    Raises:
        UserError: a part would get no clip, the path of a class CSV is taken by other classes, or
            the table of groups cannot be used.
    """
    source = Path(source)
    clips = read_manifest(source)
    groups = _groups_in(clips, source, options.groups) if options.groups else None
    divided = split_clips(clips, options.parts, options.seed, groups)
    if empty := [name for name, chosen in divided.items() if not chosen]:
        count = len(held_together(clips, groups))
        those = "" if count == len(clips) else f" in {counted(count, 'group')} that stay together"
        raise UserError(
            f"{source}: {len(clips)} clips{those} are too few, {empty[0]!r} would get none."
        )
    suffix = source.suffix if source.suffix in (".jsonl", ".csv", ".parquet") else ".json"
    labels, everything = labels_of(source), classes_of(clips)
    paths = {name: Path(out) / f"{name}{suffix}" for name in divided}
    for path in paths.values():
        check_class_csv(path, labels)
    parts = []
    for name, chosen in divided.items():
        write_labelled(paths[name], chosen, labels)
        classes = classes_of(chosen)
        lacking = tuple(sorted(everything.keys() - classes.keys()))
        parts.append(ManifestPart(name, paths[name], len(chosen), len(classes), lacking))
    return tuple(parts)


def _groups_in(clips: Sequence[Clip], source: Path, table: Path) -> dict[str, list[str]]:
    groups = read_groups(table)
    if groups and not any(clip.video_id in groups for clip in clips):
        raise UserError(
            f"{table}: none of its ids is in {source}; the first is {next(iter(groups))!r}. Give "
            "the groups of this manifest's clips."
        )
    return groups


@dataclass(frozen=True)
class Chosen:
    """The clips chosen from a manifest."""

    clips: int
    classes: int
    short: tuple[str, ...]  # classes with fewer clips than were asked for
    unlabelled: int  # clips that could not be chosen


def sample_manifest(source: str | Path, out: str | Path, options: PerClassOptions) -> Chosen:
    """Choose a number of clips per class, or all if a class has fewer.

    Clips with several labels count for each of them, so frequent classes may get more.

    Args:
        source: the manifest.
        out: the new one, in the format of its suffix.
        options: how many clips, and the seed they are drawn with.

    Raises:
        UserError: no clip has a label.
    """
    source = Path(source)
    clips = CompactClips.of(iter_manifest(source))
    chosen = sample_per_class(clips, options.per_class, options.seed)
    if not chosen:
        raise UserError(f"{source}: none of its {len(clips)} clips has a label.")
    write_labelled(Path(out), chosen, labels_of(source))
    counts = classes_of(chosen)
    short = sorted(label for label, count in counts.items() if count < options.per_class)
    unlabelled = sum(not clip.labels for clip in clips)
    return Chosen(len(chosen), len(counts), tuple(short), unlabelled)


@dataclass(frozen=True)
class Kept:
    """The clips of a manifest that a selection names."""

    clips: int
    of: int  # clips in the manifest
    strangers: tuple[str, ...]  # ids in the selection that no clip of the manifest has


def select_manifest(source: str | Path, selection: str | Path, out: str | Path) -> Kept:
    """Write a manifest of the clips that a selection names, in the order of the manifest.

    Args:
        source: the manifest.
        selection: a CSV with the column video_id, such as `filter_clips` writes.
        out: the manifest to write.

    Raises:
        UserError: the manifest or the selection cannot be read, or no clip is named.
    """
    source = Path(source)
    clips = CompactClips.of(iter_manifest(source))
    found = select(selection, (clip.video_id for clip in clips))
    if not found.positions:
        raise UserError(
            f"{selection}: names none of the {counted(len(clips), 'clip')} of {source}, but "
            f"{first_of(map(repr, found.strangers))}. Give the selection made for this data."
        )
    write_labelled(Path(out), clips.at(found.positions), labels_of(source))
    return Kept(len(found.positions), len(clips), found.strangers)


def common_labels(sources: Sequence[Path]) -> LabelSet | None:
    """The label set that all manifests with classes share; None if none has a class CSV.

    Raises:
        UserError: two differ.
    """
    common, first = None, sources[0]
    for source in sources:
        labels = labels_of(source)
        if labels is None or (not labels and common is not None):
            continue
        if common and labels != common:
            raise UserError(
                f"{class_csv_of(source)}: its classes differ from those of "
                f"{class_csv_of(first)}, or are in another order. Build both manifests with "
                "one class CSV, given by --labels."
            )
        common, first = labels, source
    return common


def known_by(clips: Iterable[Clip], labels: LabelSet | None, source: Path) -> Iterator[Clip]:
    """The clips of a manifest, whose labels must be in the label set, if there is one.

    Raises:
        UserError: a label is not.
    """
    for clip in clips:
        for label in clip.labels:
            if labels is not None and not labels.knows(label):
                raise UserError(
                    f"{source}: {clip.video_id!r} has the label {label!r}, which the class CSVs of "
                    "the other manifests do not have, and it has no class CSV of its own."
                )
        yield clip
