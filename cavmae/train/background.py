"""Checkpoints are written while training continues.

The state of a run is copied to memory of the CPU, which is quick; a thread writes it from there.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor

import torch
from torch import Tensor


class Snapshot:
    """CPU memory that the state of a run is copied to: the same each time, since it is dear.

    Making it takes longer than the copying, most of all memory that a GPU can write to by itself.
    """

    def __init__(self, device: torch.device) -> None:
        """Args:
        device: where the tensors are.
        """
        self._device = device
        self._buffers: list[Tensor] = []
        self._used = 0

    def begin(self) -> None:
        """What was copied before is not needed any more."""
        self._used = 0

    def copy(self, tensor: Tensor) -> Tensor:
        """A copy, complete after `finish`; quick if tensors come in the same order each time."""
        mine = slice(self._used, self._used + 1)
        fitting = [b for b in self._buffers[mine] if (b.shape, b.dtype) == _form(tensor)]
        if not fitting:
            pinned = self._device.type == "cuda"
            fitting = [torch.empty(tensor.shape, dtype=tensor.dtype, pin_memory=pinned)]
            self._buffers[mine] = fitting
        self._used += 1
        return fitting[0].copy_(tensor.detach(), non_blocking=True)

    def finish(self) -> None:
        """Wait for the copies."""
        if self._device.type == "cuda":
            torch.cuda.current_stream(self._device).synchronize()


def _form(tensor: Tensor) -> tuple[torch.Size, torch.dtype]:
    return tensor.shape, tensor.dtype


class BackgroundWriter:
    """A thread that does one piece of work at a time. A program that ends waits for it."""

    def __init__(self) -> None:
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="checkpoint")
        self._work: Future[object] | None = None

    @property
    def has_failed(self) -> bool:
        """Whether the work has ended with an error, which `finish` will raise."""
        work = self._work
        return work is not None and work.done() and work.exception() is not None

    def begin(self, work: Callable[[], object]) -> None:
        """Begin some work. What was begun before must have been finished."""
        assert self._work is None
        self._work = self._pool.submit(work)

    def finish(self) -> None:
        """Wait for the work that was begun last, if it is not finished yet, and raise its error."""
        work, self._work = self._work, None
        if work is not None:
            work.result()
