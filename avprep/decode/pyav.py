"""The first engine: PyAV, audio and video from one pass over the file.

Audio packets are decoded as they are read. Video packets of the first 10 s are kept until all are
known; then the frames to take are chosen from their time stamps, and only what those frames need
is decoded: nothing after the last of them, no frame that nothing refers to unless it is wanted
itself, no group of pictures without one.
"""

from __future__ import annotations

import contextlib
import errno
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from math import gcd
from pathlib import Path

import av
import numpy as np
from av.audio.frame import AudioFrame
from av.audio.resampler import AudioResampler
from av.audio.stream import AudioStream
from av.container import InputContainer
from av.error import FFmpegError, InvalidDataError
from av.packet import Packet
from av.video.frame import VideoFrame
from av.video.stream import VideoStream
from numpy.typing import NDArray

from avprep.decode.frames import PUBLISHED_SECONDS, choose_frames, plausible_rate
from avprep.decode.media import SHORTEST_AUDIO, Media, channels_to_mono
from avprep.decode.sniff import looks_like_media
from avprep.errors import DecodeError
from avprep.images import resize_and_crop
from avprep.options import DecodeOptions

av.logging.set_level(None)  # libav's complaints end up in our causes, not on the terminal

_AUDIO_PREROLL = 0.5  # seconds read before a segment, for codecs that need their past
_RESAMPLER_PREROLL = 256  # source samples fed before a segment, for the resampler's filter


@dataclass(frozen=True)
class Segment:
    """[start, end) in seconds after the container's own start; either may be open."""

    start: float | None
    end: float | None

    @property
    def begin(self) -> float:
        return self.start or 0.0


def decode_with_pyav(
    path: str | Path, start: float | None, end: float | None, options: DecodeOptions
) -> Media:
    """Decode a file, or a segment of it, with PyAV.

    Raises:
        DecodeError: see `avprep.decode.decode_clip`.
    """
    try:
        with _open(path) as container:
            return _decode(container, path, Segment(start, end), options)
    except MemoryError:
        raise DecodeError("out-of-memory", f"{path}: needs too much memory") from None
    except FFmpegError as error:
        if error.errno == errno.ENOMEM:
            raise DecodeError("out-of-memory", f"{path}: needs too much memory") from None
        raise DecodeError("garbage", f"{path}: {error.strerror}") from error


def _open(path: str | Path) -> InputContainer:
    try:
        # "file:" keeps a name such as "pipe:0.mp4" a file; the white list keeps a playlist in
        # disguise from fetching anything.
        return av.open(f"file:{path}", options={"protocol_whitelist": "file"})
    except InvalidDataError as error:
        if looks_like_media(path):
            raise DecodeError("truncated", f"{path}: cut short or damaged, has no index") from error
        raise DecodeError("garbage", f"{path}: not a media file") from error


def _decode(
    container: InputContainer, path: str | Path, segment: Segment, options: DecodeOptions
) -> Media:
    video = next((s for s in container.streams.video if not _is_cover(s)), None)
    audio = container.streams.audio[0] if container.streams.audio else None
    if video is None:
        raise DecodeError("no-video", f"{path}: has no video stream")
    if audio is None and options.missing_audio == "fail":
        raise DecodeError("no-audio", f"{path}: has no audio stream")

    origin = Fraction(container.start_time or 0, av.time_base)
    track = _VideoTrack(video, float(origin), segment)
    sound = _AudioTrack(audio, float(origin), segment, options) if audio is not None else None
    _read(container, track, sound, float(origin) + segment.begin)

    frames, times = track.take(options, path)
    pcm = sound.samples() if sound is not None else np.empty(0, np.int16)
    if not len(pcm) and options.missing_audio == "silence":
        pcm = np.zeros(int(track.duration() * options.sample_rate), np.int16)
    if not len(pcm):
        raise DecodeError("no-audio", f"{path}: its audio stream holds no sample in the clip")
    if len(pcm) < SHORTEST_AUDIO:
        raise DecodeError("too-short", f"{path}: {len(pcm) / options.sample_rate:.3f} s of audio")
    return Media(pcm, frames, times, "pyav")


def _is_cover(stream: VideoStream) -> bool:
    """Whether a video stream is a picture attached to the file, such as an album cover."""
    return bool(stream.disposition & av.stream.Disposition.attached_pic)


