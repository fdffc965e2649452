"""How long a pretraining step takes, compared with the published arithmetic.

The published side is `published_model.py`, with the same weights and the same batch; its loss and
every gradient are compared with ours before anything is timed. A step is forward, backward and the
optimiser's update: the trainer's for ours, `torch.optim.Adam` as the published script makes it for
the published side.

The sides take turns, so that a busy machine slows all of them, and medians of the CPU time
are compared (with one thread, the time of an idle core). Each side's share of the machine's ceiling
for matrix products, measured in the same run, says what is left to win.

For GPUs see `gpu.py`.

    python benchmarks/model.py
    python benchmarks/model.py --threads 2 --batch-sizes 4
"""

from __future__ import annotations

import argparse
import platform
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path

import torch
from published_model import Noise, PublishedModel
from rows import Row, add_rows_option, write_rows
from torch import Tensor, nn
from torch.profiler import ProfilerActivity, profile

from cavmae.model import CAVMAE, ModelConfig, PretrainOptions, draw_noise
from cavmae.model.blocks import Block
from cavmae.train.optim import build_optimizer
from cavmae.train.options import OptimOptions
from cavmae.train.tasks import PretrainTask, forward_flops

SIDES = (
    "published-fp32", "ours-fp32", "ours-fp32-compiled", "ours-bf16", "ours-bf16-compiled",
)  # fmt: skip
DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
CPU_GOALS = {"ours-fp32": 0.7, "ours-fp32-compiled": 0.65}  # of the published step
AGREEMENT = 1e-3  # largest norm of a gradient's difference, relative to the gradient's norm


@dataclass(frozen=True)
class Data:
    """A batch of noise."""

    audio: Tensor  # float32 [B, frames, mel]
    image: Tensor  # float32 [B, 3, H, W]
    noise: Noise

    @classmethod
    def make(cls, config: ModelConfig, batch: int, device: torch.device) -> Data:
        generator = torch.Generator(device).manual_seed(0)

        def normal(*shape: int) -> Tensor:
            return torch.randn(*shape, generator=generator, device=device)

        audio = normal(batch, config.audio_frames, config.mel_bins)
        image = normal(batch, 3, config.image_size, config.image_size)
        noise = draw_noise(config, PretrainOptions(), batch, generator, device)
        return cls(audio, image, Noise(*noise))


class Side:
    """One way to compute the step, named WHOSE-PRECISION[-compiled|-whole].

    `compiled` compiles each block by itself (what `--compile` does in training), `whole` the whole
    forward pass as one graph, in which a graph break is an error.
    """

    def __init__(self, name: str, weights: CAVMAE, device: torch.device) -> None:
        self.name = name
        whose, precision, *how = name.split("-")
        self.device = device
        self.dtype = DTYPES[precision]
        config = weights.config
        with torch.device("meta"):
            self.model: nn.Module = (
                PublishedModel(config) if whose == "published" else CAVMAE(config)
            )
        # All sides share one set of parameters.
        self.model.load_state_dict(weights.state_dict(keep_vars=True), assign=True)
        self._forward: Callable[..., Tensor] = (
            self._published if whose == "published" else self._ours
        )
        if how == ["compiled"]:
            for block in self.model.modules():
                if isinstance(block, Block):
                    block.compile(dynamic=False)
        elif how == ["whole"]:
            self._forward = torch.compile(self._forward, fullgraph=True, dynamic=False)
        self.is_compiled = bool(how)
        self.optimizer = (
            torch.optim.Adam(
                [p for p in self.model.parameters() if p.requires_grad],
                lr=0.0, betas=(0.95, 0.999), weight_decay=5e-7,
            )
            if whose == "published"
            else build_optimizer(self.model, OptimOptions(lr=0.0))  # type: ignore[arg-type]
        )  # fmt: skip
        self.scaler = torch.amp.GradScaler(device.type, enabled=self.dtype == torch.float16)

    def _ours(self, audio: Tensor, image: Tensor, noise_a: Tensor, noise_v: Tensor) -> Tensor:
        out = self.model(audio, image, noise_audio=noise_a, noise_image=noise_v, predictions=False)
        return out.loss

    def _published(self, audio: Tensor, image: Tensor, noise_a: Tensor, noise_v: Tensor) -> Tensor:
        return self.model(audio, image, Noise(noise_a, noise_v))

    def loss(self, data: Data) -> Tensor:
        """The forward pass."""
        autocast: AbstractContextManager = nullcontext()
        if self.dtype != torch.float32:
            autocast = torch.autocast(self.device.type, self.dtype)
        with autocast:
            return self._forward(data.audio, data.image, data.noise.audio, data.noise.image)

    def update(self) -> None:
        """The optimiser's step."""
        self.scaler.step(self.optimizer)
        self.scaler.update()

    def step(self, data: Data, clock: Callable[[], float]) -> tuple[float, float, float]:
        """Seconds of forward, backward and update."""
        self.optimizer.zero_grad(set_to_none=True)
        began = clock()
        loss = self.loss(data)
        forward = clock()
        self.scaler.scale(loss).backward()
        backward = clock()
        self.update()
        return forward - began, backward - forward, clock() - backward


