"""What an engine is asked for, what it reads, and the `Media` made from that."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from avprep.decode.extent import Extent, PacketSpans
from avprep.decode.frames import PUBLISHED_SECONDS, Window
from avprep.decode.header import Header, Kind
from avprep.errors import DecodeError
from avprep.options import DecodeOptions

SHORTEST_AUDIO = 400  # samples of one fbank window, 25 ms at 16 kHz
NO_VIDEO, NO_AUDIO = "has no video stream", "has no audio stream"


@dataclass(frozen=True)
class Request:
    """A clip to decode.

    Attributes:
        path: the video file.
        start: seconds after the container's own start; 0 for the file's beginning.
        end: the same, exclusive; infinite for the file's end.
        options: frames, sizes, channels.
        header: what the file says of itself.
    """

    path: str | Path
    start: float
    end: float
    options: DecodeOptions
    header: Header

    def window(self, origin: float) -> Window:
        """The clip on a clock by which the container starts at `origin`."""
        return Window(origin + self.start if self.start else None, origin + self.end)


@dataclass(frozen=True)
class Reading:
    """What an engine read of a clip.

    Attributes:
        decoder: the engine, "pyav" or "ffmpeg".
        origin: seconds, the container's start on the file's own clock.
        spans: when the packets that were read are shown and heard.
        frames, frame_times: as in `Media`.
        pcm: as in `Media`, or a little longer; None if the file has no audio stream.
    """

    decoder: str
    origin: float
    spans: PacketSpans
    frames: NDArray[np.uint8]
    frame_times: tuple[float, ...]
    pcm: NDArray[np.int16] | None


@dataclass(frozen=True)
class Media:
    """A decoded clip.

    Attributes:
        pcm: int16 [samples], mono at the rate asked for (16 kHz by default). Sample 0 is the
            first audio sample of the clip: audio that starts late is not padded. Empty if the
            clip has no audio and `missing_audio` is "omit".
        frames: uint8 [frames, size, size, 3], RGB, in time order. None if no frames are asked
            for, or the clip has no video and `missing_video` is "omit"; one frame of a picture.
        frame_times: seconds from the clip's start at which each frame is shown.
        decoder: the engine that read the file, "pyav" or "ffmpeg".
        extent: how much of the promised length the file has.
        is_shortened: whether the clip has more sound than `max_audio`.
    """

    pcm: NDArray[np.int16]
    frames: NDArray[np.uint8]
    frame_times: tuple[float, ...]
    decoder: str
    extent: Extent
    is_shortened: bool = False


def to_media(request: Request, reading: Reading) -> Media:
    """Compare what was read with what the file promises, and replace sound that it lacks.

    Raises:
        DecodeError: too-short or no-audio.
    """
    options, rate = request.options, request.options.sample_rate
    begin, end = reading.origin + request.start, reading.origin + request.end
    wanted: dict[Kind, float] = {}
    if len(reading.frames):
        wanted["video"] = min(begin + PUBLISHED_SECONDS, end)
    pcm = np.empty(0, np.int16)
    if reading.pcm is not None:
        wanted["audio"] = min(begin + options.max_audio, end)
        pcm = reading.pcm[: round(options.max_audio * rate)]
    is_shortened = reading.pcm is not None and len(reading.pcm) > len(pcm)
    heard = None if reading.pcm is None else len(pcm) / rate
    extent = reading.spans.extent(request.header, begin, wanted, heard)
    if not len(pcm):
        _check_may_lack_audio(request, reading)
        if options.missing_audio == "silence":
            seconds = reading.spans.length("video", begin, end)
            is_shortened = seconds > options.max_audio
            pcm = np.zeros(round(min(seconds, options.max_audio) * rate), np.int16)
    if len(pcm) < SHORTEST_AUDIO and (len(pcm) or options.missing_audio != "omit"):
        raise DecodeError("too-short", f"{request.path}: {len(pcm) / rate:.3f} s of audio")
    return Media(pcm, reading.frames, reading.frame_times, reading.decoder, extent, is_shortened)


def _check_may_lack_audio(request: Request, reading: Reading) -> None:
    """Refuse a clip without a sample of sound, unless there are pictures and they suffice."""
    options, begin = request.options, reading.origin + request.start
    is_over = not len(reading.frames) or (reading.spans.end("video") or begin) <= begin
    if request.start and is_over:
        detail = f"{request.path}: has nothing to show or to hear from {request.start:g} s on"
        raise DecodeError("too-short", detail)
    if options.missing_audio == "fail" or not len(reading.frames):
        detail = "its audio stream holds no sample in the clip"
        detail = NO_AUDIO if reading.pcm is None else detail
        raise DecodeError("no-audio", f"{request.path}: {detail}")


def no_frame_error(request: Request, detail: str) -> DecodeError:
    """The error for a clip without a frame."""
    if request.start:
        detail = f"{request.path}: ends before the segment at {request.start:g} s"
        return DecodeError("too-short", detail)
    return DecodeError("no-frames", f"{request.path}: {detail}")


def no_frames(options: DecodeOptions) -> tuple[NDArray[np.uint8], tuple[float, ...]]:
    """The frames, and their times, of a clip whose video is not read."""
    return np.empty((0, options.frame_size, options.frame_size, 3), np.uint8), ()
