"""`cavmae knn`: the labels of a clip's nearest neighbours, a quick look at a pretrained model."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from avprep.cli.progress import ProgressBar
from avprep.errors import UserError
from cavmae.checkpoints.usage import check_same_classes
from cavmae.data import ShardSet, open_shards
from cavmae.distributed import World, joined_world
from cavmae.evaluate.features import (
    BOTH,
    FeatureOptions,
    Features,
    Modality,
    one_feature,
    pooled_features,
)
from cavmae.evaluate.metrics import finite, score
from cavmae.evaluate.trained import load_trained

MEMORY = 2**30  # bytes that the similarities held at a time may take


@dataclass(frozen=True)
class KnnOptions:
    """How neighbours vote."""

    neighbours: int = 20
    temperature: float = 0.07  # a vote's weight is exp(cosine similarity / temperature)


def vote(
    queries: Tensor,
    known: Tensor,
    labels: Tensor,
    options: KnnOptions,
    leave_out: Tensor | None = None,
    memory: int = MEMORY,
) -> Tensor:
    """Class scores from the labels of the nearest known clips.

    Args:
        queries: float32 [Q, dim], l2-normalised.
        known: float32 [N, dim], likewise.
        labels: float32 [N, classes], of the known clips.
        options: how neighbours vote.
        leave_out: int64 [Q], a known clip that is no neighbour of a query: itself.
        memory: bytes.

    Returns:
        float32 [Q, classes]: the share of the votes, by weight, that each class gets.
    """
    scores = queries.new_zeros(len(queries), labels.shape[1])
    rows = max(memory // (4 * (len(known) + options.neighbours * labels.shape[1])), 1)
    for start in range(0, len(queries), rows):
        block = slice(start, start + rows)
        similarity = queries[block] @ known.T  # [rows, N]
        available = len(known)
        if leave_out is not None:
            similarity.scatter_(1, leave_out[block, None], -torch.inf)
            available -= 1
        nearest = similarity.topk(min(options.neighbours, available), dim=1)
        weights = torch.softmax(nearest.values / options.temperature, dim=1)  # [rows, k]
        scores[block] = torch.einsum("qk,qkc->qc", weights, labels[nearest.indices])
    return scores


def run_knn(values: dict[str, Any]) -> None:
    """Classify clips by their neighbours and print how well that goes.

    Raises:
        UserError: shard sets without labels or with different ones.
    """
    trained = load_trained(values["checkpoint"])
    shards = open_shards(values["shards"], values)
    validation = None
    if values["val_shards"]:
        validation = open_shards(values["val_shards"], {**values, "splits": values["val_splits"]})
    elif values["val_splits"]:
        raise UserError("--val-split chooses clips of --val-shards, which is not given.")
    check_label_sets(shards, validation)
    modalities: tuple[Modality, ...] = (
        BOTH if values["modality"] == "both" else (values["modality"],)
    )
    options = KnnOptions(values["neighbours"], values["temperature"])
    reading = FeatureOptions(
        modalities,
        one_feature(values["frames"]),
        values["batch_size"],
        values["workers"],
        values["max_bad_samples"],
    )
    with joined_world(values["device"]) as world:
        trained = trained.to(world.device)
        sets = [shards] if validation is None else [shards, validation]
        share = sum(len(range(world.rank, len(one), world.size)) for one in sets)
        with ProgressBar("knn", "clip", share, shown=world.is_main) as bar:
            known = pooled_features(trained, shards, reading, world, bar.update)
            asked = known
            if validation is not None:
                asked = pooled_features(trained, validation, reading, world, bar.update)
        if not world.is_main:
            return
        scores = neighbour_scores(known, None if validation is None else asked, options, world)
    result = score(scores.double().cpu().numpy(), asked.labels.double().numpy())
    facts = {
        "accuracy": result.accuracy,
        "map": result.map,
        "auc": result.auc,
        "clips": len(asked.index),
        "known_clips": len(known.index),
        "clips_unreadable": known.unreadable + (asked.unreadable if validation else 0),
        "leave_one_out": validation is None,
        "modality": values["modality"],
        "neighbours": options.neighbours,
        "temperature": options.temperature,
        "frames": reading.frames,
        "checkpoint": str(trained.file),
    }
    print(json.dumps(finite(facts)) if values["as_json"] else describe(facts))


def neighbour_scores(
    known: Features, asked: Features | None, options: KnnOptions, world: World
) -> Tensor:
    """Class scores of the clips asked for, or of the known ones by the others: [Q, classes]."""
    vectors = joint_vectors(known).to(world.device)
    labels = known.labels.to(world.device)
    if asked is None:
        own = torch.arange(len(vectors), device=world.device)
        return vote(vectors, vectors, labels, options, own)
    return vote(joint_vectors(asked).to(world.device), vectors, labels, options)


def joint_vectors(features: Features) -> Tensor:
    """float32 [N, dim]: of several modalities, so that cosine similarities are averaged."""
    vectors = list(features.vectors.values())
    return torch.cat(vectors, dim=1) / len(vectors) ** 0.5


def check_label_sets(shards: ShardSet, validation: ShardSet | None) -> None:
    """Raises UserError where labels of one set say nothing about the other."""
    if not sum(shards.class_counts):
        raise UserError(f"{shards.location}: its samples have no labels for neighbours to vote by.")
    if len(shards) < 2:
        raise UserError(f"{shards.location}: one clip alone has no neighbours.")
    if validation is not None and not sum(validation.class_counts):
        raise UserError(f"{validation.location}: its samples have no labels to compare with.")
    if validation is not None:
        check_same_classes(shards, validation)


def describe(facts: dict[str, Any]) -> str:
    """The result for a person."""
    how = "each by all others" if facts["leave_one_out"] else f"by {facts['known_clips']} others"
    return (
        f"accuracy {facts['accuracy']:.4f}   mAP {facts['map']:.4f}   AUC {facts['auc']:.4f}\n"
        f"{facts['clips']} clips, {how}, {facts['neighbours']} neighbours, features: "
        f"{facts['modality']}, {facts['checkpoint']}"
    )
