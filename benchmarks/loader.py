"""How much CPU a loaded sample costs, beside the published loader.

Makes clips of 10 s in the published layout and shard sets (WAV and FLAC) of the same clips, then
counts the CPU time of all processes of

- ours: `ShardLoader`, whole batches through a worker process and without one; and the FLAC clips
  once more, dealt out to two sets that are read as a mixture;
- the published loader re-created: an item is a WAV file read, its mean subtracted, one Kaldi
  fbank, padding, normalising, noise and roll; a JPEG read, resized (bicubic), cropped, normalised;
  collated by `DataLoader` through a worker process;
- the limits: the same FLAC or WAV and JPEGs, held in memory, decoded by libsndfile and OpenCV and
  nothing else;
- the FLAC clips through other loaders (`loader_peers.py`) that are installed, one worker each.

The rounds of all sides but the last are interleaved, so that a busy machine slows all of them, and
medians are compared. What ours leaves to the training device (the front end) is a row of its own:
its cost if that device is this CPU.

    python benchmarks/loader.py
    python benchmarks/loader.py --quick    # less of everything
    python benchmarks/loader.py --peer streaming=~/peers/loaders/bin/python
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")  # figures are for one core

import numpy as np
import soundfile
import torch
import torchaudio
from loader_peers import TOOLS, codecs, cost_of_round
from PIL import Image
from rows import Row, add_peer_option, add_rows_option, part, times, write_rows
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from avprep.clips import Clip
from avprep.jobs import PoolOptions
from avprep.labels import label_set_from_names
from avprep.options import IsolationOptions, SampleOptions
from avprep.shards.build import ShardSetOptions, build_shard_set
from cavmae.data import LoaderOptions, Mixture, ShardLoader, ShardSet
from cavmae.frontend import FrontEnd, FrontEndOptions

SECONDS, FRAMES, SIZE = 10, 10, 224
PEERS = Path(__file__).with_name("loader_peers.py")
GOALS = {"wav": (1.4, 15), "flac": (4.5, 5)}  # CPU ms per sample, times the published loader
LIMITS = {"wav": 1.3, "flac": 1.15}  # times the codecs alone
WORKERS = {"one worker": 1, "no worker": 0}


class PublishedItems(Dataset[tuple[Tensor, Tensor, Tensor]]):
    """What the published data set does for an item of pretraining."""

    def __init__(self, folder: Path, ids: list[str], classes: int) -> None:
        self.folder, self.ids, self.classes = folder, ids, classes

    def __len__(self) -> int:
        return len(self.ids)

    def __getitem__(self, number: int) -> tuple[Tensor, Tensor, Tensor]:
        video_id = self.ids[number]
        labels = torch.zeros(self.classes)
        labels[number % self.classes] = 1.0
        return self.audio(video_id), self.image(video_id), labels

    def audio(self, video_id: str) -> Tensor:
        """float32 [1024, 128]."""
        pcm, rate = soundfile.read(self.folder / "audio" / f"{video_id}.wav", dtype="float32")
        waveform = torch.from_numpy(pcm)[None]
        waveform = waveform - waveform.mean()
        fbank = torchaudio.compliance.kaldi.fbank(
            waveform, htk_compat=True, sample_frequency=rate, use_energy=False,
            window_type="hanning", num_mel_bins=128, dither=0.0, frame_shift=10,
        )  # fmt: skip
        fbank = torch.nn.ZeroPad2d((0, 0, 0, 1024 - len(fbank)))(fbank)
        fbank = (fbank + 5.081) / 4.4849
        fbank = fbank + torch.rand(1024, 128) * np.random.rand() / 10
        return torch.roll(fbank, np.random.randint(-1024, 1024), 0)

    def image(self, video_id: str) -> Tensor:
        """float32 [3, 224, 224]."""
        frame = np.random.randint(FRAMES)
        path = self.folder / "frames" / f"frame_{frame}" / f"{video_id}.jpg"
        picture = Image.open(path).convert("RGB")
        if min(picture.size) != SIZE:
            picture = picture.resize((SIZE, SIZE), Image.Resampling.BICUBIC)
        pixels = torch.from_numpy(np.array(picture)).permute(2, 0, 1).contiguous().float() / 255
        mean = torch.tensor([0.485, 0.456, 0.406]).view(3, 1, 1)
        std = torch.tensor([0.229, 0.224, 0.225]).view(3, 1, 1)
        return (pixels - mean) / std


def make_clips(folder: Path, count: int) -> list[Clip]:
    """Files in the published layout: coloured noise with tones, and smooth pictures with grain."""
    rng = np.random.default_rng(0)
    (folder / "audio").mkdir()
    for number in range(FRAMES):
        (folder / "frames" / f"frame_{number}").mkdir(parents=True)
    clips = []
    times = np.arange(SECONDS * 16000) / 16000
    for number in range(count):
        video_id = f"clip{number:05d}"
        noise = np.fft.irfft(np.fft.rfft(rng.standard_normal(len(times))) / np.arange(1, 80002))
        tone = np.sin(2 * np.pi * rng.uniform(100, 3000) * times)
        sound = noise / np.abs(noise).max() * 0.5 + 0.2 * tone
        sound += 0.003 * rng.standard_normal(len(times))
        wav = folder / "audio" / f"{video_id}.wav"
        soundfile.write(wav, (sound * 32767).astype(np.int16), 16000)
        for frame in range(FRAMES):
            coarse = Image.fromarray(rng.integers(0, 256, (12, 12, 3), dtype=np.uint8))
            smooth = np.asarray(coarse.resize((SIZE, SIZE), Image.Resampling.BICUBIC))
            grainy = smooth + rng.normal(0, 4, smooth.shape)
            picture = Image.fromarray(grainy.clip(0, 255).astype(np.uint8))
            picture.save(folder / "frames" / f"frame_{frame}" / f"{video_id}.jpg", quality=75)
        clips.append(
            Clip(video_id, (str(number % 4),), wav=str(wav), video_path=str(folder / "frames"))
        )
    return clips


def shard(clips: list[Clip], out: Path, audio: str) -> ShardSet:
    """The clips as a shard set."""
    labels = label_set_from_names([str(number) for number in range(4)])
    options = ShardSetOptions(SampleOptions(audio=audio), IsolationOptions())  # type: ignore[arg-type]
    build_shard_set(clips, labels, str(out), options, PoolOptions(workers=1))
    return ShardSet.open(out)


def anonymous_memory() -> float:
    """MB of memory of this process and its children that no file stands behind."""
    total = 0
    for pid in (os.getpid(), *(child.pid for child in multiprocessing.active_children())):
        status = Path(f"/proc/{pid}/status").read_text()
        total += int(status.split("RssAnon:")[1].split()[0])
    return total / 1024


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--quick", action="store_true", help="few clips, one round")
    parser.add_argument("--clips", type=int, default=144)
    parser.add_argument("--batch-size", type=int, default=48)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--memory-epochs", type=int, default=20)
    add_peer_option(parser, TOOLS)
    add_rows_option(parser)
    arguments = parser.parse_args()
    if arguments.quick:
        parser.set_defaults(clips=8, batch_size=4, rounds=1, memory_epochs=2)
        arguments = parser.parse_args()
    torch.set_num_threads(1)
    size = arguments.batch_size
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        clips = make_clips(folder, arguments.clips)
        sets = {audio: shard(clips, folder / audio, audio) for audio in GOALS}
        halves = [shard(clips[first::2], folder / f"half-{first}", "flac") for first in (0, 1)]
        ours = {
            f"{audio}, {how}": ShardLoader(shards, LoaderOptions(size, workers))
            for audio, shards in sets.items()
            for how, workers in WORKERS.items()
        }
        ours["mixture"] = ShardLoader(Mixture(halves), LoaderOptions(size, workers=1))
        items = PublishedItems(folder, [clip.video_id for clip in clips], 4)
        published = DataLoader(
            items, size, shuffle=True, num_workers=1, persistent_workers=True,
            worker_init_fn=lambda _: torch.set_num_threads(1),
        )  # fmt: skip
        tars = {audio: sorted(map(str, (folder / audio).glob("*.tar"))) for audio in GOALS}
        limits = {f"{audio}, codecs": codecs(tars[audio], size, folder)[0] for audio in GOALS}
        sides: dict[str, Callable[[int], Iterable[Any]]] = {
            "published": lambda _: published,
            **{side: loader.epoch for side, loader in ours.items()},
            **{side: lambda _, limit=limit: limit() for side, limit in limits.items()},
        }
        costs: dict[str, list[float]] = {side: [] for side in sides}
        for number in range(arguments.rounds + 1):
            for side, batches in sides.items():
                costs[side].append(cost_of_round(batches(number), arguments.clips))
        front = front_end_cost(ours["wav, one worker"])
        memory = memory_over_epochs(ours["flac, one worker"], arguments.memory_epochs)
        peers = dict(costs_of_peers(dict(arguments.peer), tars["flac"], size, arguments.rounds))
    # The first round starts the workers and fills the page cache.
    medians = {side: statistics.median(values[1:]) for side, values in costs.items()}
    report(medians, front, peers)
    write_rows(arguments.rows, rows(medians, peers))
    samples = arguments.clips * arguments.memory_epochs
    print(f"\nMemory (FLAC, main process and workers, anonymous) over {samples} samples: "
          f"{memory[0]:.0f} MB after a tenth, {memory[1]:.0f} MB at the end.")  # fmt: skip


def rows(medians: dict[str, float], peers: dict[str, float]) -> Iterator[Row]:
    """The rows of `make bench`."""
    what = {audio: f"loading a sample of 10 s, {audio.upper()}: CPU" for audio in GOALS}
    for audio, (limit, factor) in GOALS.items():
        own = medians[f"{audio}, one worker"]
        yield Row(
            what[audio], f"{own:.2f} ms",
            f"published loader, re-created: {medians['published']:.2f} ms",
            part(own, medians["published"]), f"≤ {limit} ms, 1/{factor}",
        )  # fmt: skip
    for audio, most in LIMITS.items():
        alone = medians[f"{audio}, codecs"]
        for how in WORKERS:
            own = medians[f"{audio}, {how}"]
            yield Row(what[audio], f"{how}: {own:.2f} ms", f"the codecs alone: {alone:.2f} ms",
                      times(own, alone), f"≤ {most}×")  # fmt: skip
    own, mixed = medians["flac, one worker"], medians["mixture"]
    yield Row(what["flac"], f"two sets mixed: {mixed:.2f} ms", f"one set: {own:.2f} ms",
              times(mixed, own))  # fmt: skip
    for tool, cost in peers.items():
        yield Row(what["flac"], f"{own:.2f} ms", f"{tool}: {cost:.2f} ms", part(own, cost))


def costs_of_peers(
    pythons: dict[str, str], tars: list[str], batch_size: int, rounds: int
) -> Iterator[tuple[str, float]]:
    """Name and CPU ms per sample of each loader that is installed."""
    for method in TOOLS:
        python = pythons.get(method, sys.executable)
        command = [python, PEERS, method, str(batch_size), str(rounds), *tars]
        result = subprocess.run(command, capture_output=True, text=True)
        if result.returncode:
            reason = (result.stderr.strip().splitlines() or ["no message"])[-1]
            print(f"Left out: {method} ({reason})")
            continue
        found = json.loads(result.stdout.strip().rpartition("\n")[2])
        yield found["tool"], statistics.median(found["costs"])


def front_end_cost(loader: ShardLoader) -> float:
    """CPU ms per sample of the front end."""
    frontend = FrontEnd(FrontEndOptions(noise=True))
    generator = torch.Generator().manual_seed(0)
    costs = []
    for batch in loader.epoch(0):
        began = time.process_time()
        frontend(batch, generator)
        costs.append((time.process_time() - began) / len(batch) * 1000)
    return statistics.median(costs)


def memory_over_epochs(loader: ShardLoader, epochs: int) -> tuple[float, float]:
    """Anonymous memory in MB after a tenth of the epochs, and after all."""
    readings = []
    for epoch in range(epochs):
        for _ in loader.epoch(epoch):
            pass
        readings.append(anonymous_memory())
    return readings[epochs // 10], readings[-1]


def report(costs: dict[str, float], front: float, peers: dict[str, float]) -> None:
    """Print the Markdown table."""
    published = costs["published"]
    print("| loader | CPU ms per sample | goal | of the published | goal | samples/s on 16 cores |")
    print("|---|---|---|---|---|---|")
    print(f"| published, re-created (WAV) | {published:.2f} | | 1 | | {16000 / published:.0f} |")
    for audio, (limit, factor) in GOALS.items():
        cost = costs[f"{audio}, one worker"]
        print(
            f"| ours, {audio.upper()} | {cost:.2f} | ≤ {limit} | 1/{published / cost:.1f} "
            f"| 1/{factor} | {16000 / cost:.0f} |"
        )
    for tool, cost in (
        ("ours, FLAC, two sets mixed", costs["mixture"]),
        ("ours, FLAC, no worker", costs["flac, no worker"]),
        ("the codecs alone, FLAC", costs["flac, codecs"]),
        ("ours, WAV, no worker", costs["wav, no worker"]),
        ("the codecs alone, WAV", costs["wav, codecs"]),
        *peers.items(),
    ):
        print(f"| {tool} | {cost:.2f} | | 1/{published / cost:.1f} | | {16000 / cost:.0f} |")
    print(f"| front end, if on this CPU | {front:.2f} | | | | |")
    print("\n| a GPU that trains | needs cores, FLAC | WAV | published |\n|---|---|---|---|")
    for need in (300, 1000, 3000):
        sides = ("flac, one worker", "wav, one worker", "published")
        cores = [costs[side] * need / 1000 for side in sides]
        print(f"| {need} samples/s | " + " | ".join(f"{count:.1f}" for count in cores) + " |")


if __name__ == "__main__":
    main()
