"""Precision of the arithmetic, the speed a GPU can reach with it, and traces of what it does."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import torch

from cavmae.train.events import Note, OnEvent
from cavmae.train.options import Precision

_DTYPES = {"bf16": torch.bfloat16, "fp16": torch.float16}
_PRODUCTS = 10
_BEFORE = 5  # steps that are unlike the others: memory is reserved, blocks are compiled


@contextmanager
def model_precision(precision: Precision) -> Iterator[None]:
    """Within the block float32 matrices are multiplied in full precision, except with `tf32`."""
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("high" if precision == "tf32" else "highest")
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(before)


def autocast(device: torch.device, precision: Precision) -> torch.autocast:
    """The context of a forward pass."""
    dtype = _DTYPES.get(precision)
    return torch.autocast(device.type, dtype, enabled=dtype is not None)


def measured_flops(device: torch.device, precision: Precision, size: int = 8192) -> float:
    """Measured operations per second of a large matrix product; no model is faster."""
    dtype = _DTYPES.get(precision, torch.float32)
    one, other = (torch.randn(size, size, device=device, dtype=dtype) for _ in range(2))
    with model_precision(precision):
        for products in (1, _PRODUCTS):  # the first call chooses a kernel
            _finish(device)
            began = time.perf_counter()
            for _ in range(products):
                one @ other
            _finish(device)
            seconds = time.perf_counter() - began
    return 2 * size**3 * _PRODUCTS / seconds


def _finish(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


@contextmanager
def profiled(path: Path, shown: str, steps: int, tell: OnEvent) -> Iterator[Callable[[], object]]:
    """Trace some of the steps in the block, which calls what it is given after each step.

    Args:
        path: of the trace, in Chrome's format.
        shown: the same, for people.
        steps: how many, after the first five; 0 for no trace.
        tell: called with a note on where it is, or why there is none.
    """
    if not steps:
        yield lambda: None
        return

    is_written = False

    def write(profiler: torch.profiler.profile) -> None:
        nonlocal is_written
        unfinished = path.with_name(f".{path.name}.part")
        profiler.export_chrome_trace(str(unfinished))
        os.replace(unfinished, path)
        is_written = True
        tell(Note(f"{shown}: a trace of {steps} steps; open it at https://ui.perfetto.dev"))

    schedule = torch.profiler.schedule(wait=_BEFORE - 1, warmup=1, active=steps, repeat=1)
    # There is one cycle, and without `acc_events` PyTorch warns that others would be forgotten.
    with torch.profiler.profile(
        schedule=schedule, on_trace_ready=write, acc_events=True
    ) as profiler:
        yield profiler.step
    if not is_written:
        found = f"fewer than {_BEFORE + 1} steps were left to do"
        tell(Note(f"--profile {steps}: no trace, since {found}"))
