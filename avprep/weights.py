"""The published weights of class-balanced sampling: a rare class's clips are drawn more often.

`avprep.shards.format.weigh_classes` weighs the classes; a clip weighs the sum over its classes.
"""

from __future__ import annotations

from collections import Counter
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
