"""What a worker hands to the training device: as few bytes as possible, nothing computed."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, fields, replace
from typing import Any, TypeVar

import torch
from torch import Tensor

from cavmae.data.memory import Memory, Slots

Self = TypeVar("Self", bound="Samples")
Shape = tuple[torch.dtype, tuple[int, ...]]


@dataclass
class Samples:
    """Samples as they are stored.

    Attributes:
        waveform: int16 [B, samples], 16 kHz, zero-padded at the end; [B, 0] if no audio is read.
        lengths: int64 [B], samples before the padding.
        image: uint8 [B, 3, size, size], RGB; or [B, frames, 3, size, size], with no frame if no
            images are read.
        labels: float32 [B, classes], 1 for each of a clip's labels.
    """

    waveform: Tensor
    lengths: Tensor
    image: Tensor
    labels: Tensor

    def to(self: Self, device: torch.device) -> Self:
        """The same on another device; a pinned batch is copied without waiting."""
        return self._map(lambda tensor: tensor.to(device, non_blocking=True))

    def record_stream(self, stream: torch.cuda.Stream) -> None:
        """Keep the memory until the stream has done what it was given so far."""
        self._map(lambda tensor: tensor.record_stream(stream))

    def pin_memory(self: Self) -> Self:
        """The same in page-locked memory (called by the data loader)."""
        return self._map(Tensor.pin_memory)

    def _map(self: Self, function: Callable[[Any], Any]) -> Self:
        changes = {}
        for field in fields(self):
            value = getattr(self, field.name)
            if isinstance(value, Tensor | _Place):
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


_ALIGNMENT = 64  # bytes; enough for every dtype and for vector instructions


@dataclass(frozen=True)
class _Place:
    """Stands for a tensor in packed memory."""

    dtype: torch.dtype
    shape: tuple[int, ...]
    offset: int

    def view(self, memory: Tensor) -> Tensor:
        size = math.prod(self.shape) * self.dtype.itemsize
        return memory[self.offset : self.offset + size].view(self.dtype).view(self.shape)


@dataclass(frozen=True)
class PackedBatch:
    """A batch whose tensors lie in one piece of memory.

    To hand a tensor to another process costs about a millisecond, however small it is; a batch
    has eleven.
    """

    memory: Memory
    _places: Batch  # with a _Place for every tensor

    def pin_memory(self) -> PackedBatch:
        """The same in page-locked memory (called by the data loader)."""
        return PackedBatch(Memory(self.memory.tensor.pin_memory()), self._places)

    def unpack(self) -> Batch:
        """The batch; its tensors are views of the memory."""
        return self._places._map(lambda place: place.view(self.memory.tensor))


def allocate(
    groups: Iterable[Mapping[str, Shape]], slots: Slots
) -> tuple[Memory, list[dict[str, Tensor]]]:
    """Memory for groups of tensors in one piece, and the tensors, not initialised.

    Args:
        groups: dtype and shape of each by name.
        slots: to take it from.
    """
    places: list[dict[str, _Place]] = []
    size = 0
    for group in groups:
        places.append({})
        for name, (dtype, shape) in group.items():
            places[-1][name] = _Place(dtype, shape, size)
            size += _room(dtype, shape)
    memory = slots.memory(size)
    tensors = [{name: place.view(memory.tensor) for name, place in each.items()} for each in places]
    return memory, tensors


def size_of(groups: Iterable[Mapping[str, Shape]]) -> int:
    """Bytes that `allocate` takes."""
    return sum(_room(*shape) for group in groups for shape in group.values())


def pack(batch: Batch, memory: Memory) -> PackedBatch:
    """Pack a batch whose tensors lie in this memory already."""
    start = memory.tensor.data_ptr()
    return PackedBatch(
        memory,
        batch._map(lambda t: _Place(t.dtype, tuple(t.shape), t.data_ptr() - start)),
    )


def _room(dtype: torch.dtype, shape: tuple[int, ...]) -> int:
    return -(-math.prod(shape) * dtype.itemsize // _ALIGNMENT) * _ALIGNMENT
