"""`cavmae knn`: the labels of a clip's nearest neighbours, a quick look at a pretrained model."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor

from avprep.errors import UserError
from avprep.progress import OnProgress, ignore
from cavmae.checkpoints.usage import check_same_classes
from cavmae.data import ShardSet, open_shards
from cavmae.distributed import World, joined_world
from cavmae.evaluation.clips import share_counter
from cavmae.evaluation.features import Features, pooled_features
from cavmae.evaluation.metrics import Scores, score
from cavmae.evaluation.options import KnnOptions, VoteOptions
from cavmae.evaluation.trained import load_trained

MEMORY = 2**30  # bytes that the similarities held at a time may take


@dataclass(frozen=True)
class KnnResult:
    """The figures of a nearest-neighbour classifier.

    Attributes:
        scores: of the votes, scored like probabilities in `evaluate`.
        clips: number of clips classified.
        known_clips: number of clips whose labels were known.
        clips_unreadable: number of clips of both sets left out because they cannot be read.
        clips_lacking: number of clips of both sets left out because they lack a modality.
        leave_one_out: whether each clip was classified by all others of the same set.
        checkpoint: the file of weights.
    """

    scores: Scores
    clips: int
    known_clips: int
    clips_unreadable: int
    clips_lacking: int
    leave_one_out: bool
    checkpoint: Path


def vote(
    queries: Tensor,
    known: Tensor,
    labels: Tensor,
    options: VoteOptions,
    leave_out: Tensor | None = None,
    memory: int = MEMORY,
) -> Tensor:
    """Class scores from the labels of the nearest known clips.

    Args:
        queries: float32 [Q, dim], l2-normalised.
        known: float32 [N, dim], likewise.
        labels: float32 [N, classes], of the known clips.
        options: how neighbours vote.
        leave_out: int64 [Q], a known clip that is not a neighbour of a query: itself.
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


def knn(options: KnnOptions, on_progress: OnProgress = ignore) -> KnnResult:
    """Classify clips by their nearest neighbours. Started on several ranks, they share the clips.

    Args:
        options: which model, on which clips, and how neighbours vote.
        on_progress: called with progress: the clips done, of both sets.

    Returns:
        The whole result, on every rank.

    Raises:
        UserError: shard sets without labels or with different ones.
        WorkFailed: too many clips cannot be read.
    """
    trained = load_trained(options.checkpoint)
    sets = [open_shards(options.shards, options, options.modalities)]
    if options.val_shards is not None:
        selected = replace(options, splits=options.val_splits, select=options.val_select)
        sets.append(open_shards(options.val_shards, selected, options.modalities))
    check_label_sets(*sets)
    with joined_world(options.device, options.batch_size) as world:
        trained = trained.to(world.device)
        count = share_counter(on_progress, world, *sets)
        features = [pooled_features(trained, one, options, world, count) for one in sets]
        known, asked = features[0], features[-1]
        scores = neighbour_scores(known, asked if len(sets) > 1 else None, options, world)
    return KnnResult(
        score(scores.double().cpu().numpy(), asked.labels.double().numpy()),
        clips=len(asked.index),
        known_clips=len(known.index),
        clips_unreadable=sum(one.unreadable for one in features),
        clips_lacking=sum(one.lacking for one in sets),
        leave_one_out=len(sets) == 1,
        checkpoint=trained.file,
    )


def neighbour_scores(
    known: Features, asked: Features | None, options: VoteOptions, world: World
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


def check_label_sets(shards: ShardSet, validation: ShardSet | None = None) -> None:
    """Raises UserError where labels of one set say nothing about the other."""
    if not sum(shards.class_counts):
        raise UserError(f"{shards.location}: its samples have no labels for neighbours to vote by.")
    if len(shards) < 2:
        raise UserError(f"{shards.location}: one clip alone has no neighbours.")
    if validation is not None:
        if not sum(validation.class_counts):
            raise UserError(f"{validation.location}: its samples have no labels to compare with.")
        check_same_classes(shards, validation)