def step_flops(config: ModelConfig) -> float:
    """FLOPs of one sample's matrix products, forward and backward (twice as many)."""
    task = PretrainTask(PretrainOptions())
    return 3 * forward_flops(CAVMAE(config), task, torch.device("cpu"))


def matmul_ceiling(
    device: torch.device, dtype: torch.dtype, clock: Callable[[], float], size: int = 2048
) -> float:
    """FLOP/s of a large matrix product, the best of several."""
    left, right = (torch.randn(size, size, device=device, dtype=dtype) for _ in range(2))
    best = float("inf")
    for _ in range(10):
        began = clock()
        for _ in range(3):
            left @ right
        best = min(best, (clock() - began) / 3)
    return 2 * size**3 / best


def check_agreement(weights: CAVMAE, data: Data, device: torch.device) -> str:
    """Compare loss and gradients of the published side and ours, in float32.

    Raises:
        SystemExit: they differ.
    """
    losses, gradients = [], []
    for name in ("published-fp32", "ours-fp32"):
        side = Side(name, weights, device)
        loss = side.loss(data)
        loss.backward()
        losses.append(loss.item())
        gradients.append(
            {n: p.grad for n, p in side.model.named_parameters() if p.grad is not None}
        )
        side.optimizer.zero_grad(set_to_none=True)
    published, ours = gradients
    if published.keys() != ours.keys():
        sys.exit(f"the sides train other parameters: {sorted(published.keys() ^ ours.keys())}")
    worst = max(
        ((ours[n] - g).norm() / g.norm().clamp_min(1e-12)).item() for n, g in published.items()
    )
    difference = abs(losses[0] - losses[1])
    text = (
        f"Loss {losses[1]:.5f}, the published arithmetic's {losses[0]:.5f}; gradients of "
        f"{len(ours)} tensors differ by {worst:.1e} of their norm at most."
    )
    if difference > AGREEMENT or worst > AGREEMENT:
        sys.exit(f"the sides do not agree, so their times mean nothing. {text}")
    return text


def compare_in_turns(
    sides: Sequence[Side], data: Data, rounds: int, clock: Callable[[], float]
) -> dict[str, tuple[float, float, float]]:
    """Median seconds of forward, backward and update of each side."""
    for side in sides:
        for _ in range(2 if side.is_compiled else 1):
            side.step(data, clock)
    times: dict[str, list[tuple[float, float, float]]] = {side.name: [] for side in sides}
    for _ in range(rounds):
        for side in sides:
            times[side.name].append(side.step(data, clock))
    return {
        name: tuple(statistics.median(part) for part in zip(*steps, strict=True))  # type: ignore[misc]
        for name, steps in times.items()
    }


def report_turns(
    times: dict[str, tuple[float, float, float]], flops: float, ceilings: dict[str, float]
) -> None:
    """Print the CPU's Markdown table."""
    base = times[next(iter(times))]
    print("| side | forward s | backward s | update s | step s | of the published | "
          "without update | matrix products at |\n|---|---|---|---|---|---|---|---|")  # fmt: skip
    for name, (forward, backward, update) in times.items():
        work = forward + backward
        ceiling = ceilings[name.split("-")[1]]
        print(
            f"| {name} | {forward:.2f} | {backward:.2f} | {update:.2f} | {work + update:.2f} "
            f"| {(work + update) / sum(base):.2f} | {work / (base[0] + base[1]):.2f} "
            f"| {flops / work / ceiling:.0%} of the ceiling |"
        )
    floor = flops / ceilings["fp32"] / (base[0] + base[1])
    print(
        "\nBoth sides do the same matrix products; at "
        f"this machine's float32 ceiling ({ceilings['fp32'] / 1e9:.0f} GFLOP/s) they alone take "
        f"{floor:.2f} of the published forward and backward."
    )


def profile_side(side: Side, data: Data) -> dict[str, float]:
    """Seconds of one step by kind of operation."""
    kinds = {
        "matrix products": ("mm", "addmm", "bmm", "linear", "convolution"),
        "attention": ("_scaled_dot_product",),
        "softmax": ("_softmax",),
        "GELU": ("gelu",),
        "norms": ("native_layer_norm",),
        "update": ("_foreach", "_fused_adam", "Optimizer"),
    }
    side.optimizer.zero_grad(set_to_none=True)
    with profile(activities=[ProfilerActivity.CPU]) as trace:
        side.scaler.scale(side.loss(data)).backward()
    spent = dict.fromkeys((*kinds, "other"), 0.0)
    for event in trace.key_averages():
        seconds = event.self_cpu_time_total / 1e6
        operation = event.key.removeprefix("aten::").removeprefix("mkldnn_")
        kind = next((k for k, names in kinds.items() if operation.startswith(names)), "other")
        spent[kind] += seconds
    return {kind: seconds for kind, seconds in spent.items() if seconds > 0}


