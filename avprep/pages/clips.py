"""What a page shows of one clip, made from its members in a shard."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from avprep.audio import decode_audio
from avprep.pages.page import data_uri
from avprep.pages.pictures import (
    WAVEFORM_HEIGHT,
    WAVEFORM_WIDTH,
    spectrogram_image,
    waveform_path,
)

_FRAMES_COVER = 10.0  # seconds; frames are spaced evenly over the first ten


@dataclass(frozen=True)
class FrameView:
    """One frame of a clip."""

    picture: str  # data URI
    time: float  # seconds from the clip's start
    caption: str  # the time, for people; empty if it is an estimate


@dataclass(frozen=True)
class ClipView:
    """A clip as the macro `clip_player` of clip.html shows it."""

    video_id: str
    seconds: float
    audio: str  # data URI; this and the two that follow are empty for a clip without sound
    spectrogram: str  # data URI
    waveform: str  # `d` of an SVG path
    frames: tuple[FrameView, ...]
    source: str  # the file it was made from
    waveform_box: tuple[int, int] = (WAVEFORM_WIDTH, WAVEFORM_HEIGHT)


def view_clip(members: Mapping[str, bytes | memoryview]) -> ClipView:
    """A clip from the members of its sample, by suffix (`json`, `flac` or `wav`, `0.jpg` …).

    Raises:
        ValueError: a member is missing or damaged; says which.
    """
    try:
        facts = json.loads(bytes(members["json"]))
        kind = "flac" if "flac" in members else "wav"
        numbers = sorted(int(name[:-4]) for name in members if name.endswith(".jpg"))
        pictures = [data_uri("image/jpeg", members[f"{number}.jpg"]) for number in numbers]
        rate, times = int(facts["sample_rate"]), [float(time) for time in facts["frame_times"]]
        video_id, source = str(facts["video_id"]), str(facts["source"])
        expected = int(facts["num_samples"])
        has_sound = "audio" in facts.get("modalities", ["audio"])  # not in older sets
        sound = bytes(members[kind]) if has_sound else b""
    except KeyError as error:
        raise ValueError(f"has no {error.args[0]!r}") from error
    except TypeError as error:
        raise ValueError(f"its JSON is not a sample's ({error})") from error
    try:
        pcm = decode_audio(sound, rate) if sound else np.empty(0, np.int16)
    except RuntimeError as error:
        raise ValueError(f"audio: {error}") from error
    if len(pcm) != expected:  # a damaged FLAC ends early, without an error
        raise ValueError(f"audio: ends after {len(pcm)} of {expected} samples")
    seconds = len(pcm) / rate
    return ClipView(
        video_id=video_id,
        seconds=seconds,
        audio=data_uri(f"audio/{kind}", sound) if sound else "",
        spectrogram=data_uri("image/webp", spectrogram_image(pcm, rate)) if sound else "",
        waveform=waveform_path(pcm) if sound else "",
        frames=_frame_views(pictures, times, seconds),
        source=source,
    )


def _frame_views(
    pictures: Sequence[str], times: Sequence[float], seconds: float
) -> tuple[FrameView, ...]:
    if len(times) == len(pictures):
        return tuple(
            FrameView(picture, time, f"{time:.1f} s")
            for picture, time in zip(pictures, times, strict=True)
        )
    # Packed files come without times: spread them for the player, and claim nothing.
    step = min(seconds, _FRAMES_COVER) / max(1, len(pictures))
    return tuple(FrameView(picture, n * step, "") for n, picture in enumerate(pictures))
