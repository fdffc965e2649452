"""How fast a pretraining step is beside the published arithmetic. A part of `gpu.py`."""

from __future__ import annotations

import time
from collections.abc import Callable

import torch
from gpu_part import RATE, Part
from model import Data, Side, check_agreement, matmul_ceiling, step_flops

from cavmae.data.batch import Batch
from cavmae.frontend import FrontEnd, FrontEndOptions
from cavmae.model import CAVMAE, ModelConfig

# The batch sizes that matter most come first, since the part may be cut off.
SETTINGS = [
    ("ours-bf16-compiled", 256), ("published-fp16", 64), ("ours-bf16-compiled", 64),
    ("ours-bf16", 256), ("ours-bf16-compiled", 128), ("published-fp16", 128),
    ("ours-bf16-compiled", 384), ("published-fp16", 96), ("published-fp16", 32),
    ("ours-bf16-compiled", 32), ("ours-bf16", 128), ("ours-bf16", 512),
    ("ours-fp16-compiled", 256), ("ours-bf16-whole", 256),
]  # fmt: skip


def main() -> None:
    """The ceiling, agreement, then one setting after another."""
    part = Part.from_command_line("speed")
    device = part.device
    torch.manual_seed(0)
    torch._dynamo.config.recompile_limit = 64  # one for each stream's length
    config = ModelConfig.preset(part.model)
    weights = CAVMAE(config).to(device)
    clock = clock_of(device)
    part.note("machine", device=name_of(device), torch=torch.__version__)
    part.note(
        "agreement in float32", says=check_agreement(weights, Data.make(config, 2, device), device)
    )
    size = 8192 if device.type == "cuda" else 1024
    ceiling = matmul_ceiling(device, torch.bfloat16, clock, size)
    part.note("matrix product", size=size, tflops=ceiling / 1e12)
    settings = [(name, 2) for name, _ in SETTINGS[:3]] if part.quick else SETTINGS
    for name, batch in settings:
        part.note(f"{name}, batch {batch}", **speed(name, batch, weights, part, ceiling))
    front_end_speed(part, 4 if part.quick else 256, clock)
    part.end()


def clock_of(device: torch.device) -> Callable[[], float]:
    """Seconds, when the device has done what it was given."""

    def clock() -> float:
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        return time.perf_counter()

    return clock


def name_of(device: torch.device) -> str:
    """The device in words."""
    return torch.cuda.get_device_name(device) if device.type == "cuda" else "CPU"


def speed(name: str, batch: int, weights: CAVMAE, part: Part, ceiling: float) -> dict[str, object]:
    """Samples per second, MFU and peak memory of one setting."""
    device, clock = part.device, clock_of(part.device)
    weights.zero_grad(set_to_none=True)
    if device.type == "cuda":
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats(device)
    began = clock()
    try:
        data = Data.make(weights.config, batch, device)
        side = Side(name, weights, device)
        for _ in range(2 if part.quick else 4):
            side.step(data, lambda: 0.0)
        warm = clock()
        steps = 2 if part.quick else max(10, 4096 // batch)
        for _ in range(steps):
            side.step(data, lambda: 0.0)
        seconds = (clock() - warm) / steps
    except torch.OutOfMemoryError:
        return {"says": "out of memory"}
    peak = torch.cuda.max_memory_allocated(device) if device.type == "cuda" else 0
    return {
        "samples_per_second": batch / seconds,
        "mfu": batch / seconds * step_flops(weights.config) / ceiling,
        "peak_gib": peak / 2**30,
        "milliseconds": 1000 * seconds,
        "seconds_to_warm_up": warm - began,
    }


def front_end_speed(part: Part, batch: int, clock: Callable[[], float]) -> None:
    """The front end alone, on batches as they come from the loader."""
    made = Batch(
        waveform=torch.randint(-9000, 9000, (batch, 10 * RATE + 400), dtype=torch.int16),
        lengths=torch.full((batch,), 10 * RATE),
        image=torch.randint(0, 256, (batch, 3, 224, 224), dtype=torch.uint8),
        labels=torch.zeros(batch, 10), index=torch.arange(batch), video_ids=[""] * batch,
        partners=None, unreadable=[], planned=batch,
    ).to(part.device)  # fmt: skip
    frontend = FrontEnd(FrontEndOptions(noise=True)).to(part.device)
    generator = torch.Generator(part.device)
    for _ in range(2):
        frontend(made, generator)
    began = clock()
    for _ in range(5):
        frontend(made, generator)
    seconds = (clock() - began) / 5
    part.note(f"front end, batch {batch}", samples_per_second=batch / seconds,
              milliseconds=1000 * seconds)  # fmt: skip


if __name__ == "__main__":
    main()
