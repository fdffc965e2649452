"""`cavmae eval`: measure a classifier and say how."""

from __future__ import annotations

import csv
import io
import json
import math
from pathlib import Path
from typing import Any, Literal, cast

from avprep import storage
from avprep.errors import UserError
from avprep.progress import ProgressBar
from cavmae.data import ShardSet, open_shards
from cavmae.distributed import joined_world
from cavmae.evaluate.classify import ClassifyOptions, classify_together, parse_frames
from cavmae.evaluate.metrics import Scores, finite, score
from cavmae.evaluate.trained import load_trained, require_classifier
from cavmae.model import CAVMAEClassifier
from cavmae.options import Mode


def run_evaluation(values: dict[str, Any]) -> None:
    """Evaluate a checkpoint on a shard set and print the result.

    Raises:
        UserError: the checkpoint is no classifier of this label set.
    """
    if values["per_class_csv"] is not None:
        storage.make_folder(values["per_class_csv"].parent)
    trained = load_trained(values["checkpoint"])
    model = require_classifier(trained)
    metadata = trained.metadata
    shards = open_shards(values["shards"], values)
    check_classes(trained.file, model, metadata, shards)
    options = ClassifyOptions(
        cast(Mode, values["mode"] or metadata.get("mode", "multimodal")),
        parse_frames(values["frames"]),
        cast(Literal["bce", "ce"], metadata.get("criterion", "bce")),
        values["batch_size"],
        values["workers"],
        values["max_bad_samples"],
    )
    with joined_world(values["device"]) as world:
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
            "frames": options.frames,
            "fbank_mean": trained.frontend.options.mean,
            "fbank_std": trained.frontend.options.std,
            "checkpoint": str(trained.file),
        }
        if frames:
            facts["each_frame"] = frames
        print(json.dumps(finite(facts)) if values["as_json"] else describe(facts))
        if values["per_class_csv"] is not None:
            write_class_csv(values["per_class_csv"], result, shards)


def check_classes(
    file: Path, model: CAVMAEClassifier, metadata: dict[str, str], shards: ShardSet
) -> None:
    """Raises UserError where the checkpoint's classes are not the shard set's."""
    if model.num_classes != shards.num_classes:
        raise UserError(
            f"{file}: classifies {model.num_classes} classes, {shards.location} has "
            f"{shards.num_classes}."
        )
    theirs = json.loads(metadata.get("labels", "null"))
    if theirs is not None and theirs != [mid for mid, _ in shards.labels]:
        raise UserError(
            f"{file}: was trained with another label set than {shards.location}'s, or with the "
            "same classes in another order. Shard with the same --labels."
        )


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
        f"{facts['fbank_mean']:.3f} std {facts['fbank_std']:.3f}. "
        f"{facts['classes_without_positives']} of {facts['classes']} classes have no clip and are "
        "left out of the means."
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
