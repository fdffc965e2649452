"""One sample: its members in the shard, and what training needs of them."""

from __future__ import annotations

import io
import json
from dataclasses import dataclass

import cv2
import numpy as np
import soundfile
from numpy.typing import NDArray

from avprep.audio import SAMPLE_RATE, plain_wav
from avprep.images import JPEG_END
from avprep.shards.format import SampleEntry


class DamagedSample(Exception):
    """A sample whose bytes are not what the index promises; says in a line which and where."""


@dataclass(frozen=True)
class Wanted:
    """What is wanted of a sample."""

    audio: bool
    frames: tuple[int, ...]


@dataclass(frozen=True)
class StoredSample:
    """Members of one sample, as bytes, by their suffix: `json`, `flac` or `wav`, `0.jpg` …

    What is wanted is among them, and whatever lies between.
    """

    entry: SampleEntry
    members: dict[str, memoryview]


@dataclass(frozen=True)
class DecodedSample:
    """One decoded sample.

    Attributes:
        pcm: int16 [samples], 16 kHz; empty where no audio is wanted.
        image: uint8 [frames, 3, size, size], RGB; those that are wanted.
    """

    pcm: NDArray[np.int16]
    image: NDArray[np.uint8]


def decode_sample(sample: StoredSample, wanted: Wanted, longest: int, size: int) -> DecodedSample:
    """Decode what is wanted of a sample.

    Args:
        sample: see `StoredSample`.
        wanted: see `Wanted`.
        longest: samples of audio after which the rest is left out.
        size: pixels that a frame's sides must have.

    Raises:
        DamagedSample: a member is missing or cannot be decoded.
    """
    pcm = np.empty(min(sample.entry.num_samples or longest, longest), np.int16)
    image = np.empty((len(wanted.frames), 3, size, size), np.uint8)
    return DecodedSample(pcm[: decode_into(sample, wanted, pcm, image)], image)


def decode_into(
    sample: StoredSample, wanted: Wanted, pcm: NDArray[np.int16], image: NDArray[np.uint8]
) -> int:
    """Decode what is wanted of a sample into a row of a batch.

    Args:
        sample: see `StoredSample`.
        wanted: see `Wanted`.
        pcm: int16 [longest]: gets the audio as far as it fits, and zeros after it.
        image: uint8 [frames, 3, size, size]: gets the frames.

    Returns:
        The samples of audio.

    Raises:
        DamagedSample: a member is missing or cannot be decoded.
    """
    length = _decode_audio(sample, pcm) if wanted.audio else 0
    pcm[length:] = 0
    for place, frame in zip(image, wanted.frames, strict=True):
        picture = decode_frame(sample.members, frame, place.shape[-1], sample.entry.video_id)
        # Channels move to the front here, so that the copy to the device is contiguous.
        cv2.split(picture, list(place))
    return length


def _decode_audio(sample: StoredSample, pcm: NDArray[np.int16]) -> int:
    members, video_id = sample.members, sample.entry.video_id
    data = members.get("flac") or members.get("wav")
    if not data:
        raise DamagedSample(f"{video_id}: has no audio member")
    try:
        # An old index does not say how many samples there are, and has the JSON read along.
        stored = sample.entry.num_samples or json.loads(bytes(members["json"]))["num_samples"]
        expected = min(stored, len(pcm))
        if (sound := plain_wav(data)) is not None:
            found = min(len(sound), expected)
            pcm[:found] = sound[:found]
            has_more = found == stored < len(sound)
        else:
            with soundfile.SoundFile(io.BytesIO(data)) as file:
                if file.samplerate != SAMPLE_RATE or file.channels != 1:
                    raise DamagedSample(f"{video_id}: audio is not {SAMPLE_RATE} Hz mono")
                found = len(file.read(out=pcm[:expected]))
                has_more = found == stored < file.frames and len(file.read(1)) > 0
    except (soundfile.LibsndfileError, RuntimeError, ValueError, KeyError, TypeError) as error:
        # soundfile's own text says where in memory the bytes are
        what = getattr(error, "error_string", error)
        raise DamagedSample(f"{video_id}: audio: {what}") from error
    if found < max(expected, 1):  # a damaged FLAC ends early, without an error
        raise DamagedSample(f"{video_id}: audio ends after {found} of {expected} samples")
    if has_more:
        raise DamagedSample(f"{video_id}: audio has more than {expected} samples")
    return found


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
