"""Which kernels a pretraining step runs, and when the GPU has none to run. A part of `gpu.py`."""

from __future__ import annotations

import torch
from gpu_part import Part
from model import Data, Side
from torch.profiler import ProfilerActivity, profile

from cavmae.model import CAVMAE, ModelConfig

STEPS = 3


def main() -> None:
    """Profile the compiled bf16 step."""
    part = Part.from_command_line("profile")
    torch._dynamo.config.recompile_limit = 64
    config = ModelConfig.preset(part.model)
    weights = CAVMAE(config).to(part.device)
    data = Data.make(config, 2 if part.quick else 256, part.device)
    side = Side("ours-bf16" if part.quick else "ours-bf16-compiled", weights, part.device)
    for _ in range(3):
        side.step(data, lambda: 0.0)
    is_gpu = part.device.type == "cuda"
    kinds = [ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if is_gpu else [])]
    with profile(activities=kinds) as trace:
        for _ in range(STEPS):
            side.step(data, lambda: 0.0)
        if is_gpu:
            torch.cuda.synchronize()
    if is_gpu:
        kernels = [e for e in trace.events() if e.device_type == torch.autograd.DeviceType.CUDA]
        spans = sorted((e.time_range.start, e.time_range.end) for e in kernels)
        busy, reached = 0.0, spans[0][0]
        for start, end in spans:
            busy += max(0.0, end - max(start, reached))
            reached = max(reached, end)
        part.note("kernels", milliseconds_per_step=(reached - spans[0][0]) / 1000 / STEPS,
                  idle_share=1 - busy / (reached - spans[0][0]), count=len(kernels) // STEPS)  # fmt: skip
    for event in sorted(trace.key_averages(), key=own_time(is_gpu), reverse=True)[:40]:
        if own_time(is_gpu)(event) > 0:
            part.note(event.key[:110], milliseconds_per_step=own_time(is_gpu)(event) / 1000 / STEPS,
                      calls_per_step=event.count / STEPS)  # fmt: skip
    part.end()


def own_time(is_gpu: bool):  # noqa: ANN201
    """Microseconds of an event; on a GPU those of kernels only."""
    if not is_gpu:
        return lambda event: event.self_cpu_time_total
    return lambda event: (
        event.self_device_time_total if event.device_type == torch.autograd.DeviceType.CUDA else 0.0
    )


if __name__ == "__main__":
    main()
