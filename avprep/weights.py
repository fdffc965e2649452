"""The published weights of class-balanced sampling: a rare class's clips are drawn more often.

`avprep.shards.format.weigh_classes` weighs the classes; a clip weighs the sum over its classes.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from avprep import storage
from avprep.clips import Clip
from avprep.errors import UserError
from avprep.labels import LabelSet, class_csv_of, labels_of
from avprep.manifest.model import iter_manifest
from avprep.shards.format import read_dataset, update_dataset, weigh_classes


@dataclass(frozen=True)
class Weights:
    """The weights that were written."""

    path: Path
    clips: int
    classes: int  # that have a clip


def weigh_clips(
    manifest: str | Path,
    out: str | Path | None = None,
    labels: str | Path | None = None,
    shards: str | None = None,
) -> Weights:
    """Write the sampling weight of each clip of a manifest: one number per line, in its order.

    A class of n clips weighs 1000 / (n + 0.01), a clip the sum over its classes, as published.

    Args:
        manifest: its file.
        out: CSV to write; None for `M_weight.csv` beside `M.json`.
        labels: class CSV; None for the one beside the manifest.
        shards: a shard set whose dataset.json stores the weights of the classes, too.

    Raises:
        UserError: there is no class CSV, no clip has a label or one has an unknown one, or
            the shard set has other classes.
    """
    manifest = Path(manifest)
    label_set = labels_of(manifest, labels)
    if label_set is None:
        raise UserError(
            f"{manifest}: there is no class CSV {class_csv_of(manifest)}. Name the one it was "
            "built with: --labels CSV."
        )
    target = manifest.with_name(f"{manifest.stem}_weight.csv") if out is None else Path(out)
    counts = count_classes(iter_manifest(manifest), label_set)
    if not counts.any():
        raise UserError(f"{manifest}: no clip has a label, so there are no weights.")
    of_classes = weigh_classes(counts)
    clips = write_weights(target, iter_manifest(manifest), label_set, of_classes)
    if shards is not None:
        store_weights(shards, label_set, counts, of_classes)
    return Weights(target, clips, int((counts > 0).sum()))


def count_classes(clips: Iterable[Clip], labels: LabelSet) -> NDArray[np.int64]:
    """Clips of each class: int64 [classes].

    Raises:
        UserError: a clip has a label that is not in the label set.
    """
    counts = Counter(index for clip in clips for index in labels.indices_of(clip.labels))
    return np.array([counts[index] for index in range(len(labels))], np.int64)


def write_weights(
    path: Path, clips: Iterable[Clip], labels: LabelSet, weights: Sequence[float]
) -> int:
    """Write the published CSV: the weight of one clip per line, in the clips' order.

    Returns:
        the number of clips.
    """
    storage.make_folder(path.parent)
    lines = [
        f"{sum(weights[index] for index in labels.indices_of(clip.labels))!r}\n" for clip in clips
    ]
    storage.write_atomic(path, "".join(lines).encode())
    return len(lines)


def store_weights(
    shards: str, labels: LabelSet, counts: NDArray[np.int64], weights: Sequence[float]
) -> None:
    """Write the class weights into a shard set's dataset.json, where balanced epochs take them.

    Raises:
        UserError: no shard set, or one with other classes.
    """
    info = read_dataset(shards)
    if tuple(mid for mid, _ in info.labels) != labels.mids:
        raise UserError(
            f"{shards}: was built with another class CSV ({len(info.labels)} classes, this one has "
            f"{len(labels)} or another order)."
        )
    update_dataset(shards, weights={"class_counts": counts.tolist(), "classes": list(weights)})