def _read(
    container: InputContainer, track: _VideoTrack, sound: _AudioTrack | None, begin: float
) -> None:
    """One pass over the file: packets to their tracks, until neither wants more."""
    streams = [track.stream] if sound is None else [track.stream, sound.stream]
    if track.segment.start:
        before = max(begin - _AUDIO_PREROLL, 0.0)
        container.seek(int(before * av.time_base))
    with contextlib.suppress(FFmpegError):  # a file cut short: what was read so far counts
        for packet in container.demux(streams):
            if packet.stream is track.stream:
                track.add(packet)
            elif sound is not None:
                sound.add(packet)
            if track.complete and (sound is None or sound.complete):
                return


class _VideoTrack:
    """The video packets of a clip, and the frames taken from them."""

    def __init__(self, stream: VideoStream, origin: float, segment: Segment) -> None:
        self.stream = stream
        self.segment = segment
        self.complete = False
        self._packets: list[Packet] = []
        self._origin = origin
        self._first_shown = float("inf")  # seconds, of the packets so far
        stream.codec_context.thread_count = 1
        stream.codec_context.thread_type = "NONE"

    def add(self, packet: Packet) -> None:
        """Keep a packet, until all frames of the clip's first 10 s are there."""
        if self.complete or not packet.size:
            return
        stamp = packet.dts if packet.dts is not None else packet.pts
        if stamp is not None and self._packets:
            time = float(stamp * packet.time_base)
            # A frame is never decoded after it is shown, so later packets hold later frames.
            if time >= self._horizon():
                self.complete = True
                return
        self._packets.append(packet)
        if packet.pts is not None and not packet.is_discard:
            self._first_shown = min(self._first_shown, float(packet.pts * packet.time_base))

    def _horizon(self) -> float:
        begin = self._origin + self.segment.begin if self.segment.start else self._first_shown
        seconds = PUBLISHED_SECONDS
        if self.segment.end is not None:
            seconds = min(seconds, self.segment.end - self.segment.begin)
        return begin + seconds

    def take(
        self, options: DecodeOptions, path: str | Path
    ) -> tuple[NDArray[np.uint8], tuple[float, ...]]:
        """The chosen frames, resized, and the times they are shown at."""
        if not self._packets:
            if self.segment.start:
                raise DecodeError(
                    "too-short", f"{path}: ends before the segment at {self.segment.begin:g} s"
                )
            raise DecodeError("no-frames", f"{path}: its video stream holds no frame")
        shown = self._choose_from_packets(options.frames)
        chosen = self._decode_sparse(shown, options) if shown else None
        if chosen is None:
            chosen = self._decode_all(options, path)
        begin = self._origin + self.segment.begin if self.segment.start else chosen[0].time
        frames = np.stack([one.pixels for one in chosen])
        return frames, tuple(round(max(one.time - begin, 0.0), 6) for one in chosen)

    def duration(self) -> float:
        """Seconds from the first kept frame to the end of the last, or of the segment."""
        times = [
            float(p.pts * p.time_base) + float((p.duration or 0) * p.time_base)
            for p in self._packets
            if p.pts is not None and not p.is_discard
        ]
        container = self.stream.container.duration
        whole = container / av.time_base if container else 0.0
        if self.segment.end is not None:
            return self.segment.end - self.segment.begin
        if whole:
            return max(whole - self.segment.begin, 0.0)
        return max(times, default=0.0) - min(self._first_shown, max(times, default=0.0))

    def _choose_from_packets(self, count: int) -> list[int]:
        """Time stamps of the frames to take; empty where packets do not tell."""
        stamps = [p.pts for p in self._packets if not p.is_discard]
        if not stamps or None in stamps:
            return []
        stamps = sorted(set(stamps))
        base = self._packets[0].time_base
        return [stamps[i] for i in self._choose([float(s * base) for s in stamps], count)]

    def _choose(self, times: Sequence[float], count: int) -> list[int]:
        """Positions of the frames to take among ascending display times."""
        first, last = 0, len(times)
        if self.segment.start:
            begin = self._origin + self.segment.begin
            # The frame on screen when the segment begins is its first.
            first = max((i for i, time in enumerate(times) if time <= begin + 1e-6), default=0)
        if self.segment.end is not None:
            end = self._origin + self.segment.end
            last = max(sum(time < end - 1e-6 for time in times), first + 1)
        rate = plausible_rate(float(self.stream.guessed_rate or 0), times)
        clip = times[first:last]
        if self.segment.start:
            clip = [max(clip[0], self._origin + self.segment.begin), *clip[1:]]
        return [first + i for i in choose_frames(clip, rate, count)]

    def _decode_sparse(self, wanted: list[int], options: DecodeOptions) -> list[_Frame] | None:
        """Decode what the wanted frames need; None if one of them did not come out."""
        found: dict[int, _Frame] = {}
        remaining = set(wanted)
        for frame in self._decoded(self._needed(remaining), remaining):
            if frame.pts in remaining:
                remaining.discard(frame.pts)
                found[frame.pts] = _Frame.of(frame, options, self.stream)
                if not remaining:
                    break
        return None if remaining else [found[stamp] for stamp in wanted]

    def _needed(self, wanted: set[int]) -> list[Packet]:
        """The groups of pictures that hold a wanted frame, up to the last such frame's packet."""
        groups: list[list[Packet]] = []
        for packet in self._packets:
            if packet.is_keyframe or not groups:
                groups.append([])
            groups[-1].append(packet)
        needed = [any(packet.pts in wanted for packet in group) for group in groups]
        for number in range(1, len(groups)):
            key = groups[number][0].pts
            # Frames shown before their group's key frame refer to the group before as well.
            if any(p.pts in wanted and p.pts < key for p in groups[number]):
                needed[number - 1] = True
        kept = [p for group, keep in zip(groups, needed, strict=True) if keep for p in group]
        last = max(i for i, packet in enumerate(kept) if packet.pts in wanted)
        return kept[: last + 1]

    def _decode_all(self, options: DecodeOptions, path: str | Path) -> list[_Frame]:
        """The slow way, for time stamps that are missing or wrong: decode, then choose, twice."""
        times = []
        for frame in self._decoded(self._packets):
            times.append(_time_of(frame, times, self.stream))
        if not times:
            raise DecodeError("no-frames", f"{path}: not one frame of its video can be decoded")
        order = sorted(range(len(times)), key=times.__getitem__)
        chosen = [order[i] for i in self._choose([times[i] for i in order], options.frames)]
        found: dict[int, _Frame] = {}
        for number, frame in enumerate(self._decoded(self._packets)):
            if number in chosen:
                found[number] = _Frame.of(frame, options, self.stream, times[number])
        return [found[number] for number in chosen]

    def _decoded(
        self, packets: Iterable[Packet], wanted: set[int] | None = None
    ) -> Iterator[VideoFrame]:
        """Decoded frames; with `wanted`, those that no other refers to are skipped if not in it."""
        context = self.stream.codec_context
        context.flush_buffers()
        for packet in packets:
            context.skip_frame = "DEFAULT" if wanted is None or packet.pts in wanted else "NONREF"
            with contextlib.suppress(InvalidDataError):  # a damaged packet costs its own frames
                yield from context.decode(packet)
        with contextlib.suppress(FFmpegError):
            yield from context.decode(None)


