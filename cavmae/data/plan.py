"""Who reads which sample when. Pure functions of numbers: no I/O, no torch.

The order of an epoch depends on the seed and the epoch alone. A step takes the next samples of
that order and deals them out to the ranks, so that a run can go on with any number of ranks or
workers where another one stopped.

A mixture of sets draws from each of them in proportion to its share. Its epoch is as many draws as
the sets have samples together; a set's own passes go on over the ends of epochs.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

SHUFFLE_WINDOW = 64  # shards that are mixed with one another at a time
_MIXUP_BETA = 10.0


@dataclass(frozen=True)
class EpochPlan:
    """Everything random about an epoch, by place in its order.

    Attributes:
        index: int64 [N], the sample.
        frame: int64 [N], which of its frames.
        partner: int64 [N], the sample to mix in, or -1.
        partner_frame: int64 [N].
        share: float32 [N], the weight λ of the sample itself when mixed.
    """

    index: NDArray[np.int64]
    frame: NDArray[np.int64]
    partner: NDArray[np.int64]
    partner_frame: NDArray[np.int64]
    share: NDArray[np.float32]

    def __len__(self) -> int:
        return len(self.index)


@dataclass(frozen=True)
class Step:
    """The places in an epoch's order that one step takes: [start, stop), over all ranks."""

    start: int
    stop: int

    def places(self, rank: int, world: int) -> NDArray[np.int64]:
        """The places that one rank reads; ranks differ by one sample at most.

        With fewer samples than ranks, some ranks read the same one: no rank may be without.
        """
        size = self.stop - self.start
        if size < world:
            return np.array([self.start + rank % size])
        return np.arange(self.start + rank, self.stop, world)


def plan_epoch(
    order: NDArray[np.int64],
    total: int,
    frames: int,
    seed: int,
    epoch: int,
    mixup: float = 0.0,
) -> EpochPlan:
    """Draw frames and mixup partners for an order.

    Args:
        order: int64 [N], samples.
        total: samples in the shard set; partners are uniform over these.
        frames: stored frames of a sample.
        seed: of the run.
        epoch: from 0.
        mixup: share of places that get a partner.
    """
    rng = np.random.default_rng([seed, epoch, 1])
    count = len(order)
    frame = rng.integers(frames, size=count)
    partner = rng.integers(total, size=count)
    partner = np.where(rng.random(count) < mixup, partner, -1)
    partner_frame = rng.integers(frames, size=count)
    share = rng.beta(_MIXUP_BETA, _MIXUP_BETA, size=count).astype(np.float32)
    return EpochPlan(order, frame, partner, partner_frame, share)


def shuffled_order(
    shard_sizes: Sequence[int], seed: int, epoch: int, window: int = SHUFFLE_WINDOW
) -> NDArray[np.int64]:
    """Every sample once: shards in random order, samples mixed across `window` of them at a time.

    Readers keep at most `window` shards open; with fewer shards than that, the mixing is perfect.

    Returns:
        int64 [N], sample numbers counted through the shards in their stored order.
    """
    rng = np.random.default_rng([seed, epoch, 0])
    starts = np.concatenate([[0], np.cumsum(shard_sizes, dtype=np.int64)])
    shards = rng.permutation(len(shard_sizes))
    pieces = []
    for first in range(0, len(shards), window):
        members = [
            np.arange(starts[shard], starts[shard + 1]) for shard in shards[first : first + window]
        ]
        pieces.append(rng.permutation(np.concatenate(members)))
    return np.concatenate(pieces) if pieces else np.empty(0, np.int64)


def balanced_order(weights: NDArray[np.float64], seed: int, epoch: int) -> NDArray[np.int64]:
    """As many draws as samples, with replacement, each sample as likely as its weight.

    Args:
        weights: float64 [N], not all zero.
        seed: of the run.
        epoch: from 0.
    """
    rng = np.random.default_rng([seed, epoch, 0])
    return rng.choice(len(weights), size=len(weights), p=weights / weights.sum())


def draws_before(place: int, shares: NDArray[np.float64]) -> NDArray[np.int64]:
    """How many of the first draws of a mixture each set has had: within a few of its share.

    Draw j of a set with share s is due at (j + 1/2) / s, and draws come in the order they are due.

    Args:
        place: how many draws, over all epochs.
        shares: float64 [sets], above 0, of sum 1.

    Returns:
        int64 [sets], of sum `place`; none falls as `place` grows.
    """
    # These many are surely among the first; the few others come one by one.
    counts = np.maximum(np.floor(shares * (place - len(shares))) - 1, 0).astype(np.int64)
    for _ in range(place - int(counts.sum())):
        counts[np.argmin((counts + 0.5) / shares)] += 1
    return counts


def mixed_order(
    sizes: Sequence[int],
    shares: NDArray[np.float64],
    seed: int,
    epoch: int,
    pass_order: Callable[[int, int], NDArray[np.int64]],
) -> NDArray[np.int64]:
    """An epoch of a mixture; within each pass of a set come all samples of its `pass_order`.

    Args:
        sizes: samples of each set.
        shares: float64 [sets], above 0, of sum 1.
        seed: of the run.
        epoch: from 0.
        pass_order: (set, pass from 0) → int64 [its size], samples counted in the set.

    Returns:
        int64 [sum of the sizes], samples counted through the sets.
    """
    total = sum(sizes)
    first, last = (draws_before(total * number, shares) for number in (epoch, epoch + 1))
    due, samples = [], []
    rng = np.random.default_rng([seed, epoch, 2])
    for number, size in enumerate(sizes):
        begin, end = int(first[number]), int(last[number])
        # Sets that took turns exactly would meet the ranks' turns: each rank would see one set.
        due.append((np.arange(begin, end) + rng.random(end - begin)) / shares[number])
        passes = range(begin // size, -(-end // size))
        drawn = np.concatenate(
            [*(pass_order(number, one) for one in passes), np.empty(0, np.int64)]
        )
        offset = passes.start * size
        samples.append(drawn[begin - offset : end - offset] + sum(sizes[:number]))
    order = np.concatenate(samples)
    return order[np.argsort(np.concatenate(due), kind="stable")]


def steps(total: int, batch: int, world: int, start: int = 0) -> Iterator[Step]:
    """Cut the places [start, total) into steps of `batch` samples per rank.

    Every place is in exactly one step, and every rank gets as many batches. The last step is
    shorter; where it would leave a rank without a sample, the one before takes its samples. A run
    that continues with more ranks than the epoch has samples left has one step, see `Step.places`.
    """
    size = batch * world
    while start < total:
        stop = start + size
        if total - stop < world:
            stop = total
        yield Step(start, stop)
        start = stop


def step_count(total: int, batch: int, world: int) -> int:
    """Number of steps of an epoch."""
    full, rest = divmod(total, batch * world)
    return full + (rest >= world or (rest > 0 and not full))
