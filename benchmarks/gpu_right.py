"""Is what the GPU computes what the CPU computes? A part of `gpu.py`.

Everything is compared by the norm of the difference over the norm of what is expected.
"""

from __future__ import annotations

import copy
import dataclasses
import functools
import json
import os
import shutil
import signal
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import av
import numpy as np
import torch
import torch.distributed as dist
from gpu_part import RATE, RENDERED_RATE, Part, make_shards, relative
from safetensors.torch import load_file
from torch import Tensor, nn

from avprep.demo_data import draw_traits, render_frames, render_sound
from cavmae.data.batch import Batch, Partners
from cavmae.distributed import World
from cavmae.frontend import FrontEnd, FrontEndOptions
from cavmae.model import CAVMAE, MODES, CAVMAEClassifier, ModelConfig, PretrainOptions, draw_noise
from cavmae.train.optim import build_optimizer
from cavmae.train.options import ComputeOptions, OptimOptions, Precision
from cavmae.train.parallel import distribute, spread_model, whole_weights
from cavmae.train.utilisation import autocast

BATCH = 4
EXACT, CLOSE = 1e-4, 5e-2  # float32 on both sides; 8 bits of mantissa on one
CPU = torch.device("cpu")
CUT = ["--audio-frames", "128", "--no-noise", "--workers", "0", "--checkpoint-minutes", "60"]


def main() -> None:
    """All checks, the cheap ones first."""
    part = Part.from_command_line("right")
    torch.manual_seed(0)
    part.check("front end, with mixup", lambda: front_end(part.device), EXACT)
    config = ModelConfig.preset(part.model)
    pretraining(part, CAVMAE(config))
    classifier = CAVMAEClassifier.from_pretraining(config, 10)
    for mode in MODES:
        find = functools.partial(classifier_gradients, classifier, mode, part)
        part.check(f"classifier, {mode}", find, EXACT)
    commands(part)
    part.end()


def pretraining(part: Part, model: CAVMAE) -> None:
    """A step in every way there is to compute it."""
    settings = {
        "published": PretrainOptions(),
        "both directions, plain pixels": PretrainOptions(bidirectional=True, norm_pix_loss=False),
    }
    for name, options in settings.items():
        expected = pretraining_gradients(model, options, CPU)

        def check(
            how: str,
            limit: float,
            options: PretrainOptions = options,
            expected: dict[str, Tensor] = expected,
            name: str = name,
            **ways: Any,
        ) -> None:
            part.check(
                f"pretraining step, {name}, {how}",
                lambda: worst(pretraining_gradients(model, options, part.device, **ways), expected),
                limit,
            )

        check("fp32", EXACT)
        check("bf16", CLOSE, precision="bf16")
        check("fp16", CLOSE, precision="fp16")
        check("recomputed activations", EXACT, how=ComputeOptions(activation_checkpointing=True))
        check("compiled", EXACT, how=ComputeOptions(compile=True))
    for parallel in ("ddp", "fsdp"):
        find = functools.partial(spread_step, model, part, parallel)
        part.check(f"pretraining step, {parallel} on one rank", find, EXACT)


