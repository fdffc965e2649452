"""The host runs one step ahead of the device, so that the device never waits for it.

While the device works on a step, the next batches are copied to it, the ranks agree on what to do
next, and the losses of the previous step are read.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from contextlib import nullcontext
from dataclasses import dataclass

import torch
from torch import Tensor

from avprep.errors import WorkFailed
from cavmae.data import Batch
from cavmae.distributed import World

_SMALLEST_SCALE = 2.0**-16  # of the loss in fp16; it starts at 2 ** 16


@dataclass
class Share:
    """What this rank does in a step.

    Attributes:
        batches: on the device, or on their way to it; empty at the end of an epoch.
        lost: why the next one could not be read.
        copied: when they have arrived; None where nothing is copied.
    """

    batches: list[Batch]
    lost: WorkFailed | None = None
    copied: torch.cuda.Event | None = None

    def batches_on_device(self) -> list[Batch]:
        """The batches. Work that the device is given from now on begins when they have arrived."""
        if self.copied is not None:
            stream = torch.cuda.current_stream(self.batches[0].index.device)
            stream.wait_event(self.copied)
            for batch in self.batches:
                batch.record_stream(stream)
        return self.batches


class StepFeed:
    """The shares of an epoch's steps."""

    def __init__(self, batches: Iterator[Batch], accumulate: int, device: torch.device) -> None:
        """Args:
        batches: of this rank, in memory that the device can read by itself.
        accumulate: batches per step.
        device: where they go.
        """
        self._batches = batches
        self._accumulate = accumulate
        self._device = device
        self._stream = torch.cuda.Stream(device) if device.type == "cuda" else None

    def read(self) -> Share:
        """Read the batches of the next step and begin to copy them."""
        share = Share([])
        try:
            while len(share.batches) < self._accumulate:
                batch = next(self._batches, None)
                if batch is None:
                    break
                with torch.cuda.stream(self._stream) if self._stream else nullcontext():
                    share.batches.append(batch.to(self._device))
        except WorkFailed as error:
            share.lost = error
        if self._stream is not None:
            share.copied = self._stream.record_event()
        return share


@dataclass(frozen=True)
class Verdict:
    """What the ranks told each other before a step; equal on all of them.

    Attributes:
        sizes: samples of each batch, by rank and by place in the step.
        is_lost: a rank has no batch.
        is_stopped: a rank was told to stop.
        is_due: it is time to save.
        has_failed: a loss that a rank has read is not finite.
        is_unsaved: a checkpoint could not be written.
    """

    sizes: list[list[int]]
    is_lost: bool
    is_stopped: bool
    is_due: bool
    has_failed: bool
    is_unsaved: bool

    @property
    def samples(self) -> int:
        """In the step, over all ranks."""
        return sum(map(sum, self.sizes))


def agree(
    world: World,
    share: Share,
    accumulate: int,
    *,
    is_stopped: bool,
    is_due: bool,
    has_failed: bool,
    is_unsaved: bool,
) -> Verdict:
    """Tell the other ranks what this one has for the next step, and learn what they have."""
    sizes = [len(batch) for batch in share.batches]
    sizes += [0] * (accumulate - len(sizes))
    flags = [share.lost is not None, is_stopped, is_due, has_failed, is_unsaved]
    found = world.exchange([*map(float, sizes), *map(float, flags)])
    told = [any(column) for column in zip(*(row[accumulate:] for row in found), strict=True)]
    return Verdict([list(map(int, row[:accumulate])) for row in found], *told)


class LaunchedStep:
    """A step that the device was given. Its losses can be read when the device has finished it.

    Attributes:
        number: of the step, counted from 1.
        batches: this rank's.
    """

    def __init__(
        self, number: int, batches: list[Batch], values: Mapping[str, Tensor], rate: float
    ) -> None:
        """Args:
        number: see above.
        batches: see above.
        values: scalars on the device; `scale` is that of the loss in fp16.
        rate: of learning.
        """
        self.number = number
        self.batches = batches
        self._rate = rate
        self._names = list(values)
        stacked = torch.stack([value.detach().float() for value in values.values()])
        self._values = stacked.to("cpu", non_blocking=True)
        self._read: torch.cuda.Event | None = None
        if stacked.is_cuda:
            self._read = torch.cuda.current_stream(stacked.device).record_event()

    @property
    def samples(self) -> int:
        """In this rank's batches."""
        return sum(map(len, self.batches))

    @property
    def planned(self) -> int:
        """Samples that all ranks together take with the step, where none is unreadable."""
        return sum(batch.planned for batch in self.batches)

    def facts(self) -> dict[str, float]:
        """Loss, its parts, gradient norm and rate; waits until the device has finished the step.

        In fp16 a gradient norm that is not finite is left out while the loss scale is still large:
        such a step is skipped, which is how the scale is found.
        """
        if self._read is not None:
            self._read.synchronize()
        facts = dict(zip(self._names, self._values.tolist(), strict=True))
        is_sought = facts.pop("scale", 0.0) > _SMALLEST_SCALE
        if is_sought and not math.isfinite(facts["grad_norm"]):
            del facts["grad_norm"]
        return {**facts, "lr": self._rate}
