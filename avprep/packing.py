"""A manifest becomes a shard set."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from avprep.clips import Clip
from avprep.errors import UserError
from avprep.labels import LabelSet, class_csv_of, labels_of
from avprep.manifest.model import read_manifest
from avprep.options import BuildOptions, PoolOptions, ShardSetOptions
from avprep.progress import OnProgress, ignore
from avprep.shards.build import BuildReport, Found, build_shard_set


@dataclass(frozen=True)
class Beginning:
    """What is known before the first shard is built."""

    classes: int
    label_csv: Path | None  # None: the manifest has no labels
    found: Found


def build_shards(
    manifest: str | Path,
    out: str,
    labels: str | Path | None = None,
    options: ShardSetOptions = ShardSetOptions(),
    which: BuildOptions = BuildOptions(),
    pool: PoolOptions = PoolOptions(),
    on_progress: OnProgress = ignore,
    on_begin: Callable[[Beginning], None] = lambda beginning: None,
) -> BuildReport:
    """Pack the clips of a manifest into shards; what is there already is kept.

    Several calls on one folder, on one machine or many, share the work.

    Args:
        manifest: its file.
        out: a local folder, or a URL prefix of an object store that fsspec can write.
        labels: class CSV; None for the one beside the manifest.
        options: what the shards' bytes depend on.
        which: the shards to build.
        pool: who does the work; has no influence on any byte.
        on_progress: hears of clips done, after every shard.
        on_begin: called once, before the first shard is built.

    Raises:
        UserError: the manifest or its class CSV cannot be used, or `out` holds something else or
            cannot be written to.
        WorkFailed: writing failed midway, or workers died again and again.
    """
    clips = read_manifest(Path(manifest))
    label_set, label_csv = label_set_of(clips, Path(manifest), labels)
    report = build_shard_set(
        clips,
        label_set,
        out,
        options,
        pool,
        (which.part.k, which.part.n),
        which.retry_failed,
        on_progress,
        lambda found: on_begin(Beginning(len(label_set), label_csv, found)),
    )
    return replace(report, label_csv=label_csv)


def label_set_of(
    clips: Sequence[Clip], manifest: Path, labels: str | Path | None
) -> tuple[LabelSet, Path | None]:
    """The label set of a manifest's clips and the class CSV it is from.

    Raises:
        UserError: the class CSV cannot be read, or there is none although the clips have labels.
    """
    label_csv = class_csv_of(manifest) if labels is None else Path(labels)
    found = labels_of(manifest, labels)
    if found:
        return found, label_csv
    if found is None and any(clip.labels for clip in clips):
        raise UserError(
            f"{manifest}: its clips have labels, but there is no class CSV {label_csv}. Name the "
            "one it was built with: --labels CSV."
        )
    return LabelSet((), ()), None
