"""`cavmae eval`: measure a classifier and say how."""

from __future__ import annotations

import csv
import io
import json
import math
from pathlib import Path
from typing import Any

from tqdm import tqdm

from avprep import storage
from avprep.errors import UserError
from cavmae.checkpoints import load_checkpoint, read_metadata, weights_file
from cavmae.data import ShardSet, open_shards
from cavmae.evaluate.classify import ClassifyOptions, FrameChoice, classify_together
from cavmae.evaluate.metrics import Scores, score
from cavmae.frontend import FrontEnd, FrontEndOptions
from cavmae.model import CAVMAEClassifier
from cavmae.train.distributed import joined_world


def run_evaluation(values: dict[str, Any]) -> None:
    """Evaluate a checkpoint on a shard set and print the result.

    Raises:
        UserError: the checkpoint is no classifier of this label set.
    """
    file = weights_file(values["checkpoint"])
    model = load_checkpoint(file)
    if not isinstance(model, CAVMAEClassifier):
        raise UserError(f"{file}: a pretrained model without a classifier; run `cavmae finetune`.")
    shards = open_shards(values["shards"], values)
    metadata = read_metadata(file)
    check_classes(file, model, metadata, shards)
    defaults = FrontEndOptions()
    frontend = FrontEnd(
        FrontEndOptions(
            target_length=model.config.audio_frames,
            mean=float(metadata.get("fbank_mean", defaults.mean)),
            std=float(metadata.get("fbank_std", defaults.std)),
        )
    )
    options = ClassifyOptions(
        values["mode"] or metadata.get("mode", "multimodal"),
        parse_frames(values["frames"]),
        metadata.get("criterion", "bce"),
        values["batch_size"],
        values["workers"],
        values["max_bad_samples"],
    )
    with joined_world(values["device"]) as world:
        model.to(world.device)
        frontend.to(world.device)
        with tqdm(total=len(shards), unit="clip", desc="eval", disable=None) as bar:
            found = classify_together(model, frontend, shards, options, world, bar.update)
        if not world.is_main:
            return
        result = score(found.probabilities, found.labels)
        facts = {
            "accuracy": result.accuracy,
            "map": result.map,
            "auc": result.auc,
            "d_prime": result.d_prime,
            "clips": len(found.index),
            "clips_in_manifest": shards.info.clips,
            "clips_unreadable": found.unreadable,
            "classes": shards.num_classes,
            "classes_without_positives": result.left_out,
            "mode": options.mode,
            "frames": options.frames,
            "fbank_mean": frontend.options.mean,
            "fbank_std": frontend.options.std,
            "checkpoint": str(file),
        }
        if values["per_class_csv"] is not None:
            write_class_csv(values["per_class_csv"], result, shards)
        print(json.dumps(_finite(facts)) if values["as_json"] else describe(facts))


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


def parse_frames(text: str) -> FrameChoice:
    """`all`, `middle`, or a frame's number.

    Raises:
        UserError: something else.
    """
    if text in ("all", "middle"):
        return text  # type: ignore[return-value]
    if text.isdigit():
        return int(text)
    raise UserError(f"--frames {text!r}: give all, middle, or a frame's number such as 5.")


def describe(facts: dict[str, Any]) -> str:
    """The result for a person."""
    return (
        f"accuracy {facts['accuracy']:.4f}   mAP {facts['map']:.4f}   AUC {facts['auc']:.4f}   "
        f"d' {facts['d_prime']:.3f}\n"
        f"{facts['clips']} of {facts['clips_in_manifest']} clips of the manifest, mode "
        f"{facts['mode']}, frames {facts['frames']}, fbank mean {facts['fbank_mean']:.3f} std "
        f"{facts['fbank_std']:.3f}, {facts['classes_without_positives']} of {facts['classes']} "
        f"classes have no clip and are left out\n{facts['checkpoint']}"
    )


def write_class_csv(path: Path, result: Scores, shards: ShardSet) -> None:
    """One line a class: index, mid, name, positives, average precision, AUC."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["index", "mid", "display_name", "positives", "average_precision", "auc"])
    for index, ((mid, name), one) in enumerate(zip(shards.labels, result.classes, strict=True)):
        writer.writerow([index, mid, name, one.positives, one.average_precision, one.auc])
    storage.write_atomic(path, text.getvalue().encode())


def _finite(facts: dict[str, Any]) -> dict[str, Any]:
    return {
        name: None if isinstance(value, float) and not math.isfinite(value) else value
        for name, value in facts.items()
    }
