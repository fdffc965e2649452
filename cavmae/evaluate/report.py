"""`cavmae eval`: measure a classifier and say how."""

from __future__ import annotations

import csv
import io
import json
import math
from pathlib import Path
from typing import Any

from avprep import storage
from avprep.cli.progress import ProgressBar
from avprep.errors import UserError
from avprep.labels import LabelSet, read_label_csv
from cavmae.checkpoints.usage import (
    STORE_LABELS,
    Stated,
    assumed_classes,
    label_notes,
    labels_of,
    other_classes,
    usage_of,
    warn,
)
from cavmae.data import ShardSet, open_shards
from cavmae.distributed import joined_world
from cavmae.evaluate.classify import ClassifyOptions, classify_together, parse_frames
from cavmae.evaluate.metrics import Scores, finite, score
from cavmae.evaluate.trained import Trained, load_trained, require_classifier


def run_evaluation(values: dict[str, Any], recipe: Stated) -> None:
    """Evaluate a checkpoint on a shard set and print the result.

    Args:
        values: the command's options.
        recipe: what the recipe says of the classifier; what its file stores goes before.

    Raises:
        UserError: the checkpoint is no classifier of this label set.
    """
    if values["per_class_csv"] is not None:
        storage.make_folder(values["per_class_csv"].parent)
    trained = load_trained(values["checkpoint"])
    model = require_classifier(trained)
    shards = open_shards(values["shards"], values)
    usage = usage_of(
        trained.file,
        trained.metadata,
        model.num_classes,
        Stated(values["mode"], values["criterion"]),
        recipe,
    )
    labels = read_label_csv(values["labels"]) if values["labels"] is not None else None
    notes = [*usage.notes, *check_classes(trained, model.num_classes, labels, shards)]
    options = ClassifyOptions(
        usage.mode,
        parse_frames(values["frames"]),
        usage.criterion,
        values["batch_size"],
        values["workers"],
        values["max_bad_samples"],
    )
    with joined_world(values["device"]) as world:
        if world.is_main:
            warn(notes)
        trained = trained.to(world.device)
        share = len(range(world.rank, len(shards), world.size))
        with ProgressBar("eval", "clip", share, shown=world.is_main) as bar:
            found = classify_together(model, trained.frontend, shards, options, world, bar.update)
        if not world.is_main:
            return
        probabilities = found.probabilities
        frames = []
        if options.frames == "each":
            frames = [measures(score(p, found.labels)) for p in probabilities.swapaxes(0, 1)]
            probabilities = probabilities.mean(axis=1)
        result = score(probabilities, found.labels)
        facts: dict[str, Any] = {
            **measures(result),
            "clips": len(found.index),
            "clips_selected": len(shards),
            "clips_unreadable": found.unreadable,
            "clips_in_manifest": shards.info.clips,
            "clips_never_sharded": shards.info.clips - shards.info.samples,
            "classes": shards.num_classes,
            "classes_without_positives": result.left_out,
            "mode": options.mode,
            "criterion": options.criterion,
            "frames": options.frames,
            "fbank_mean": trained.frontend.options.mean,
            "fbank_std": trained.frontend.options.std,
            "checkpoint": str(trained.file),
            "warnings": notes,
        }
        if frames:
            facts["each_frame"] = frames
        print(json.dumps(finite(facts)) if values["as_json"] else describe(facts))
        if values["per_class_csv"] is not None:
            write_class_csv(values["per_class_csv"], result, shards)


def check_classes(
    trained: Trained, num_classes: int, given: LabelSet | None, shards: ShardSet
) -> tuple[str, ...]:
    """Compare a classifier's classes with those of a shard set; what had to be assumed.

    Raises:
        UserError: they are not the same.
    """
    file = trained.file
    if num_classes != shards.num_classes:
        raise UserError(
            f"{file}: classifies {num_classes} classes, {shards.location} has "
            f"{shards.num_classes}. Make manifest and shards with the classifier's class CSV "
            "(--labels)."
        )
    labels = labels_of(file, trained.metadata, num_classes, given)
    if labels is None:
        return (f"{assumed_classes(file, shards.label_set, shards.location)} {STORE_LABELS}",)
    if odd := other_classes(labels, shards.label_set):
        raise UserError(
            f"{file}: was trained with another label set than {shards.location}'s: {odd}. Shard "
            "with the same --labels."
        )
    return label_notes(file, trained.metadata, labels, "")


def measures(result: Scores) -> dict[str, float]:
    """The four figures, by name."""
    return {
        "accuracy": result.accuracy,
        "map": result.map,
        "auc": result.auc,
        "d_prime": result.d_prime,
    }


def describe(facts: dict[str, Any]) -> str:
    """The result for a person: the figures, and on what they stand."""
    lines = [
        f"frame {number}   {_figures(one)}"
        for number, one in enumerate(facts.get("each_frame", []))
    ]
    lines.append(f"{'together  ' if lines else ''}{_figures(facts)}")
    clips = f"{facts['clips']} of {facts['clips_selected']} clips"
    if facts["clips_unreadable"]:
        clips += f" ({facts['clips_unreadable']} unreadable)"
    if facts["clips_never_sharded"]:
        clips += (
            f"; {facts['clips_never_sharded']} of the manifest's {facts['clips_in_manifest']} "
            "clips could not be decoded and are in no shard"
        )
    lines.append(
        f"{clips}. Mode {facts['mode']}, frames {facts['frames']}, fbank mean "
        f"{facts['fbank_mean']:.3f} std {facts['fbank_std']:.3f}, criterion {facts['criterion']}."
    )
    if empty := facts["classes_without_positives"]:
        lines[-1] += (
            f" {empty} of {facts['classes']} classes have no clip and are left out of the means."
        )
    lines.append(facts["checkpoint"])
    return "\n".join(lines)


def _figures(facts: dict[str, Any]) -> str:
    return (
        f"accuracy {facts['accuracy']:.4f}   mAP {facts['map']:.4f}   AUC {facts['auc']:.4f}   "
        f"d' {facts['d_prime']:.3f}"
    )


def write_class_csv(path: Path, result: Scores, shards: ShardSet) -> None:
    """One line a class: index, mid, name, positives, average precision, AUC (empty: unknown)."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["index", "mid", "display_name", "positives", "average_precision", "auc"])
    for index, ((mid, name), one) in enumerate(zip(shards.labels, result.classes, strict=True)):
        known = ["" if math.isnan(value) else value for value in (one.average_precision, one.auc)]
        writer.writerow([index, mid, name, one.positives, *known])
    storage.write_atomic(path, text.getvalue().encode())
