"""The sound of a clip in the first engine: decoded packet by packet, resampled in large pieces."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from math import gcd, isinf
from typing import Literal

import numpy as np
from av.audio.frame import AudioFrame
from av.audio.resampler import AudioResampler
from av.audio.stream import AudioStream
from av.packet import Packet
from numpy.typing import NDArray

from avprep.decode.frames import Window
from avprep.decode.libav import decoded
from avprep.options import DecodeOptions

# Seconds decoded before a segment: codecs depend on what came before (MP3's bit reservoir, SBR's
# headers, Opus' 80 ms) to give the samples that decoding from the beginning gives.
PREROLL = 0.5
_RESAMPLER_REACH = 512  # source samples around a sample that the resampler's filter uses
_PIECE = 1 << 16  # source samples resampled at once; small next to a core's cache
_SURVEY_FRAMES = 3
_SHORTEST_HOLE = 0.02  # seconds without sound in a stream; less is jitter of its clock


class AudioTrack:
    """Takes the packets of an audio stream, gives the clip's samples.

    Args:
        stream: where they come from.
        window: the clip, on the file's clock.
        options: rate and channels.
    """

    def __init__(self, stream: AudioStream, window: Window, options: DecodeOptions) -> None:
        self.stream = stream
        self.complete = False
        self._options = options
        self._begin, self._end = window.begin, window.end
        self._base = float(stream.time_base)
        self._layout: _Layout | None = None
        self._position = 0  # of the next decoded sample, counted from the stream's beginning
        self._fed_from: int | None = None  # position of the first sample given to the resampler
        # (position, samples) of pauses, such as a muted recorder's, which are left out
        self._holes: list[tuple[int, int]] = []
        self._resampler = _MonoResampler(options.sample_rate)
        stream.codec_context.thread_count = 1

    def survey(self, packets: Iterable[Packet]) -> None:
        """Learn from the stream's first packets where its samples lie, before a seek."""
        frames: list[AudioFrame] = []
        for packet in packets:
            frames += decoded(self.stream.codec_context, packet)
            if len(frames) >= _SURVEY_FRAMES:
                break
        if frames:
            self._layout = _Layout.of(frames, self._base)
        self.stream.codec_context.flush_buffers()

    def add(self, packet: Packet) -> None:
        """Decode and resample one packet."""
        if not (self.complete or self._is_long_before(packet)):
            self._add_frames(packet)

    def samples(self) -> NDArray[np.int16]:
        """int16 [samples]: the clip's, of which those after `max_audio` may be incomplete."""
        if not self.complete:
            self._add_frames(None)  # what the decoder holds back at the end of the file
        pcm = self._resampler.finish()
        if self._layout is None or self._fed_from is None:
            return pcm
        first = 0 if self._begin is None else self._place_of(self._begin)
        last = len(pcm) if isinf(self._end) else min(self._place_of(self._end), len(pcm))
        return pcm[first : max(last, first)]

    def _place_of(self, time: float) -> int:
        """Which of the resampled samples is heard at a time of the container's clock.

        Rounded on the grid of the whole file's samples, so that neighbouring segments share no
        sample and lose none.
        """
        rate, source_rate = self._options.sample_rate, self._layout.rate
        place = round((time - self._layout.time) * rate) - self._fed_from * rate // source_rate
        for position, length in self._holes:
            before = (position - self._fed_from) * rate // source_rate
            if place > before:
                place = max(place - round(length * rate / source_rate), before)
        return max(place, 0)

    def _is_long_before(self, packet: Packet) -> bool:
        if self._begin is None or packet.pts is None:
            return False
        return (packet.pts + (packet.duration or 0)) * self._base < self._begin - PREROLL

    def _add_frames(self, packet: Packet | None) -> None:
        for frame in decoded(self.stream.codec_context, packet):
            self._add_frame(frame)

    def _add_frame(self, frame: AudioFrame) -> None:
        self._layout = self._layout or _Layout.of([frame], self._base)
        mono = to_mono(frame, self._options.channels)
        if self._fed_from is None:
            if self._begin is not None:
                self._position = self._layout.position(frame)
            skip = self._samples_before_grid(self._layout.rate)
            if skip >= len(mono):
                return
            mono = mono[skip:]
            self._position = self._fed_from = self._position + skip
        elif frame.pts is not None:
            expected = self._position + self._left_out()
            hole = self._layout.position(frame) - expected
            if hole > _SHORTEST_HOLE * self._layout.rate:
                self._holes.append((self._position, hole))
        self._position += len(mono) * self._layout.rate // frame.sample_rate
        self._resampler.add(mono, frame.sample_rate)
        self.complete = self._position >= self._last_needed()

    def _left_out(self) -> int:
        """Samples that would fill all pauses so far."""
        return sum(length for _, length in self._holes)

    def _last_needed(self) -> float:
        """The position after which the clip's last sample is certainly resampled."""
        rate, time = self._layout.rate, self._layout.time
        begin = self._fed_from if self._begin is None else (self._begin - time) * rate
        last = max(begin, self._fed_from) + self._options.max_audio * rate
        return min(last, (self._end - time) * rate - self._left_out()) + _RESAMPLER_REACH

    def _samples_before_grid(self, rate: int) -> int:
        """Source samples to drop so that resampling starts on the whole file's grid.

        44.1 kHz and 16 kHz meet every 441 source samples. Starting there, a little before the
        segment, gives the samples that resampling the file from its beginning would give.
        """
        if self._begin is None:
            return 0
        period = rate // gcd(rate, self._options.sample_rate)
        target = int((self._begin - self._layout.time) * rate) - _RESAMPLER_REACH
        target = max(target // period * period, 0)
        is_behind = target < self._position
        return -self._position % period if is_behind else target - self._position


@dataclass(frozen=True)
class _Layout:
    """Where the samples of a stream lie in time, learned from its first frames.

    Time stamps may be off by a sample, or by half a millisecond where the container counts
    milliseconds. Codecs cut sound into blocks of one size, so counting blocks gives the exact
    position after a seek.
    """

    time: float  # seconds, of sample 0
    rate: int  # samples per second
    first: int  # samples in the first frame, which an encoder's delay may have shortened
    size: int  # samples in each later frame; 0: unknown, or they vary
    base: float  # seconds per unit of time stamps

    @classmethod
    def of(cls, frames: list[AudioFrame], base: float) -> _Layout:
        first = frames[0]
        later = {frame.samples for frame in frames[1:]}
        return cls(
            time=0.0 if first.pts is None else first.pts * base,
            rate=first.sample_rate,
            first=first.samples,
            size=later.pop() if len(later) == 1 else 0,
            base=base,
        )

    def position(self, frame: AudioFrame) -> int:
        """Number of samples before a frame, counted from the stream's beginning."""
        if frame.pts is None:
            return 0
        estimate = (frame.pts * self.base - self.time) * self.rate
        tolerance = self.base * self.rate + 2  # samples that time stamps may be off
        if self.size:
            blocks = round((estimate - self.first) / self.size)
            counted = self.first + blocks * self.size
            if counted >= 0 and abs(counted - estimate) <= tolerance:
                return counted
        return max(round(estimate), 0)


def to_mono(frame: AudioFrame, how: Literal["first", "mix"]) -> NDArray[np.generic]:
    """[samples] in the frame's own sample type: the first channel, or the mean of all."""
    count = frame.layout.nb_channels
    kind = np.dtype(_SAMPLE_TYPES[frame.format.name.removesuffix("p")])
    if frame.format.is_planar:
        planes = frame.planes[: count if how == "mix" else 1]
        channels = [np.frombuffer(memoryview(plane), kind, frame.samples) for plane in planes]
    else:
        together = np.frombuffer(memoryview(frame.planes[0]), kind, frame.samples * count)
        channels = [together[first::count] for first in range(count if how == "mix" else 1)]
    if kind == np.int64:  # PyAV's resampler has no such type, and its output has 16 bits anyway
        channels = [(channel >> 32).astype(np.int32) for channel in channels]
    if len(channels) == 1:
        return channels[0].copy()
    mean = np.mean(channels, axis=0, dtype=np.float64)
    kind = channels[0].dtype
    return (mean if kind.kind == "f" else np.rint(mean)).astype(kind)


_SAMPLE_TYPES = {"u8": "u1", "s16": "i2", "s32": "i4", "s64": "i8", "flt": "f4", "dbl": "f8"}
_PLANAR_NAMES = {np.dtype(kind): f"{name}p" for name, kind in _SAMPLE_TYPES.items()}


class _MonoResampler:
    """libswresample for one channel, fed with large pieces.

    Channels do not influence each other, so dropping all but one beforehand changes no sample of
    it; and calling the library per packet would cost more than its arithmetic.
    """

    def __init__(self, rate: int) -> None:
        self._rate = rate
        self._source: tuple[np.dtype, int] | None = None  # sample type and rate
        self._library: AudioResampler | None = None
        self._waiting: list[NDArray] = []
        self._count = 0  # samples that wait
        self._done: list[NDArray[np.int16]] = []

    def add(self, mono: NDArray, source_rate: int) -> None:
        """Take [samples]."""
        if self._source != (mono.dtype, source_rate):  # the first, or a change inside the stream
            self._flush()
            self._source = (mono.dtype, source_rate)
        self._waiting.append(mono)
        self._count += len(mono)
        if self._count >= _PIECE:
            self._resample_waiting()

    def finish(self) -> NDArray[np.int16]:
        """int16 [samples]: all that was taken, resampled."""
        self._flush()
        return np.concatenate(self._done) if self._done else np.empty(0, np.int16)

    def _flush(self) -> None:
        if self._count:
            self._resample_waiting()
        if self._library is not None:
            self._resample(None)
        self._library = None

    def _resample_waiting(self) -> None:
        piece = _as_float(np.concatenate(self._waiting))
        self._waiting, self._count = [], 0
        frame = AudioFrame.from_ndarray(
            piece[None], format=_PLANAR_NAMES[piece.dtype], layout="mono"
        )
        frame.sample_rate = self._source[1]
        # The resampler counts samples: time stamps with gaps would make it invent or drop some.
        frame.pts = None
        if self._library is None:
            self._library = AudioResampler(format="s16p", layout="mono", rate=self._rate)
        self._resample(frame)

    def _resample(self, frame: AudioFrame | None) -> None:
        self._done += [one.to_ndarray()[0] for one in self._library.resample(frame)]


def _as_float(samples: NDArray) -> NDArray:
    """Samples of 8 and 16 bits as float32, exactly; libswresample is less precise with few bits."""
    if samples.dtype == np.uint8:
        return (samples.astype(np.float32) - 128) / 128
    if samples.dtype == np.int16:
        return samples.astype(np.float32) / 32768
    return samples
