"""How often each clip is drawn in class-balanced epochs."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from avprep.errors import UserError
from avprep.labels import class_csv_of, labels_of, read_label_csv
from avprep.manifest.model import iter_manifest
from avprep.shards.format import weigh_classes
from avprep.weights import count_classes, store_weights, write_weights


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
        UserError: there is no class CSV, not one clip has a label or one has an unknown one, or
            the shard set has other classes.
    """
    manifest = Path(manifest)
    label_set = labels_of(manifest) if labels is None else read_label_csv(Path(labels))
    if label_set is None:
        raise UserError(
            f"{manifest}: there is no class CSV {class_csv_of(manifest)}. Name the one it was "
            "built with: --labels CSV."
        )
    target = manifest.with_name(f"{manifest.stem}_weight.csv") if out is None else Path(out)
    counts = count_classes(iter_manifest(manifest), label_set)
    if not counts.any():
        raise UserError(f"{manifest}: not one clip has a label, so there are no weights.")
    of_classes = weigh_classes(counts)
    clips = write_weights(target, iter_manifest(manifest), label_set, of_classes)
    if shards is not None:
        store_weights(shards, label_set, counts, of_classes)
    return Weights(target, clips, int((counts > 0).sum()))
