"""The published weights of class-balanced sampling: a rare class's clips are drawn more often.

`avprep.shards.format.class_weights` weighs the classes; a clip weighs the sum over its classes.
"""

from __future__ import annotations

import io
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from avprep import storage
from avprep.clips import Clip
from avprep.errors import UserError
from avprep.labels import LabelSet
from avprep.shards.format import read_dataset, update_dataset


def count_classes(clips: Iterable[Clip], labels: LabelSet) -> NDArray[np.int64]:
    """int64 [classes]: clips of each class.

    Raises:
        UserError: a clip has a label that is not in the label set.
    """
    counts = [0] * len(labels)
    for clip in clips:
        for index in labels.indices_of(clip.labels):
            counts[index] += 1
    return np.array(counts, np.int64)


def write_weights(
    path: Path, clips: Iterable[Clip], labels: LabelSet, weights: Sequence[float]
) -> int:
    """Write the published CSV: the weight of each clip, one a line, in the clips' order.

    Returns:
        the number of clips.
    """
    storage.make_folder(path.parent)
    count = 0
    with storage.replacing(path) as file:
        text = io.TextIOWrapper(file, "ascii")
        for clip in clips:
            text.write(f"{sum(weights[index] for index in labels.indices_of(clip.labels))!r}\n")
            count += 1
        text.flush()
        text.detach()
    return count


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
