"""What the parts of `gpu.py` share: their options, their results, made-up shard sets."""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import soundfile
import torch
import torchaudio
from joblib import Parallel, delayed

from avprep.clips import Clip
from avprep.demo_data import CLASSES, draw_traits, render_frames, render_sound
from avprep.images import encode_jpeg
from avprep.jobs import PoolOptions
from avprep.labels import label_set_from_names
from avprep.shards.build import ShardSetOptions, build_shard_set
from avprep.shards.format import ShardIndex, index_name, read_dataset, write_dataset

RATE, FRAMES, SIZE = 16000, 10, 224
RENDERED_RATE = 44100


@dataclass
class Part:
    """One part's options and its results so far."""

    name: str
    out: Path
    device: torch.device
    model: str
    workers: int
    quick: bool
    lines: list[dict[str, Any]] = field(default_factory=list)

    @classmethod
    def from_command_line(cls, name: str) -> Part:
        parser = argparse.ArgumentParser()
        parser.add_argument("--out", type=Path, required=True)
        parser.add_argument("--device", default="cuda")
        parser.add_argument("--model", default="base")
        parser.add_argument("--workers", type=int, default=12)
        parser.add_argument("--quick", action="store_true")
        options = parser.parse_args()
        options.out.mkdir(parents=True, exist_ok=True)
        device = torch.device(options.device)
        return cls(name, options.out, device, options.model, options.workers, options.quick)

    def note(self, what: str, **facts: Any) -> None:
        """Print a result and write all of them so far."""
        self.lines.append({"what": what, **facts})
        shown = ", ".join(
            f"{name} {value:.4g}" if isinstance(value, float) else f"{name} {value}"
            for name, value in facts.items()
        )
        print(f"{what}: {shown}", flush=True)
        (self.out / f"{self.name}.json").write_text(json.dumps(self.lines, indent=1) + "\n")

    def check(self, what: str, find: Callable[[], float], limit: float) -> None:
        """Note a difference that must not exceed a limit, or the error that came instead."""
        began = time.monotonic()
        try:
            found = find()
            facts: dict[str, Any] = {"difference": found, "limit": limit, "ok": found <= limit}
        except Exception as error:
            traceback.print_exc()
            facts = {"error": f"{type(error).__name__}: {error}"[:300], "ok": False}
        self.note(what, **facts, seconds=round(time.monotonic() - began, 1))

    def end(self) -> None:
        """End the process; with code 1 where a check failed."""
        sys.exit(0 if all(line.get("ok", True) for line in self.lines) else 1)

    def run(self, *words: object, **changes: str) -> str:
        """Run a `cavmae` command on the part's device; returns its output.

        Raises:
            RuntimeError: it failed; with the end of what it said.
        """
        process = self.start(*words, **changes)
        said, _ = process.communicate()
        if process.returncode:
            raise RuntimeError(f"cavmae {words[0]} ended with {process.returncode}: {said[-1500:]}")
        return said

    def start(self, *words: object, **changes: str) -> subprocess.Popen[str]:
        """Start a `cavmae` command on the part's device (unless told another)."""
        device = [] if "--device" in words else ["--device", str(self.device)]
        return subprocess.Popen(
            [sys.executable, "-m", "cavmae", *map(str, words), *device],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            env={**os.environ, **changes},
            cwd=Path(__file__).resolve().parent.parent,
        )


def relative(found: torch.Tensor, expected: torch.Tensor) -> float:
    """‖found - expected‖ / ‖expected‖, on the CPU in float64; infinite where not finite."""
    found, expected = found.detach().double().cpu(), expected.detach().double().cpu()
    difference = ((found - expected).norm() / expected.norm().clamp_min(1e-30)).item()
    return difference if np.isfinite(difference) else float("inf")


def make_shards(
    folder: Path, clips: int, seconds: float, workers: int, grain: float = 0.0, seed: int = 0
) -> Path:
    """A shard set of the demo's made-up clips, packed from files as `avprep extract` writes them.

    Args:
        folder: to make.
        clips: how many.
        seconds: length of each.
        workers: processes.
        grain: of noise in sound and pictures; 1 for files about as large as those of real clips.
        seed: of everything random.
    """
    if (folder / "shards" / "dataset.json").exists():
        return folder / "shards"
    files = folder / "files"
    for number in range(FRAMES):
        (files / f"frame_{number}").mkdir(parents=True, exist_ok=True)
    made = Parallel(n_jobs=workers)(
        delayed(_make_clip)(files, number, seconds, grain, seed) for number in range(clips)
    )
    labels = label_set_from_names(list(CLASSES))
    options = ShardSetOptions(samples_per_shard=max(clips // (4 * workers), 8))
    build_shard_set(made, labels, str(folder / "shards"), options, PoolOptions(workers=workers))
    return folder / "shards"


def _make_clip(files: Path, number: int, seconds: float, grain: float, seed: int) -> Clip:
    rng = np.random.default_rng((seed, number))
    label = CLASSES[number % len(CLASSES)]
    shape, sound = label.split("-")
    traits = draw_traits(rng)
    frames = render_frames(shape, traits, FRAMES, FRAMES / seconds, SIZE, SIZE, rng)
    waveform = torch.from_numpy(render_sound(sound, traits, seconds, rng)).float()
    pcm = torchaudio.functional.resample(waveform, RENDERED_RATE, RATE).numpy()
    pcm = pcm + grain * rng.normal(0, 150, len(pcm))
    name = f"clip{number:06d}"
    soundfile.write(files / f"{name}.wav", pcm.clip(-32768, 32767).astype(np.int16), RATE)
    for place, frame in enumerate(frames):
        grainy = frame + grain * rng.normal(0, 8, frame.shape)
        jpeg = encode_jpeg(grainy.clip(0, 255).astype(np.uint8), 75)
        (files / f"frame_{place}" / f"{name}.jpg").write_bytes(jpeg)
    return Clip(name, (label,), wav=str(files / f"{name}.wav"), video_path=str(files))


def repeat_shards(shards: Path, out: Path, times: int) -> Path:
    """A set with the same tar files several times, under more names: a longer epoch, no more disk.

    Args:
        shards: a local shard set.
        out: folder of the longer one.
        times: how often each tar file occurs.
    """
    out.mkdir(parents=True)
    info = read_dataset(str(shards))
    longer = []
    for _ in range(times):
        for shard in info.shards:
            name = f"shard-{len(longer):06d}.tar"
            os.link(shards / shard.name, out / name)
            index = ShardIndex.from_bytes(
                (shards / index_name(shard.name)).read_bytes(), shard.name
            )
            (out / index_name(name)).write_bytes(replace(index, name=name).to_bytes())
            longer.append(replace(shard, name=name))
    counts = tuple(count * times for count in info.class_counts)
    write_dataset(
        out,
        replace(
            info, shards=tuple(longer), samples=info.samples * times, clips=info.clips * times,
            class_counts=counts, files={},
        ),
    )  # fmt: skip
    return out
