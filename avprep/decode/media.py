"""What decoding a clip gives."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from avprep.decode.extent import Extent
from avprep.options import DecodeOptions

SHORTEST_AUDIO = 400  # samples of one fbank window, 25 ms at 16 kHz


@dataclass(frozen=True)
class Segment:
    """[start, end) in seconds after the container's own start; either may be open."""

    start: float | None
    end: float | None

    @property
    def begin(self) -> float:
        return self.start or 0.0


@dataclass(frozen=True)
class Media:
    """A decoded clip.

    Attributes:
        pcm: int16 [samples], mono at the rate asked for (16 kHz by default). Sample 0 is the
            first audio sample of the clip: audio that starts late is not padded. Empty where a
            clip has no audio and `missing_audio` is "omit".
        frames: uint8 [frames, size, size, 3], RGB, in time order.
        frame_times: seconds from the clip's start at which each frame is shown.
        decoder: the engine that read the file, "pyav" or "ffmpeg".
        extent: how much of what the file promises was there.
        is_shortened: whether the clip has more sound than `max_audio` let through.
    """

    pcm: NDArray[np.int16]
    frames: NDArray[np.uint8]
    frame_times: tuple[float, ...]
    decoder: str
    extent: Extent
    is_shortened: bool = False


def no_frames(options: DecodeOptions) -> tuple[NDArray[np.uint8], tuple[float, ...]]:
    """The frames, and their times, of a clip whose video is not read."""
    return np.empty((0, options.frame_size, options.frame_size, 3), np.uint8), ()


def channels_to_mono(
    channels: NDArray[np.int16], how: Literal["first", "mix"]
) -> NDArray[np.int16]:
    """int16 [channels, samples] → int16 [samples]: the first channel, or the mean of all."""
    if how == "first" or len(channels) == 1:
        return channels[0].copy()
    return np.rint(channels.mean(axis=0)).astype(np.int16)