@dataclass(frozen=True)
class _Frame:
    """A chosen frame in its final form."""

    pixels: NDArray[np.uint8]
    time: float

    @classmethod
    def of(
        cls,
        frame: VideoFrame,
        options: DecodeOptions,
        stream: VideoStream,
        time: float | None = None,
    ) -> _Frame:
        aspect = stream.sample_aspect_ratio or stream.codec_context.sample_aspect_ratio or 1
        rgb = frame.to_ndarray(format="rgb24")
        pixels = resize_and_crop(rgb, options.frame_size, aspect if aspect > 0 else 1)
        turns = round(frame.rotation / 90) % 4
        # Turning the square after the crop is the same as turning the picture before it.
        if turns:
            pixels = np.ascontiguousarray(np.rot90(pixels, turns))
        return cls(pixels, float(frame.pts * stream.time_base) if time is None else time)


def _time_of(frame: VideoFrame, earlier: Sequence[float], stream: VideoStream) -> float:
    if frame.pts is not None:
        return float(frame.pts * stream.time_base)
    step = 1 / plausible_rate(float(stream.guessed_rate or 0), ())
    return earlier[-1] + step if earlier else 0.0


class _AudioTrack:
    """The audio of a clip, resampled while it is read."""

    def __init__(
        self, stream: AudioStream, origin: float, segment: Segment, options: DecodeOptions
    ) -> None:
        self.stream = stream
        self.complete = False
        self._options = options
        self._segment = segment
        self._origin = origin
        self._resampler: AudioResampler | None = None
        self._pieces: list[NDArray[np.int16]] = []
        self._count = 0
        self._first_time: float | None = None  # of the first resampled sample
        stream.codec_context.thread_count = 1

    def add(self, packet: Packet) -> None:
        """Decode and resample one packet (an empty one flushes the decoder)."""
        if self.complete:
            return
        with contextlib.suppress(InvalidDataError):  # a damaged packet costs its own samples
            for frame in self.stream.codec_context.decode(packet if packet.size else None):
                self._add_frame(frame)

    def samples(self) -> NDArray[np.int16]:
        """int16 [samples]: everything inside the clip."""
        if self._resampler is not None:
            self._keep(self._resampler.resample(None))
            self._resampler = None
        pcm = np.concatenate(self._pieces) if self._pieces else np.empty(0, np.int16)
        if self._first_time is None:
            return pcm
        rate = self._options.sample_rate
        ahead = self._origin + self._segment.begin - self._first_time
        first = max(round(ahead * rate), 0) if self._segment.start else 0
        if self._segment.end is None:
            return pcm[first:]
        return pcm[first : max(round((ahead + self._seconds()) * rate), first)]

    def _seconds(self) -> float:
        assert self._segment.end is not None
        return self._segment.end - self._segment.begin

    def _add_frame(self, frame: AudioFrame) -> None:
        begin = self._origin + self._segment.begin
        time = self._origin
        if frame.pts is not None:
            time = float(frame.pts * self.stream.time_base)
        if self._segment.start and self._first_time is None:
            skip = self._samples_before_grid(frame, time, begin)
            if skip >= frame.samples:
                return
            frame = _without_beginning(frame, skip)
            time += skip / frame.sample_rate
        if self._first_time is None:
            self._first_time = time
        # The resampler counts samples; time stamps with gaps would make it invent or drop some.
        frame.pts = None
        try:
            if self._resampler is None:
                self._resampler = self._new_resampler(frame)
            pieces = self._resampler.resample(frame)
        except ValueError:  # the format changed inside the stream
            assert self._resampler is not None
            self._keep(self._resampler.resample(None))
            self._resampler = self._new_resampler(frame)
            pieces = self._resampler.resample(frame)
        self._keep(pieces)
        if self._segment.end is not None:
            length = self._origin + self._segment.end - self._first_time
            self.complete = self._count >= length * self._options.sample_rate + 1

    def _samples_before_grid(self, frame: AudioFrame, time: float, begin: float) -> int:
        """Source samples to drop so that resampling starts on the whole file's grid.

        44.1 kHz and 16 kHz meet every 441 source samples. Starting there, a little before the
        segment, gives the samples that resampling the file from its beginning would give.
        """
        rate = frame.sample_rate
        period = rate // gcd(rate, self._options.sample_rate)
        stream_begin = float((self.stream.start_time or 0) * self.stream.time_base)
        position = round((time - stream_begin) * rate)
        target = int((begin - stream_begin) * rate) - _RESAMPLER_PREROLL
        target = max(target // period * period, 0)
        return target - position if target >= position else -position % period

    def _new_resampler(self, frame: AudioFrame) -> AudioResampler:
        return AudioResampler(format="s16p", layout=frame.layout, rate=self._options.sample_rate)

    def _keep(self, frames: Iterable[AudioFrame]) -> None:
        for frame in frames:
            channels = frame.to_ndarray()  # int16 [channels, samples]
            self._pieces.append(channels_to_mono(channels, self._options.channels))
            self._count += frame.samples


def _without_beginning(frame: AudioFrame, skip: int) -> AudioFrame:
    if skip == 0:
        return frame
    width = 1 if frame.format.is_planar else frame.layout.nb_channels
    cut = AudioFrame.from_ndarray(
        np.ascontiguousarray(frame.to_ndarray()[:, skip * width :]),
        format=frame.format.name,
        layout=frame.layout.name,
    )
    cut.sample_rate = frame.sample_rate
    return cut
