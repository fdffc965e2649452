"""The options of avprep's commands, each stated once; `avprep.option` says how.

Imports nothing heavy: `--help` shows them.
"""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from typing import Literal

from avprep.option import Options, option


@dataclass(frozen=True)
class DecodeOptions(Options):
    """How a video becomes `Media`."""

    frames: int = option(  # 0 leaves the video unread
        10, "Frames per clip, evenly spaced over its first 10 s.", at_least=1, also=(0,)
    )
    frame_size: int = option(224, "Width and height of a frame in pixels.", at_least=16)
    pixels: Literal["square", "stored"] = option(
        "square",
        "Show oblong pixels as the file says, or as if they were square, as published.",
    )
    sample_rate: int = 16000  # Hz, mono; what the front end of the models is made for
    channels: Literal["first", "mix"] = option(
        "first", "Mono from the first channel, as published, or from all of them."
    )
    missing_audio: Literal["fail", "silence", "omit"] = option(  # omit: no sample; not for shards
        "fail", "What a clip without an audio stream becomes.", also=("omit",)
    )
    decoder: Literal["auto", "pyav", "ffmpeg"] = option(
        "auto", "auto: PyAV, and ffmpeg + OpenCV for files that PyAV cannot read."
    )
    max_audio: float = option(
        30.0, "Seconds of sound that a sample holds at most, from the clip's start.", at_least=1
    )
    incomplete: Literal["keep", "fail"] = option(
        "keep", "What a clip becomes whose file holds less than it promises."
    )


@dataclass(frozen=True)
class SampleOptions(Options):
    """How a clip becomes the members of a sample."""

    decode: DecodeOptions = field(default_factory=DecodeOptions)
    audio: Literal["flac", "wav"] = option(
        "flac", "Both are lossless: flac is half the size, wav loads several times faster."
    )
    jpeg_quality: int = option(
        75, "Quality of the frames' JPEG files; 75 as published.", at_least=1, at_most=100
    )


@dataclass(frozen=True)
class IsolationOptions(Options):
    """What one clip may cost before it is given up."""

    time_limit: float = option(120.0, "Seconds that one clip may take.", above=0)
    memory_limit: float = option(4.0, "GiB that decoding one clip may take.", at_least=0.25)


@dataclass(frozen=True)
class PoolOptions(Options):
    """Who does the work."""

    workers: int = option(0, "Worker processes. [default: one per core]", at_least=0)
    backend: Literal["loky", "dask", "ray"] = option(
        "loky", "joblib back end: processes here, or a dask or ray cluster."
    )
    address: str = option(
        "", "Address of a running dask scheduler or ray cluster. [default: a local one]"
    )

    def count(self) -> int:
        """Number of workers."""
        return self.workers or available_cores()


def available_cores() -> int:
    """Cores this process may use, which a container or Slurm may have limited."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


@dataclass(frozen=True)
class DemoDataOptions(Options):
    """The made-up videos."""

    train_clips: int = option(64, "Clips per class.", at_least=1)
    test_clips: int = option(12, "Clips per class.", at_least=0)
    seconds: float = option(1.5, "Length of a clip.", at_least=1)
    seed: int = option(0, "Seed of all that varies.")
