"""Memory that batches travel in, used again and again.

The system hands out new memory page by page, when each is first touched. For a batch of 10 s clips
that costs more than decoding WAV and JPEG into it.
"""

from __future__ import annotations

import mmap
import os
import weakref
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import get_worker_info

_SLOTS = 4  # per loading process: one is filled, two wait, the trainer works on one

_shared: weakref.WeakValueDictionary[int, Slots] = weakref.WeakValueDictionary()


@dataclass(frozen=True)
class Memory:
    """Memory of one batch. Pickling hands it over: another process has it from then on.

    Attributes:
        tensor: uint8 [bytes], not initialised.
    """

    tensor: Tensor
    _slot: tuple[int, int, int] | None = None  # of which slots, which of them, its bytes in use
    _loan: weakref.finalize | None = None

    def __reduce__(self) -> tuple[Any, ...]:
        if self._slot is None or self._loan is None:
            return Memory, (self.tensor,)
        self._loan.detach()
        return _received, self._slot


class Slots:
    """Room for a few batches of each loading process, shared with the one that forks them.

    A slot is free again when the last tensor in it is gone, in whichever process that was. What
    no batch has touched takes no memory.
    """

    def __init__(self, processes: int, size: int) -> None:
        """Args:
        processes: that load; with none, the calling one does.
        size: bytes of the largest batch.
        """
        count = max(processes, 1) * _SLOTS
        self._slots = [mmap.mmap(-1, size) for _ in range(count)]
        self._in_use = np.frombuffer(mmap.mmap(-1, count), np.bool_)
        _shared[id(self)] = self  # a forked process has it under the same number

    def __reduce__(self) -> tuple[Any, ...]:
        return Slots, (1, 1)  # only forked processes share memory: no batch fits

    def memory(self, size: int) -> Memory:
        """Memory for a batch that the calling process loads.

        Of a slot, unless the trainer keeps them all or the batch is too large.
        """
        worker = get_worker_info()
        if size <= len(self._slots[0]):
            first = _SLOTS * worker.id if worker else 0
            for number in range(first, first + _SLOTS):
                if not self._in_use[number]:
                    return self.lend(number, size)
        tensor = torch.empty(size, dtype=torch.uint8)
        return Memory(tensor.share_memory_() if worker else tensor)

    def lend(self, number: int, size: int) -> Memory:
        """A slot that is free or was handed over; given back by itself."""
        self._in_use[number] = True
        array = np.frombuffer(self._slots[number], np.uint8, size)
        loan = weakref.finalize(array, self._give_back, number, os.getpid())
        loan.atexit = False
        return Memory(torch.from_numpy(array), (id(self), number, size), loan)

    def _give_back(self, number: int, borrower: int) -> None:
        if os.getpid() == borrower:  # and not a process that was forked meanwhile
            self._in_use[number] = False


def _received(slots: int, number: int, size: int) -> Memory:
    return _shared[slots].lend(number, size)