def front_end(device: torch.device) -> float:
    """Waveforms of several lengths, one of them silent, two mixed with others."""
    random = np.random.default_rng(0)

    def samples(count: int) -> dict[str, Tensor]:
        lengths = torch.tensor([16 * RATE // 10 * (n + 1) for n in range(count)])
        waveform = torch.from_numpy(random.integers(-9000, 9000, (count, 10 * RATE), np.int16))
        waveform[0] = 0
        waveform *= torch.arange(10 * RATE) < lengths[:, None]
        return {
            "waveform": waveform,
            "lengths": lengths,
            "image": torch.from_numpy(random.integers(0, 256, (count, 3, 224, 224), np.uint8)),
            "labels": torch.eye(count),
        }

    partners = Partners(**{**samples(2), "labels": torch.eye(BATCH)[:2]},
                        rows=torch.tensor([1, 3]), share=torch.tensor([0.3, 0.8]))  # fmt: skip
    batch = Batch(
        **samples(BATCH), index=torch.arange(BATCH), video_ids=[""] * BATCH, partners=partners,
        unreadable=[], planned=BATCH,
    )  # fmt: skip
    options = FrontEndOptions(label_smooth=0.1)
    ours, theirs = (
        FrontEnd(options).to(where)(batch.to(where), torch.Generator(where))
        for where in (device, CPU)
    )
    fields = [field.name for field in dataclasses.fields(ours)]
    return max(relative(getattr(ours, name), getattr(theirs, name)) for name in fields)


def pretraining_inputs(
    config: ModelConfig, device: torch.device
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """The same audio, image and masks everywhere."""
    generator = torch.Generator().manual_seed(1)
    audio = torch.randn(BATCH, config.audio_frames, config.mel_bins, generator=generator)
    image = torch.randn(BATCH, 3, config.image_size, config.image_size, generator=generator)
    noise = draw_noise(config, PretrainOptions(), BATCH, generator)
    return tuple(tensor.to(device) for tensor in (audio, image, *noise))  # type: ignore[return-value]


def pretraining_gradients(
    model: CAVMAE,
    options: PretrainOptions,
    device: torch.device,
    how: ComputeOptions | None = None,
    precision: Precision = "fp32",
) -> dict[str, Tensor]:
    """The loss and every gradient of a step, by name."""
    model = copy.deepcopy(model).to(device)
    called = spread_model(model, World(0, 1, device), how or ComputeOptions())
    audio, image, *noise = pretraining_inputs(model.config, device)
    scaler = torch.amp.GradScaler(device.type, init_scale=2.0**10, enabled=precision == "fp16")
    with autocast(device, precision):
        loss = called(
            audio, image, options, noise_audio=noise[0], noise_image=noise[1], predictions=False
        ).loss
    scaler.scale(loss).backward()
    scale = scaler.get_scale()
    return {"loss": loss.detach(), **gradients(model, scale)}


def gradients(model: nn.Module, scale: float = 1.0) -> dict[str, Tensor]:
    """By name, as one vector per name, of what is trained."""
    return {n: p.grad / scale for n, p in model.named_parameters() if p.grad is not None}


def worst(ours: dict[str, Tensor], theirs: dict[str, Tensor]) -> float:
    """Of the loss's difference and that of all gradients taken together."""
    if ours.keys() != theirs.keys():
        raise ValueError(f"not the same gradients: {sorted(ours.keys() ^ theirs.keys())[:5]}")
    together = [
        torch.cat([side[name].double().cpu().flatten() for name in theirs if name != "loss"])
        for side in (ours, theirs)
    ]
    return max(relative(ours["loss"], theirs["loss"]), relative(*together))


def classifier_gradients(model: CAVMAEClassifier, mode: str, part: Part) -> float:
    """Logits and gradients of a classifier on both devices."""
    sides = []
    for device in (part.device, CPU):
        own = copy.deepcopy(model).to(device)
        audio, image, *_ = pretraining_inputs(model.config, device)
        logits = own(audio, image, mode)
        logits.logsumexp(1).sum().backward()
        sides.append({"loss": logits.detach(), **gradients(own)})
    return worst(*sides)


def spread_step(model: CAVMAE, part: Part, parallel: str) -> float:
    """Weights after two optimizer steps of a spread model against the plain one's."""
    device = part.device
    os.environ.update(MASTER_ADDR="127.0.0.1", MASTER_PORT="29511", RANK="0", WORLD_SIZE="1")
    is_gpu = device.type == "cuda"
    dist.init_process_group("cpu:gloo,cuda:nccl" if is_gpu else "gloo",
                            device_id=torch.device("cuda:0") if is_gpu else None)  # fmt: skip
    try:
        found = []
        for spread in (True, False):
            own = copy.deepcopy(model).to(device)
            # Adam divides each gradient by its size; where that is nearly nothing, rounding is all
            # that is left of it.
            optim = OptimOptions(lr=1e-3, optimizer="adamw")
            called = distribute(own, World(0, 1, device), parallel) if spread else own
            optimizer = build_optimizer(own, optim)
            audio, image, *noise = pretraining_inputs(own.config, device)
            for _ in range(2):
                called(
                    audio, image, noise_audio=noise[0], noise_image=noise[1], predictions=False
                ).loss.backward()
                optimizer.step()
                optimizer.zero_grad()
            weights = whole_weights(own, keep=True)
            found.append(torch.cat([weights[name].flatten() for name in sorted(weights)]))
            del called
        return relative(*found)
    finally:
        dist.destroy_process_group()


def commands(part: Part) -> None:
    """Kill and resume; and what trained models say on both devices."""
    folder = part.out / "right"
    shutil.rmtree(folder, ignore_errors=True)
    shards = make_shards(folder / "data", 64, 1.5, part.workers)
    pretrain = ["pretrain", "--shards", shards, "--model", "tiny", "--batch-size", 8, *CUT]
    whole, killed = folder / "whole", folder / "killed"
    part.run(*pretrain, "--epochs", 6, "--out", whole)
    tuned, video = folder / "tuned", folder / "video.mp4"
    tune = [
        "finetune", "--shards", shards, "--val-shards", shards, "--init", whole, "--epochs", 2,
        "--batch-size", 8, *CUT,
    ]  # fmt: skip
    make_video(video)
    # Commands take longer to begin than to do their work.
    with ThreadPoolExecutor(max(part.workers // 2, 1)) as threads:

        def check(what: str, limit: float, find: Callable[..., float], *arguments: object) -> None:
            threads.submit(part.check, what, functools.partial(find, part, *arguments), limit)

        part.run(*tune, "--out", tuned)
        for precision in ("tf32", "bf16", "fp16"):
            command = [*tune, "--precision", precision, "--out", folder / precision]
            check(f"finetune in {precision}: finite weights", 0, finite, command)
        again = [*pretrain, "--epochs", 6, "--out", killed, "--checkpoint-steps", 3]
        check("killed and resumed", EXACT, resumed, again, killed, whole)
        for name, command in {
            "eval": ["eval", "--shards", shards, "--checkpoint", tuned, "--frames", "all"],
            "retrieve": ["retrieve", "--shards", shards, "--checkpoint", whole],
            "knn": ["knn", "--shards", shards, "--val-shards", shards, "--checkpoint", whole],
            "embed": ["embed", "--shards", shards, "--checkpoint", whole],
            "predict": ["predict", "--checkpoint", tuned, video],
        }.items():
            check(name, EXACT, both_devices, name, command, folder)


def make_video(path: Path) -> None:
    """One of the demo's clips as MPEG-4 and AAC; an ffmpeg program need not be there."""
    rng = np.random.default_rng(0)
    traits, rate, seconds = draw_traits(rng), 10, 2.0
    pictures = render_frames("circle", traits, int(rate * seconds), rate, 208, 160, rng)
    sound = render_sound("tone", traits, seconds, rng)
    with av.open(str(path), "w") as file:
        video = file.add_stream("mpeg4", rate=rate, width=208, height=160)
        audio = file.add_stream("aac", rate=RENDERED_RATE, layout="mono")
        for picture in pictures:
            file.mux(video.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        samples = av.AudioFrame.from_ndarray(sound[None], format="s16", layout="mono")
        samples.rate = RENDERED_RATE
        file.mux([*audio.encode(samples), *audio.encode(None), *video.encode(None)])


def resumed(part: Part, command: list[object], killed: Path, whole: Path) -> float:
    """Kill a run after its second checkpoint, finish it, and compare with an undisturbed one."""
    process = part.start(*command)
    while len(list((killed / "checkpoints").glob("step*"))) < 2:
        if process.poll() is not None:
            raise RuntimeError(f"ended before it was killed: {process.communicate()[0][-1000:]}")
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    said = part.run(*command)
    if "resuming from" not in said:
        raise RuntimeError(f"did not resume: {said[-500:]}")
    ours, theirs = (load_file(folder / "model.safetensors") for folder in (killed, whole))
    return relative(*(torch.cat([w[n].flatten() for n in sorted(w)]) for w in (ours, theirs)))


def finite(part: Part, command: list[object]) -> float:
    """0 where the weights that a run ends with are finite."""
    part.run(*command)
    weights = load_file(Path(str(command[-1])) / "model.safetensors").values()
    return 0.0 if all(tensor.isfinite().all() for tensor in weights) else float("inf")


def both_devices(part: Part, name: str, command: list[object], folder: Path) -> float:
    """The largest difference between what a command finds on the device and on the CPU."""
    found = []
    for device in (str(part.device), "cpu"):
        out = folder / f"{name}-{device}{'.safetensors' if name == 'embed' else ''}"
        place = ["--out", out] if name in ("embed", "retrieve") else []
        form = [] if name == "embed" else ["--json"]
        said = part.run(*command, *place, *form, "--device", device)
        if name == "embed":
            features = load_file(out)
            found.append(torch.cat([v.double().flatten() for _, v in sorted(features.items())]))
        else:
            lines = [json.loads(line) for line in said.splitlines() if line.startswith("{")]
            found.append(torch.tensor(list(numbers(lines)), dtype=torch.float64))
    return relative(*found)


def numbers(value: object) -> Iterator[float]:
    """Every number in nested JSON, in order; times are left out."""
    if isinstance(value, dict):
        for key, inner in value.items():
            if "seconds" not in key:
                yield from numbers(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from numbers(inner)
    elif isinstance(value, int | float) and not isinstance(value, bool):
        yield float(value)


if __name__ == "__main__":
    main()
