"""What a worker hands to the training device: as few bytes as possible, nothing computed."""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from typing import TypeVar

import torch
from torch import Tensor

Self = TypeVar("Self", bound="Samples")


@dataclass
class Samples:
    """Samples as they are stored.

    Attributes:
        waveform: int16 [B, samples], 16 kHz, zero-padded at the end.
        lengths: int64 [B], samples before the padding.
        image: uint8 [B, 3, size, size], RGB; or [B, frames, 3, size, size].
        labels: float32 [B, classes], 1 for each of a clip's labels.
    """

    waveform: Tensor
    lengths: Tensor
    image: Tensor
    labels: Tensor

    def to(self: Self, device: torch.device) -> Self:
        """The same on another device; a pinned batch is copied without waiting."""
        return self._map(lambda tensor: tensor.to(device, non_blocking=True))

    def pin_memory(self: Self) -> Self:
        """The same in page-locked memory (called by the data loader)."""
        return self._map(Tensor.pin_memory)

    def _map(self: Self, function) -> Self:  # noqa: ANN001 (Tensor → Tensor)
        changes = {}
        for field in fields(self):
            value = getattr(self, field.name)
            if isinstance(value, Tensor):
                changes[field.name] = function(value)
            elif isinstance(value, Samples):
                changes[field.name] = value._map(function)
        return replace(self, **changes)


@dataclass
class Partners(Samples):
    """The clips that some rows of a batch are mixed with (mixup).

    Attributes:
        rows: int64 [M], the rows of the batch.
        share: float32 [M], the weight λ of the batch's own clip.
    """

    rows: Tensor
    share: Tensor


@dataclass
class Batch(Samples):
    """A batch of one rank.

    Attributes:
        index: int64 [B], positions in the shard set.
        video_ids: the clips' names.
        partners: clips to mix in, or None.
        unreadable: (name, reason) of samples that should have been in the batch and could not
            be read.
        planned: samples that all ranks together take with this step.
    """

    index: Tensor
    video_ids: list[str]
    partners: Partners | None
    unreadable: list[tuple[str, str]]
    planned: int

    def __len__(self) -> int:
        return len(self.index)
