"""`cavmae retrieve`: does a sound find its picture, and a picture its sound?"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from avprep import storage
from avprep.errors import UserError
from avprep.progress import OnProgress, ignore
from cavmae.data import ShardSet, open_shards
from cavmae.distributed import joined_world
from cavmae.evaluation.clips import share_counter
from cavmae.evaluation.features import check_modalities, pooled_features
from cavmae.evaluation.options import RetrieveOptions
from cavmae.evaluation.ranking import RECALLS, Ranks, chance, rank_pairs
from cavmae.evaluation.retrieval_page import retrieval_page
from cavmae.evaluation.trained import load_trained
from cavmae.model import CAVMAE


@dataclass(frozen=True)
class RetrieveResult:
    """Both directions, and what they are measured on.

    Attributes:
        audio_to_image: where each clip's own frame stands for its audio.
        image_to_audio: where its own audio stands for its frame.
        clips: that were compared.
        clips_unreadable: left out.
        clips_lacking: left out, because they lack a modality.
        checkpoint: the file of weights.
        is_pretrained: whether its streams were trained to match each other.
        options: which clips were compared, and how.
    """

    audio_to_image: Ranks
    image_to_audio: Ranks
    clips: int
    clips_unreadable: int
    clips_lacking: int
    checkpoint: Path
    is_pretrained: bool
    options: RetrieveOptions

    def facts(self) -> dict[str, Any]:
        """All figures by name, as `retrieval.json` has them."""
        options = self.options
        return {
            "audio_to_image": _figures(self.audio_to_image),
            "image_to_audio": _figures(self.image_to_audio),
            "chance": _figures(chance(self.clips)),
            "clips": self.clips,
            "clips_unreadable": self.clips_unreadable,
            "clips_lacking": self.clips_lacking,
            "per_class": options.per_class,
            "seed": options.seed if options.per_class else None,
            "classes": options.classes,
            "splits": options.splits,
            "frames": options.frames,
            "checkpoint": str(self.checkpoint),
            "checkpoint_is_pretrained": self.is_pretrained,
        }


def _figures(ranks: Ranks) -> dict[str, float]:
    recalls = {f"recall_at_{k}": ranks.recall(k) for k in RECALLS}
    return {**recalls, "median_rank": ranks.median()}


def retrieve(options: RetrieveOptions, on_progress: OnProgress = ignore) -> RetrieveResult:
    """Measure retrieval on a shard set. Started on several ranks, they share the clips.

    Args:
        options: which model, on which clips, and what is written.
        on_progress: hears of the clips done.

    Returns:
        The whole result, on every rank.

    Raises:
        UserError: not a checkpoint, not a shard set, or they do not fit together.
        WorkFailed: too many clips cannot be read.
    """
    trained = load_trained(options.checkpoint)
    if not trained.model.config.contrasts:
        raise UserError(
            f"{trained.file}: was pretrained as {trained.model.config.objective}, which never "
            "compares sounds with images; retrieval needs a cav-mae or cav."
        )
    check_modalities(trained, options.modalities)
    shards = open_shards(options.shards, options)
    if options.per_class:
        shards = per_class_subset(shards, options.per_class, options.seed)
    with joined_world(options.device) as world:
        trained = trained.to(world.device)
        count = share_counter(on_progress, world, shards)
        features = pooled_features(trained, shards, options, world, count)
        audio, image = (features.vectors[name].to(world.device) for name in options.modalities)
        result = RetrieveResult(
            *rank_pairs(audio, image),
            clips=len(features.index),
            clips_unreadable=features.unreadable,
            clips_lacking=shards.lacking,
            checkpoint=trained.file,
            is_pretrained=isinstance(trained.model, CAVMAE),
            options=options,
        )
    if options.out is not None and world.is_main:
        storage.make_folder(options.out)
        storage.write_json(options.out / "retrieval.json", result.facts())
        page = retrieval_page(
            shards,
            features,
            {"audio_to_image": result.audio_to_image, "image_to_audio": result.image_to_audio},
            options.queries,
            options.frames if isinstance(options.frames, int) else shards.frames // 2,
            str(result.checkpoint),
        )
        storage.write_atomic(options.out / "retrieval.html", page)
    return result


def per_class_subset(shards: ShardSet, count: int, seed: int) -> ShardSet:
    """At most `count` clips of each class, as the published retrieval sets were made (with 5).

    Which ones depends on the seed and on the clips' names alone, not on how they are sharded. A
    clip with several labels can be drawn for each of them and is in the subset once.

    Args:
        shards: what to draw from.
        count: clips per class.
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
