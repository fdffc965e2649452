"""`avprep weights`: how often each clip is drawn in class-balanced epochs."""

from __future__ import annotations

from pathlib import Path

import click

from avprep.wording import counted

_PATH = click.Path(path_type=Path)


@click.command()
@click.argument("manifest", type=_PATH)
@click.option(
    "--labels",
    type=_PATH,
    help="Class CSV (index,mid,display_name). [default: M.classes.csv beside M.json]",
)
@click.option("--out", type=_PATH, help="CSV to write. [default: M_weight.csv beside M.json]")
@click.option("--shards", help="Also store the class weights in this shard set's dataset.json.")
def weights(manifest: Path, labels: Path | None, out: Path | None, shards: str | None) -> None:
    """Write the sampling weight of each clip of MANIFEST: one number a line, in its order.

    A class of n clips weighs 1000 / (n + 0.01), a clip the sum over its classes, as published.
    Balanced epochs (`cavmae finetune --balanced`) count the classes of the shard set themselves;
    with --shards they take this manifest's counts instead, failed clips included.

    \b
    Example:
      avprep weights train.json --labels class_labels_indices.csv
    """
    from avprep.errors import UserError
    from avprep.labels import class_csv_of, labels_of, read_label_csv
    from avprep.manifest.model import iter_manifest
    from avprep.shards.format import class_weights
    from avprep.weights import count_classes, store_weights, write_weights

    label_set = labels_of(manifest) if labels is None else read_label_csv(labels)
    if label_set is None:
        raise UserError(
            f"{manifest}: there is no class CSV {class_csv_of(manifest)}. Name the one it was "
            "built with: --labels CSV."
        )
    target = out or manifest.with_name(f"{manifest.stem}_weight.csv")
    counts = count_classes(iter_manifest(manifest), label_set)
    if not counts.any():
        raise UserError(f"{manifest}: not one clip has a label, so there are no weights.")
    of_classes = class_weights(counts)
    clips = write_weights(target, iter_manifest(manifest), label_set, of_classes)
    click.echo(
        f"{target}: weights of {counted(clips, 'clip')} in "
        f"{counted(int((counts > 0).sum()), 'class')}"
    )
    if shards is not None:
        store_weights(shards, label_set, counts, of_classes)
        click.echo(f"{shards}: balanced epochs draw by these weights")
