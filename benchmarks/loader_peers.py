"""Other loaders over the samples of `benchmarks/loader.py`, each as its users would write it.

Run by that script, once per loader, by an interpreter that has it; imports nothing of ours:

    PYTHON benchmarks/loader_peers.py METHOD BATCH_SIZE ROUNDS TAR [TAR ...]

reads all samples of tars of FLAC or WAV and JPEG members in batches, a random one of ten frames
each, and prints JSON: the loader's name and version, and the CPU ms per sample of each round.
"""

from __future__ import annotations

import io
import json
import multiprocessing
import os
import random
import sys
import tarfile
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from importlib import metadata
from itertools import groupby
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")  # figures are for one core

import cv2
import numpy as np
import soundfile

FRAMES, LONGEST = 10, 164080  # 10.24 s

Arrays = tuple[np.ndarray, np.ndarray]
Rounds = tuple[Callable[[], Iterable[Any]], str]  # what yields a round's batches; the package


def decoded(audio: bytes, jpeg: bytes) -> Arrays:
    """int16 [LONGEST] and uint8 [224, 224, 3]."""
    pcm, _ = soundfile.read(io.BytesIO(audio), LONGEST, dtype="int16")
    padded = np.zeros(LONGEST, np.int16)
    padded[: len(pcm)] = pcm
    return padded, cv2.imdecode(np.frombuffer(jpeg, np.uint8), cv2.IMREAD_COLOR_RGB)


def audio_of(sample: dict[str, bytes]) -> bytes:
    """Its FLAC or WAV."""
    return sample.get("flac") or sample["wav"]


def decoded_sample(sample: dict[str, bytes]) -> Arrays:
    """The sound and one of the frames."""
    return decoded(audio_of(sample), sample[f"{random.randrange(FRAMES)}.jpg"])


def stacked(samples: Iterable[Arrays]) -> Arrays:
    """A batch."""
    sounds, pictures = zip(*samples, strict=True)
    return np.stack(sounds), np.stack(pictures)


def samples_of(tars: list[str]) -> Iterator[dict[str, bytes]]:
    """The members of each sample, by suffix."""
    for tar in tars:
        with tarfile.open(tar) as file:
            members = ((member.name.split(".", 1), file.extractfile(member)) for member in file)
            for _, parts in groupby(members, key=lambda part: part[0][0]):
                yield {name[1]: content.read() for name, content in parts if content}


def codecs(tars: list[str], batch_size: int, folder: Path) -> Rounds:
    """The limit: the members lie in memory, and nothing but the codecs is called."""
    held = [
        (audio_of(each), [each[f"{k}.jpg"] for k in range(FRAMES)]) for each in samples_of(tars)
    ]

    def batches() -> Iterator[None]:
        for audio, jpegs in held:
            soundfile.read(io.BytesIO(audio), LONGEST, dtype="int16")
            jpeg = np.frombuffer(random.choice(jpegs), np.uint8)
            cv2.imdecode(jpeg, cv2.IMREAD_COLOR_RGB)
        yield

    return batches, "soundfile"


def webdataset(tars: list[str], batch_size: int, folder: Path) -> Rounds:
    """`WebLoader` with one worker that decodes and collates."""
    import webdataset as wds

    data = wds.WebDataset(tars, shardshuffle=False).shuffle(100).map(decoded_sample)
    loader = wds.WebLoader(data, batch_size=batch_size, num_workers=1, persistent_workers=True)
    return lambda: loader, "webdataset"


def streaming(tars: list[str], batch_size: int, folder: Path) -> Rounds:
    """MosaicML's, with its own format of shards and one worker."""
    from streaming import MDSWriter, StreamingDataset
    from torch.utils.data import DataLoader

    columns = {"flac": "bytes", **{f"{number}.jpg": "bytes" for number in range(FRAMES)}}
    with MDSWriter(out=str(folder), columns=columns) as writer:
        for sample in samples_of(tars):
            writer.write({name: sample[name] for name in columns})

    class Decoded(StreamingDataset):
        def __getitem__(self, at: Any) -> Any:
            return decoded_sample(super().__getitem__(at))

    data = Decoded(local=str(folder), shuffle=True, batch_size=batch_size)
    loader = DataLoader(data, batch_size, num_workers=1, persistent_workers=True)
    return lambda: loader, "mosaicml-streaming"


def spdl(tars: list[str], batch_size: int, folder: Path) -> Rounds:
    """Threads in place of processes: one that decodes, fed by one that reads the tar."""
    from spdl.pipeline import PipelineBuilder

    def batches() -> Iterator[Arrays]:
        pipeline = (
            PipelineBuilder()
            .add_source(samples_of(tars))
            .pipe(decoded_sample, concurrency=1)
            .aggregate(batch_size)
            .pipe(stacked)
            .add_sink(3)
            .build(num_threads=2)
        )
        with pipeline.auto_stop():
            yield from pipeline

    return batches, "spdl_core"


def cpu_seconds() -> float:
    """CPU time so far of this process and its children, with all their threads."""
    nanoseconds = 0
    for child in multiprocessing.active_children():
        for thread in Path(f"/proc/{child.pid}/task").iterdir():
            nanoseconds += int((thread / "schedstat").read_text().split()[0])
    return time.process_time() + nanoseconds / 1e9


def cost_of_round(batches: Iterable[Any], samples: int) -> float:
    """CPU ms per sample of reading all batches."""
    began = cpu_seconds()
    for _ in batches:
        pass
    return (cpu_seconds() - began) / samples * 1000


METHODS = {function.__name__: function for function in (codecs, webdataset, streaming, spdl)}
TOOLS = tuple(name for name in METHODS if name != "codecs")


def main(method: str, batch_size: str, rounds: str, *tars: str) -> None:
    """Measure and print."""
    count = sum(1 for _ in samples_of(list(tars)))
    with tempfile.TemporaryDirectory() as folder:
        batches, package = METHODS[method](list(tars), int(batch_size), Path(folder))
        cost_of_round(batches(), count)  # starts the workers and fills the page cache
        costs = [cost_of_round(batches(), count) for _ in range(int(rounds))]
    tool = f"{package} {metadata.version(package)}"
    print(json.dumps({"tool": tool, "costs": costs}))


if __name__ == "__main__":
    main(*sys.argv[1:])
