"""How sure a figure is: what it would have been on other clips of the same kind.

Clips are drawn with replacement, as many as there are. A draw is a weight for each clip, how often
it was drawn, so that every figure of a thousand draws comes from a few products of matrices.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

LEVEL = 0.95
MEMORY = 2**28  # bytes that the weights held at a time may take

Figures = dict[str, Tensor]  # by name, float64 [draws]


@dataclass(frozen=True)
class Interval:
    """Where a figure lies in 95 % of the draws."""

    low: float
    high: float


def draw(
    clips: int,
    count: int,
    seed: int,
    figures_of: Callable[[Tensor], Figures],
    memory: int = MEMORY,
) -> Figures:
    """Figures of many draws of clips.

    Args:
        clips: to draw from, and per draw.
        count: of draws.
        seed: the same draws for the same number of clips.
        figures_of: from weights, float32 [clips, draws], to figures by name.
        memory: bytes.
    """
    random = np.random.default_rng(seed)
    at_once = max(memory // (4 * max(clips, 1)), 1)
    parts = []
    for start in range(0, count, at_once):
        rows = min(at_once, count - start)
        drawn = random.integers(0, clips, (rows, clips)) + clips * np.arange(rows)[:, None]
        weights = np.bincount(drawn.reshape(-1), minlength=rows * clips).reshape(rows, clips)
        parts.append(figures_of(torch.from_numpy(weights.astype(np.float32).T.copy())))
    return {name: torch.cat([part[name] for part in parts]) for name in parts[0]}


def interval(values: Tensor) -> Interval:
    """The middle 95 % of the draws that have a value; nan where none has."""
    known = values[~values.isnan()].numpy()
    if not len(known):
        return Interval(float("nan"), float("nan"))
    low, high = np.quantile(known, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return Interval(float(low), float(high))


def intervals(figures: Figures) -> dict[str, Interval]:
    """The interval of each figure."""
    return {name: interval(values) for name, values in figures.items()}


def score_intervals(
    scores: NDArray[np.float64], labels: NDArray[np.floating], count: int, seed: int
) -> dict[str, Interval]:
    """Intervals of accuracy and mAP, which `metrics.score` computes of the clips themselves."""
    truth = labels > 0
    return intervals(draw(len(scores), count, seed, lambda w: drawn_figures(scores, truth, w)))


def drawn_figures(
    scores: NDArray[np.float64], truth: NDArray[np.bool_], weights: Tensor
) -> Figures:
    """Accuracy and mAP of draws of clips.

    Args:
        scores: [clips, classes].
        truth: [clips, classes].
        weights: float32 [clips, draws], how often each clip was drawn.
    """
    return {
        "accuracy": _accuracy(scores, truth, weights),
        "map": _mean_average_precision(scores, truth, weights),
    }


def mean_figure(values: NDArray[np.float64], weights: Tensor) -> Tensor:
    """float64 [draws]: the mean over the clips drawn of a value per clip."""
    drawn = weights.double()
    return (torch.from_numpy(values) @ drawn) / drawn.sum(dim=0)


def _accuracy(scores: NDArray[np.float64], truth: NDArray[np.bool_], weights: Tensor) -> Tensor:
    labelled = np.flatnonzero(truth.any(axis=1))
    hits = truth[labelled, scores[labelled].argmax(axis=1)]
    return mean_figure(hits.astype(np.float64), weights[labelled])


def _mean_average_precision(
    scores: NDArray[np.float64], truth: NDArray[np.bool_], weights: Tensor
) -> Tensor:
    """A class of which no clip was drawn is left out of that draw's mean."""
    draws = weights.shape[1]
    total, known = torch.zeros(draws).double(), torch.zeros(draws).double()
    for own, positive in zip(scores.T, truth.T, strict=True):
        if not positive.any():
            continue
        # Precision is asked for at the score of each positive clip, so clips are counted by the
        # highest of these scores that they reach; the last group reaches none.
        steps = np.unique(own[positive])
        group = torch.from_numpy(len(steps) - np.searchsorted(steps, own, side="right"))
        chosen = torch.from_numpy(positive)
        counted = weights.new_zeros(len(steps) + 1, draws).index_add_(0, group, weights)
        hits = weights.new_zeros(len(steps), draws)
        hits = hits.index_add_(0, group[chosen], weights[chosen]).double()
        reached = counted[:-1].double().cumsum(dim=0)
        found = hits.cumsum(dim=0)
        precision = (hits * found / reached.clamp(min=1)).sum(dim=0) / found[-1]
        total += precision.nan_to_num(0.0)
        known += found[-1] > 0
    return total / known
