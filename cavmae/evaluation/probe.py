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
from cavmae.evaluation.features import pooled_features
from cavmae.evaluation.knn import check_label_sets, joint_vectors, neighbour_scores
from cavmae.evaluation.metrics import Scores, score
from cavmae.evaluation.options import LinearOptions, ProbeOptions
from cavmae.evaluation.trained import Trained, load_trained
from cavmae.model import CAVMAEClassifier


@dataclass(frozen=True)
class Probed:
    """What the features of one model know.

    Attributes:
        checkpoint: the file of weights; of a random start, that of the model it belongs to.
        is_random: whether these are the weights before training.
        linear: a linear classifier's scores.
        neighbours: the votes of nearest neighbours.
    """

    checkpoint: Path
    is_random: bool
    linear: Scores
    neighbours: Scores


@dataclass(frozen=True)
class ProbeResult:
    """What the features of several models know.

    Attributes:
        rows: each model, and the random start of each size of model behind the last one of it.
        is_multi_label: whether clips have several labels, so that mAP is what counts.
        clips: that were classified.
        known_clips: whose labels were known.
        clips_unreadable: left out, of both.
        clips_lacking: left out, of both, because they lack a modality.
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
        on_progress: hears of the clips done, of both sets and all models.

    Returns:
        The whole result, on every rank.

    Raises:
        UserError: no checkpoint, shard sets without labels or with different ones.
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
    with joined_world(options.device) as world:
        count = share_counter(on_progress, world, *[known, asked] * len(models))
        found = [
            _probed(trained.to(world.device), is_random, (known, asked), options, world, count)
            for trained, is_random in models
        ]
    _, labels, sizes, unreadable = found[0]
    return ProbeResult(
        rows=tuple(row for row, *_ in found),
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
) -> tuple[Probed, Tensor, tuple[int, int], int]:
    known, asked = (pooled_features(trained, one, options, world, count) for one in sets)
    truth = asked.labels.double().numpy()
    vectors = [joint_vectors(one).to(world.device) for one in (known, asked)]
    linear = linear_scores(vectors[0], known.labels.to(world.device), vectors[1], options)
    votes = neighbour_scores(known, asked, options, world)
    return (
        Probed(
            trained.file,
            is_random,
            score(linear.cpu().numpy(), truth),
            score(votes.double().cpu().numpy(), truth),
        ),
        known.labels,
        (len(known.index), len(asked.index)),
        known.unreadable + asked.unreadable,
    )


def is_multi_label(labels: Tensor) -> bool:
    """Whether any clip has more than one label: float32 [N, classes]."""
    return bool((labels.sum(dim=1) > 1).any())


def linear_scores(known: Tensor, labels: Tensor, asked: Tensor, options: LinearOptions) -> Tensor:
    """Class scores from a linear classifier, fitted to all labelled clips at once.

    Nothing is random: the weights start at zero, and the best ones are unique where there is a
    penalty. Several labels per clip are learned one by one (sigmoid), else one of all (softmax).

    Args:
        known: float32 [N, dim], features.
        labels: float32 [N, classes], of the known clips.
        asked: float32 [Q, dim], features of the clips to classify.
        options: penalty and number of steps.

    Returns:
        float64 [Q, classes]: logits.
    """
    labelled = labels.any(dim=1)
    known, labels = known[labelled], labels[labelled]
    mean, deviation = known.mean(dim=0), known.std(dim=0, unbiased=False).clamp(min=1e-6)
    # In float64, so that the best weights are found to more digits than features have.
    known, asked = ((each - mean).double() / deviation for each in (known, asked))
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