def report_profiles(sides: Sequence[Side], data: Data) -> None:
    """Print where the time of forward and backward goes, in the eager sides."""
    print("\n| forward and backward | " + " | ".join(side.name for side in sides) + " |")
    print("|---|" + "---|" * len(sides))
    spent = [profile_side(side, data) for side in sides]
    for kind in dict.fromkeys(kind for times in spent for kind in times):
        print(f"| {kind} | " + " | ".join(f"{times.get(kind, 0):.3f} s" for times in spent) + " |")


def report_patch_embeddings(config: ModelConfig, data: Data, clock: Callable[[], float]) -> None:
    """Print what embedding the audio's patches costs in three ways, forward and backward."""
    model = CAVMAE(config).to(data.audio.device)
    kept = data.noise.audio.argsort(1)[:, : config.patches("audio") // 4]
    convolution = model.patch_embed_a.proj
    pictures = data.audio.transpose(1, 2).unsqueeze(1)

    def dropped(tokens: Tensor) -> Tensor:
        return tokens.gather(1, kept.unsqueeze(-1).expand(-1, -1, tokens.shape[-1]))

    def by_convolution(format: torch.memory_format) -> Callable[[], Tensor]:
        weights = pictures.contiguous(memory_format=format)
        return lambda: dropped(convolution(weights).flatten(2).transpose(1, 2))

    ways: dict[str, Callable[[], Tensor]] = {
        "convolution of all, then drop": by_convolution(torch.contiguous_format),
        "the same, channels last": by_convolution(torch.channels_last),
        "linear, visible only (ours)": lambda: model.embed(
            "audio", model.patches("audio", data.audio), kept
        ),
    }
    print("\n| audio patch embedding | ms |\n|---|---|")
    for name, embed in ways.items():
        times = []
        for _ in range(8):
            began = clock()
            embed().sum().backward()
            times.append(clock() - began)
        print(f"| {name} | {statistics.median(times) * 1000:.1f} |")


def describe() -> str:
    """The machine in words."""
    models = [
        line.split(":", 1)[1].strip()
        for line in Path("/proc/cpuinfo").read_text().splitlines()
        if line.startswith("model name")
    ]
    name = models[0] if models else platform.processor()
    return f"{name}, {torch.get_num_threads()} thread(s), torch {torch.__version__}"


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", default="base", help="tiny, small, base or large")
    parser.add_argument("--batch-sizes", type=int, nargs="+", default=[2])
    parser.add_argument("--sides", nargs="+", default=SIDES, help=", ".join(SIDES))
    parser.add_argument("--rounds", type=int, default=3, help="steps of each side, in turns")
    parser.add_argument("--threads", type=int, default=1)
    add_rows_option(parser)
    arguments = parser.parse_args()
    device, clock, sides = torch.device("cpu"), time.process_time, arguments.sides
    torch.set_num_threads(arguments.threads)
    torch.manual_seed(0)
    torch._dynamo.config.recompile_limit = 64  # one for each stream's length
    config = ModelConfig.preset(arguments.model)
    weights = CAVMAE(config)
    print(f"{describe()}; model {arguments.model}")
    print(check_agreement(weights, Data.make(config, 2, device), device), flush=True)
    precisions = {"fp32", *(name.split("-")[1] for name in sides)}
    ceilings = {name: matmul_ceiling(device, DTYPES[name], clock) for name in precisions}
    rows: list[Row] = []
    for batch in arguments.batch_sizes:
        print(f"\nBatch {batch}, CPU time, medians of {arguments.rounds} steps:\n")
        data = Data.make(config, batch, device)
        built = [Side(name, weights, device) for name in sides]
        times = compare_in_turns(built, data, arguments.rounds, clock)
        report_turns(times, step_flops(config) * batch, ceilings)
        rows += turn_rows(times, f"{arguments.model}, batch {batch}, CPU")
        report_profiles([side for side in built if not side.is_compiled], data)
        report_patch_embeddings(config, data, clock)
    write_rows(arguments.rows, rows)


def turn_rows(times: dict[str, tuple[float, float, float]], where: str) -> list[Row]:
    """Each side's step compared with the first's, for the table of all benchmarks."""
    (reference, base), *others = ((name, sum(parts)) for name, parts in times.items())
    return [
        Row(f"pretraining step, {where}", f"{name.replace('-', ', ')}: {step:.2f} s",
            f"{reference.replace('-', ' arithmetic, ')}: {base:.2f} s", f"{step / base:.2f}×",
            f"≤ {CPU_GOALS[name]:.2f}×" if name in CPU_GOALS else "")
        for name, step in others
    ]  # fmt: skip


if __name__ == "__main__":
    main()
