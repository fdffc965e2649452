"""One sample: its members in the shard, and what training needs of them."""

from __future__ import annotations

import io
import json
from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np
import soundfile
from numpy.typing import NDArray

from avprep.audio import SAMPLE_RATE
from avprep.images import JPEG_END
from avprep.shards.format import SampleEntry


class DamagedSample(Exception):
    """A sample whose bytes are not what the index promises; says in a line which and where."""


@dataclass(frozen=True)
class StoredSample:
    """The members of one sample, as bytes, by their suffix: `json`, `flac` or `wav`, `0.jpg` …"""

    entry: SampleEntry
    members: dict[str, memoryview]


@dataclass(frozen=True)
class DecodedSample:
    """What a batch takes of a sample.

    Attributes:
        entry: what the index says of it.
        pcm: int16 [samples], 16 kHz.
        image: uint8 [frames, size, size, 3], RGB; those asked for.
    """

    entry: SampleEntry
    pcm: NDArray[np.int16]
    image: NDArray[np.uint8]


def decode_sample(
    sample: StoredSample, frames: Sequence[int], longest: int, size: int
) -> DecodedSample:
    """Decode what training needs of a sample.

    Args:
        sample: see `StoredSample`.
        frames: numbers of the frames.
        longest: samples of audio after which the rest is left out.
        size: pixels that a frame's sides must have.

    Raises:
        DamagedSample: a member is missing or cannot be decoded.
    """
    members, video_id = sample.members, sample.entry.video_id
    pcm = _decode_audio(members, longest, video_id)
    pictures = [decode_frame(members, frame, size, video_id) for frame in frames]
    return DecodedSample(sample.entry, pcm, np.stack(pictures))


def _decode_audio(members: dict[str, memoryview], longest: int, video_id: str) -> NDArray[np.int16]:
    data = members.get("flac") or members.get("wav")
    if not data:
        raise DamagedSample(f"{video_id}: has no audio member")
    try:
        expected = min(json.loads(bytes(members["json"]))["num_samples"], longest)
        pcm, rate = soundfile.read(io.BytesIO(data), longest, dtype="int16")
    except (soundfile.LibsndfileError, RuntimeError, ValueError, KeyError, TypeError) as error:
        raise DamagedSample(f"{video_id}: audio: {error}") from error
    if rate != SAMPLE_RATE or pcm.ndim != 1 or not len(pcm):
        raise DamagedSample(f"{video_id}: audio is not {SAMPLE_RATE} Hz mono")
    if len(pcm) != expected:  # a damaged FLAC ends early, without an error
        raise DamagedSample(f"{video_id}: audio ends after {len(pcm)} of {expected} samples")
    return pcm


def decode_frame(
    members: dict[str, memoryview], frame: int, size: int, video_id: str
) -> NDArray[np.uint8]:
    """One frame of a sample: uint8 [size, size, 3], RGB.

    Raises:
        DamagedSample: it is missing, not a JPEG, or of another size.
    """
    jpeg = members.get(f"{frame}.jpg")
    picture = None
    # OpenCV fills the missing part of a cut JPEG with grey, so look for its end mark first.
    if jpeg and jpeg[-2:] == JPEG_END:
        picture = cv2.imdecode(np.frombuffer(jpeg, np.uint8), cv2.IMREAD_COLOR_RGB)
    if picture is None:
        raise DamagedSample(f"{video_id}: frame {frame} is missing or not a JPEG")
    if picture.shape != (size, size, 3):
        height, width = picture.shape[:2]
        raise DamagedSample(
            f"{video_id}: frame {frame} is {width}x{height}, expected {size}x{size}"
        )
    return picture.astype(np.uint8, copy=False)
