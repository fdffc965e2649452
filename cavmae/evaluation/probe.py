"""`cavmae probe`: how much of the classes do models' features know, beside untrained ones?"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from avprep.errors import UserError
from avprep.progress import OnProgress, ignore
from cavmae.data import ShardSet, open_shards
from cavmae.distributed import World, joined_world
from cavmae.evaluation.clips import share_counter
from cavmae.evaluation.features import Features, pooled_features
from cavmae.evaluation.knn import check_label_sets, joint_vectors, neighbour_scores
from cavmae.evaluation.metrics import Scores, score
from cavmae.evaluation.options import LinearOptions, ProbeOptions
from cavmae.evaluation.trained import Trained, load_trained
from cavmae.model import CAVMAEClassifier

Scale = Callable[[Tensor], Tensor]  # float32 [N, dim] features → float64 [N, dim]
_SHARE_OF_NOISE = 0.03  # of the largest variance


@dataclass(frozen=True)
class Probed:
    """What the features of one model know.

    Attributes:
        checkpoint: the file of weights; of a random start, that of the model it belongs to.
        is_random: whether these are the weights before training.
        label_split: that the labels are of; None for all labels.
        known_clips: whose labels were known.
        linear: a linear classifier's scores.
        neighbours: the votes of nearest neighbours.
    """

    checkpoint: Path
    is_random: bool
    label_split: str | None
    known_clips: int
    linear: Scores
    neighbours: Scores


@dataclass(frozen=True)
class ProbeResult:
    """The probes of several models.

    Attributes:
        rows: each model, and random weights after the last model of each size; each once with
            all labels, and once with those of each split asked for.
        is_multi_label: whether clips have several labels; then mAP is the figure to compare.
        clips: number of clips classified.
        known_clips: number of clips that the probes are fitted to, labelled or not.
        clips_unreadable: number of clips of both sets left out because they cannot be read.
        clips_lacking: number of clips of both sets left out because they lack a modality.
    """

    rows: tuple[Probed, ...]
    is_multi_label: bool
    clips: int
    known_clips: int
    clips_unreadable: int
    clips_lacking: int


def probe(
    checkpoints: Sequence[str | Path], options: ProbeOptions, on_progress: OnProgress = ignore
) -> ProbeResult:
    """Classify clips by the features of each model. On several ranks, they share the clips.

    Args:
        checkpoints: runs or checkpoint files.
        options: on which clips, and how.
        on_progress: called with progress: the clips done, of both sets and all models.

    Returns:
        The whole result, on every rank.

    Raises:
        UserError: no checkpoint, an unknown split, shard sets without labels or with
            different ones.
        WorkFailed: too many clips cannot be read.
    """
    if not checkpoints:
        raise UserError("give at least one run or checkpoint file.")
    models = [(load_trained(checkpoint), False) for checkpoint in checkpoints]
    models += [(one, True) for one in random_starts([one for one, _ in models], options.seed)]
    selected = replace(options, splits=options.val_splits, select=options.val_select)
    known = open_shards(options.shards, options, options.modalities)
    asked = open_shards(options.val_shards, selected, options.modalities)
    check_label_sets(known, asked)
    for split in options.label_splits:
        check_label_sets(known.select(splits=[split]), asked)
    with joined_world(options.device, options.batch_size) as world:
        count = share_counter(on_progress, world, *[known, asked] * len(models))
        found = [
            _probed(trained.to(world.device), is_random, (known, asked), options, world, count)
            for trained, is_random in models
        ]
    _, labels, sizes, unreadable = found[0]
    return ProbeResult(
        rows=tuple(row for rows, *_ in found for row in rows),
        is_multi_label=is_multi_label(labels),
        clips=sizes[1],
        known_clips=sizes[0],
        clips_unreadable=unreadable,
        clips_lacking=known.lacking + asked.lacking,
    )


def random_starts(models: Sequence[Trained], seed: int) -> list[Trained]:
    """The first model of each kind and size, with the weights that training begins with."""
    fresh: dict[object, Trained] = {}
    for trained in models:
        model = trained.model
        kind = type(model), model.config
        if kind in fresh:
            continue
        with torch.random.fork_rng(devices=()):
            torch.manual_seed(seed)
            made = (
                CAVMAEClassifier(model.config, model.num_classes)
                if isinstance(model, CAVMAEClassifier)
                else type(model)(model.config)
            )
        fresh[kind] = replace(trained, model=made.eval())
    return list(fresh.values())


def _probed(
    trained: Trained,
    is_random: bool,
    sets: tuple[ShardSet, ShardSet],
    options: ProbeOptions,
    world: World,
    count: Callable[[int], object],
) -> tuple[list[Probed], Tensor, tuple[int, int], int]:
    known, asked = (pooled_features(trained, one, options, world, count) for one in sets)
    truth = asked.labels.double().numpy()
    vectors, asked_vectors = (joint_vectors(one).to(world.device) for one in (known, asked))
    whiten = whitening(vectors) if options.label_splits else None
    rows = []
    for split in (None, *options.label_splits):
        used = known if split is None else of_split(split, sets[0], known)
        linear = linear_scores(
            joint_vectors(used).to(world.device),
            used.labels.to(world.device),
            asked_vectors,
            options,
            whiten if split is not None else None,
        )
        votes = neighbour_scores(used, asked, options, world)
        rows.append(
            Probed(
                trained.file,
                is_random,
                split,
                len(used.index),
                score(linear.cpu().numpy(), truth),
                score(votes.double().cpu().numpy(), truth),
            )
        )
    return (
        rows,
        known.labels,
        (len(known.index), len(asked.index)),
        known.unreadable + asked.unreadable,
    )


def of_split(split: str, shards: ShardSet, features: Features) -> Features:
    """Features of the clips of one split.

    Args:
        split: as the manifest names it.
        shards: that the features are of.
        features: of some of its clips.
    """
    splits = (shards.entry(number).split for number in features.index.tolist())
    inside = torch.tensor([one == split for one in splits])
    return replace(
        features,
        index=features.index[inside],
        vectors={name: vectors[inside] for name, vectors in features.vectors.items()},
        labels=features.labels[inside],
    )


def is_multi_label(labels: Tensor) -> bool:
    """Whether any clip has more than one label: float32 [N, classes]."""
    return bool((labels.sum(dim=1) > 1).any())


def standardising(known: Tensor) -> Scale:
    """Takes out the mean of each of the features, and divides by the deviation."""
    mean, deviation = known.mean(dim=0), known.std(dim=0, unbiased=False).clamp(min=1e-6)
    return lambda vectors: (vectors - mean).double() / deviation


def whitening(known: Tensor) -> Scale:
    """Makes clips vary alike in every direction. Where labels are few, a trait in which clips of a
    class differ a lot (how light, how loud) else outweighs the class.

    Args:
        known: float32 [N, dim], with labels or without.
    """
    mean = known.mean(dim=0)
    centred = (known - mean).double()
    variances, directions = torch.linalg.eigh(centred.T @ centred / len(known))
    # Directions in which hardly anything varies are noise, and stay small.
    deviations = (variances.clamp(min=0) + _SHARE_OF_NOISE * variances[-1]).sqrt()
    change = directions / deviations @ directions.T
    return lambda vectors: (vectors - mean).double() @ change


def linear_scores(
    known: Tensor,
    labels: Tensor,
    asked: Tensor,
    options: LinearOptions,
    scale: Scale | None = None,
) -> Tensor:
    """Class scores from a linear classifier, fitted to all labelled clips at once.

    Nothing is random: the weights start at zero, and the best ones are unique where there is a
    penalty. Several labels per clip are learned one by one (sigmoid), else one of all (softmax).

    Args:
        known: float32 [N, dim], features.
        labels: float32 [N, classes], of the known clips.
        asked: float32 [Q, dim], features of the clips to classify.
        options: penalty and number of steps.
        scale: of the features; None standardises them by those of labelled clips.

    Returns:
        float64 [Q, classes]: logits.
    """
    labelled = labels.any(dim=1)
    known, labels = known[labelled], labels[labelled]
    scale = scale or standardising(known)
    # In float64, so that the best weights are found to more digits than features have.
    known, asked = scale(known), scale(asked)
    labels = labels.double()
    weight = known.new_zeros(labels.shape[1], known.shape[1], requires_grad=True)
    bias = known.new_zeros(labels.shape[1], requires_grad=True)
    several = is_multi_label(labels)
    optimizer = torch.optim.LBFGS(
        [weight, bias],
        max_iter=options.steps,
        tolerance_grad=1e-6,
        tolerance_change=0,
        line_search_fn="strong_wolfe",
    )

    def loss() -> Tensor:
        optimizer.zero_grad()
        logits = F.linear(known, weight, bias)
        if several:
            error = F.binary_cross_entropy_with_logits(logits, labels, reduction="none")
            fit = error.sum(dim=1).mean()
        else:
            fit = F.cross_entropy(logits, labels)
        total = fit + options.penalty / 2 * weight.square().sum()
        total.backward()
        return total

    optimizer.step(loss)
    return F.linear(asked, weight, bias).detach()
