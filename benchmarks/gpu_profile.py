"""Which kernels a pretraining step runs, and when the GPU has none to run. A part of `gpu.py`."""

from __future__ import annotations

import torch
from gpu_part import Part
from model import Data, Side
from torch.autograd.profiler_util import FunctionEventAvg
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
    with profile(activities=kinds, acc_events=True) as trace:
        for _ in range(STEPS):
            side.step(data, lambda: 0.0)
        if is_gpu:
            torch.cuda.synchronize()
    cuda = torch.autograd.DeviceType.CUDA

    def milliseconds(event: FunctionEventAvg) -> float:
        """Of an event itself, per step; on a GPU kernels only."""
        on_gpu = event.self_device_time_total if event.device_type == cuda else 0.0
        return (on_gpu if is_gpu else event.self_cpu_time_total) / 1000 / STEPS

    if is_gpu:
        kernels = [event.time_range for event in trace.events() if event.device_type == cuda]
        spans = sorted((kernel.start, kernel.end) for kernel in kernels)
        busy, reached = 0.0, spans[0][0]
        for start, end in spans:
            busy += max(0.0, end - max(start, reached))
            reached = max(reached, end)
        whole = reached - spans[0][0]
        part.note(
            "kernels",
            milliseconds_per_step=whole / 1000 / STEPS,
            idle_share=1 - busy / whole,
            calls_per_step=len(kernels) / STEPS,
        )
    for event in sorted(trace.key_averages(), key=milliseconds, reverse=True)[:40]:
        if spent := milliseconds(event):
            part.note(event.key[:110], milliseconds_per_step=spent,
                      calls_per_step=event.count / STEPS)  # fmt: skip
    part.end()


if __name__ == "__main__":
    main()
