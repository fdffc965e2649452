"""`cavmae retrieve`: does a sound find its picture, and a picture its sound?"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from avprep import storage
from avprep.cli.progress import ProgressBar
from avprep.errors import UserError
from cavmae.data import ShardSet, open_shards
from cavmae.distributed import joined_world
from cavmae.evaluate.features import FeatureOptions, Features, one_feature, pooled_features
from cavmae.evaluate.ranking import RECALLS, Ranks, chance, rank_pairs
from cavmae.evaluate.retrieval_page import retrieval_page
from cavmae.evaluate.trained import load_trained
from cavmae.model import CAVMAE


@dataclass(frozen=True)
class Retrieval:
    """Both directions."""

    audio_to_image: Ranks
    image_to_audio: Ranks

    def facts(self) -> dict[str, dict[str, float]]:
        """R@1, R@5, R@10 and the median rank of each direction."""
        return {
            "audio_to_image": _facts(self.audio_to_image),
            "image_to_audio": _facts(self.image_to_audio),
        }


def _facts(ranks: Ranks) -> dict[str, float]:
    recalls = {f"recall_at_{k}": ranks.recall(k) for k in RECALLS}
    return {**recalls, "median_rank": ranks.median()}


def run_retrieval(values: dict[str, Any]) -> None:
    """Measure retrieval on a shard set and print the result.

    Raises:
        UserError: not a checkpoint, not a shard set, or they do not fit together.
    """
    trained = load_trained(values["checkpoint"])
    shards = open_shards(values["shards"], values)
    if values["per_class"]:
        shards = per_class_subset(shards, values["per_class"], values["seed"])
    options = FeatureOptions(
        frames=one_feature(values["frames"]),
        batch_size=values["batch_size"],
        workers=values["workers"],
        max_bad_samples=values["max_bad_samples"],
    )
    with joined_world(values["device"]) as world:
        trained = trained.to(world.device)
        share = len(range(world.rank, len(shards), world.size))
        with ProgressBar("retrieve", "clip", share, shown=world.is_main) as bar:
            features = pooled_features(trained, shards, options, world, bar.update)
        if not world.is_main:
            return
        audio, image = (features.vectors[name].to(world.device) for name in ("audio", "image"))
        result = Retrieval(*rank_pairs(audio, image))
    facts = {
        **result.facts(),
        "chance": _facts(chance(len(features.index))),
        "clips": len(features.index),
        "clips_unreadable": features.unreadable,
        "per_class": values["per_class"],
        "seed": values["seed"] if values["per_class"] else None,
        "classes": values["classes"],
        "splits": values["splits"],
        "frames": options.frames,
        "checkpoint": str(trained.file),
        "checkpoint_is_pretrained": isinstance(trained.model, CAVMAE),
    }
    if values["out"] is not None:
        write_results(values["out"], facts, shards, features, result, values["queries"])
    print(json.dumps(facts) if values["as_json"] else describe(facts, values["out"]))


def per_class_subset(shards: ShardSet, count: int, seed: int) -> ShardSet:
    """At most `count` clips of each class, as the published retrieval sets were made (with 5).

    Which ones depends on the seed and on the clips' names alone, not on how they are sharded. A
    clip with several labels can be drawn for each of them and is in the subset once.

    Args:
        shards: what to draw from.
        count: clips a class.
        seed: of the drawing.
    """
    members: list[list[int]] = [[] for _ in range(shards.num_classes)]
    for number in sorted(range(len(shards)), key=shards.video_id):
        for label in shards.label_indices(number):
            members[label].append(number)
    chosen: set[int] = set()
    for label, numbers in enumerate(members):
        drawn = np.random.default_rng([seed, label]).permutation(len(numbers))[:count]
        chosen.update(numbers[place] for place in drawn)
    if not chosen:
        raise UserError(f"{shards.location}: its samples have no labels; leave --per-class out.")
    return shards.subset(sorted(chosen))


def write_results(
    folder: Path,
    facts: dict[str, Any],
    shards: ShardSet,
    features: Features,
    result: Retrieval,
    queries: int,
) -> None:
    """Write retrieval.json and retrieval.html."""
    storage.make_folder(folder)
    storage.write_json(folder / "retrieval.json", facts)
    frames = facts["frames"]
    page = retrieval_page(
        shards,
        features,
        {"audio_to_image": result.audio_to_image, "image_to_audio": result.image_to_audio},
        queries,
        frames if isinstance(frames, int) else shards.frames // 2,
        facts["checkpoint"],
    )
    storage.write_atomic(folder / "retrieval.html", page)


def describe(facts: dict[str, Any], out: Path | None) -> str:
    """The result for a person."""
    lines = [f"{'':16}{'R@1':>8}{'R@5':>8}{'R@10':>8}{'median rank':>14}"]
    for direction, title in (
        ("audio_to_image", "audio → image"),
        ("image_to_audio", "image → audio"),
        ("chance", "chance"),
    ):
        found = facts[direction]
        recalls = "".join(f"{found[f'recall_at_{k}']:8.1%}" for k in RECALLS)
        lines.append(f"{title:16}{recalls}{found['median_rank']:14g}")
    lines.append(f"{facts['clips']} clips, {facts['checkpoint']}")
    if not facts["checkpoint_is_pretrained"]:
        lines.append(
            "note: this is a classifier, whose streams were not trained to match each other"
        )
    if out is not None:
        lines.append(f"{out}/retrieval.json, {out}/retrieval.html")
    return "\n".join(lines)
