"""Counts of numbers in even bins with round edges."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

_BINS = 30
_TAIL = 99.5  # percent; what is longer is counted in the last bin


@dataclass(frozen=True)
class Histogram:
    """Bin n counts values from `edges[n]` up to, but not including, `edges[n + 1]`.

    The last bin also counts all greater values, up to `greatest`.
    """

    edges: tuple[float, ...]
    counts: tuple[int, ...]
    greatest: float

    @property
    def has_tail(self) -> bool:
        """Whether values lie beyond the last edge."""
        return self.greatest >= self.edges[-1]


def histogram(values: NDArray[np.float64], finest: float) -> Histogram | None:
    """Count positive numbers in about thirty bins, not narrower than `finest`.

    Returns:
        None if there are no numbers.
    """
    if not len(values):
        return None
    lowest, tail = float(values.min()), float(np.percentile(values, _TAIL, method="higher"))
    width = round_up(max(finest, (tail - lowest) / _BINS))
    first = math.floor(lowest / width + 1e-6)
    last = math.floor(tail / width + 1e-6)
    # The same tolerance for each: 0.3 is not below 3 × 0.1.
    positions = np.floor(values / width + 1e-6).astype(np.int64)
    counts = np.bincount(np.minimum(positions, last) - first, minlength=last - first + 1)
    digits = max(0, -math.floor(math.log10(width)))
    edges = tuple(round(number * width, digits) for number in range(first, last + 2))
    return Histogram(edges, tuple(counts.tolist()), float(values.max()))


def round_up(width: float) -> float:
    """The least of …, 0.1, 0.2, 0.5, 1, 2, 5, … that is not less than a positive number."""
    power = 10.0 ** math.floor(math.log10(width))
    step = next(step for step in (1, 2, 5, 10) if step * power >= width * (1 - 1e-9))
    return step * power
