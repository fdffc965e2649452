"""Where the right answer stands among all answers sorted by similarity. Pure functions.

Answers that are as similar as the right one are a tie, and a tie is broken at random: every figure
here is the expectation over all ways to break it. A model that gives every clip the same features
thus scores as chance does, whatever the order of the clips.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

RECALLS = (1, 5, 10)  # the ranks k of R@k that are shown
MEMORY = 2**30  # bytes that the similarities held at a time may take

# Similarities of unit vectors in float32 differ by less than this for no reason but rounding.
TOLERANCE = 1e-6


@dataclass(frozen=True)
class Ranks:
    """Where each query's right answer stands.

    Attributes:
        better: int64 [N], answers more similar than the right one.
        tied: int64 [N], answers as similar as the right one, itself included.
    """

    better: NDArray[np.int64]
    tied: NDArray[np.int64]

    def expected(self) -> NDArray[np.float64]:
        """float64 [N]: the expected rank, from 1."""
        return self.better + (self.tied + 1) / 2

    def found(self, k: int) -> NDArray[np.float64]:
        """float64 [N]: the probability that the right answer is among the first k."""
        return np.clip(k - self.better, 0, self.tied) / self.tied

    def recall(self, k: int) -> float:
        """The expected share of queries whose right answer is among the first k."""
        return float(self.found(k).mean())

    def median(self) -> float:
        """Median of the expected ranks."""
        return float(np.median(self.expected()))


def chance(clips: int) -> Ranks:
    """What a model scores that finds all of this many answers equally similar."""
    return Ranks(np.array([0]), np.array([max(clips, 1)]))


def rank_pairs(audio: Tensor, image: Tensor, memory: int = MEMORY) -> tuple[Ranks, Ranks]:
    """Rank every clip's other half among those of all clips, in both directions.

    All similarities come from one matrix product if they fit `memory`, else from one per block of
    rows; each serves both directions.

    Args:
        audio: float32 [N, dim], l2-normalised.
        image: float32 [N, dim], likewise; row i belongs to row i of `audio`.
        memory: bytes.

    Returns:
        Audio queries that look for their image, and image queries that look for their audio.
    """
    count = len(audio)
    truth = (audio * image).sum(dim=1)  # [N]
    to_image = torch.zeros(2, count, dtype=torch.int64, device=audio.device)  # better, tied
    to_audio = torch.zeros_like(to_image)
    rows = max(memory // (4 * max(count, 1)), 1)
    for start in range(0, count, rows):
        block = slice(start, min(start + rows, count))
        similarity = audio[block] @ image.T  # [rows, N]
        # Rounded differently than `truth` in the last digit; the right answer is as good as itself.
        similarity[torch.arange(len(similarity)), torch.arange(block.start, block.stop)] = truth[
            block
        ]
        for found, reference, axis in (
            (to_image[:, block], truth[block, None], 1),
            (to_audio, truth[None, :], 0),
        ):
            better = (similarity > reference + TOLERANCE).sum(dim=axis)
            found[0] += better
            found[1] += (similarity >= reference - TOLERANCE).sum(dim=axis) - better
    return _ranks(to_image), _ranks(to_audio)


def _ranks(counts: Tensor) -> Ranks:
    better, tied = counts.cpu().numpy()
    return Ranks(better, tied)


def top_matches(queries: Tensor, answers: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """The most similar answers of each query, the best first.

    Args:
        queries: float32 [Q, dim], l2-normalised.
        answers: float32 [N, dim], likewise.
        count: of answers, at most N are there.

    Returns:
        (similarities float32 [Q, k], positions int64 [Q, k]).
    """
    best = (queries @ answers.T).topk(min(count, len(answers)), dim=1)
    return best.values, best.indices
