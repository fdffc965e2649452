"""How good scores are: accuracy, mAP, AUC, d′. Pure functions of arrays."""

from __future__ import annotations

import math
from dataclasses import dataclass
from statistics import NormalDist
from typing import Any

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class ClassScore:
    """One class's share in the means; nan where it has no positive (or no negative) clip."""

    positives: int
    average_precision: float
    auc: float


@dataclass(frozen=True)
class Scores:
    """A classifier's results.

    Attributes:
        accuracy: share of clips whose highest score is one of their labels.
        map: mean over classes of average precision.
        auc: mean over classes of the area under the ROC curve.
        d_prime: √2 · Φ⁻¹(auc).
        classes: one entry per class.
        left_out: classes without a positive clip, which no mean includes.
    """

    accuracy: float
    map: float
    auc: float
    d_prime: float
    classes: tuple[ClassScore, ...]
    left_out: int


def score(scores: NDArray[np.float64], labels: NDArray[np.float64]) -> Scores:
    """Compare scores with labels.

    Args:
        scores: [clips, classes], higher is more likely.
        labels: [clips, classes], 1 for each of a clip's labels; clips without one count in no
            metric but as negatives.
    """
    truth = labels > 0
    classes = tuple(_score_class(scores[:, k], truth[:, k]) for k in range(truth.shape[1]))
    auc = _mean([one.auc for one in classes])
    return Scores(
        accuracy=accuracy(scores, labels),
        map=_mean([one.average_precision for one in classes]),
        auc=auc,
        d_prime=d_prime(auc),
        classes=classes,
        left_out=sum(one.positives == 0 for one in classes),
    )


def accuracy(scores: NDArray[np.floating], labels: NDArray[np.floating]) -> float:
    """Share of the labelled clips whose highest score is one of their labels; nan of none.

    Args:
        scores: [clips, classes].
        labels: [clips, classes], 1 for each of a clip's labels.
    """
    truth = labels > 0
    hits = truth[np.arange(len(truth)), scores.argmax(axis=1)][truth.any(axis=1)]
    return float(hits.mean()) if len(hits) else float("nan")


def d_prime(auc: float) -> float:
    """√2 · Φ⁻¹(AUC); infinite at 0 and 1, nan of nan."""
    if auc in (0, 1):
        return float("inf") if auc else float("-inf")
    if auc != auc:
        return auc
    return 2**0.5 * NormalDist().inv_cdf(auc)


def _score_class(scores: NDArray[np.float64], truth: NDArray[np.bool_]) -> ClassScore:
    """Clips with equal scores are one step of the curves, as scikit-learn has it."""
    positives, negatives = np.sort(scores[truth]), np.sort(scores[~truth])
    count = len(positives)
    if count == 0:
        return ClassScore(0, float("nan"), float("nan"))
    found = count - np.searchsorted(positives, positives)
    below = np.searchsorted(negatives, positives)
    precision = found / (found + len(negatives) - below)
    auc = float("nan")
    if len(negatives):
        above = len(negatives) - np.searchsorted(negatives, positives, side="right")
        auc = float((below - above).mean() / len(negatives) + 1) / 2
    return ClassScore(count, float(precision.mean()), auc)


def _mean(values: list[float]) -> float:
    known = [value for value in values if not np.isnan(value)]
    return float(np.mean(known)) if known else float("nan")


def finite(value: Any) -> Any:
    """JSON has no nan: null stands for a metric that could not be computed."""
    if isinstance(value, dict):
        return {name: finite(part) for name, part in value.items()}
    if isinstance(value, list):
        return [finite(part) for part in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
