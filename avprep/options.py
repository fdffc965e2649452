"""What can be chosen when videos are made or turned into samples, and the defaults, stated once."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal


@dataclass(frozen=True)
class DecodeOptions:
    """How a video becomes `Media`."""

    frames: int = 10  # evenly spaced over the first 10 s; 0 leaves the video unread
    frame_size: int = 224  # pixels, square
    pixels: Literal["square", "stored"] = "square"  # stored: oblong ones as if they were square
    sample_rate: int = 16000  # Hz, mono
    channels: Literal["first", "mix"] = "first"  # the published choice, or the average
    missing_audio: Literal["fail", "silence", "omit"] = "fail"  # omit: no sample; not for shards
    decoder: Literal["auto", "pyav", "ffmpeg"] = "auto"
    max_audio: float = 30.0  # seconds of sound that a sample holds at most, from the clip's start
    incomplete: Literal["fail", "keep"] = "keep"  # of files that hold less than they promise


@dataclass(frozen=True)
class SampleOptions:
    """How a clip becomes the members of a sample."""

    decode: DecodeOptions = field(default_factory=DecodeOptions)
    audio: Literal["flac", "wav"] = "flac"
    jpeg_quality: int = 75


@dataclass(frozen=True)
class IsolationOptions:
    """What one clip may cost before it is given up."""

    time_limit: float = 120.0  # seconds a clip
    memory_limit: float = 4.0  # GiB a worker


@dataclass(frozen=True)
class DemoDataOptions:
    """The made-up videos."""

    train_clips: int = 64  # per class
    test_clips: int = 12  # per class
    seconds: float = 1.5
    seed: int = 0
