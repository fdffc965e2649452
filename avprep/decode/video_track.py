"""The pictures of a clip in the first engine: packets kept, and only what frames need decoded.

Video packets of the first 10 s are kept until all are known; then the frames to take are chosen
from their time stamps, and only what those frames need is decoded: nothing after the last of
them, no frame that nothing refers to unless it is wanted itself, no group of pictures without one.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import av
import numpy as np
from av.error import FFmpegError, InvalidDataError
from av.packet import Packet
from av.video.frame import VideoFrame
from av.video.stream import VideoStream
from numpy.typing import NDArray

from avprep.decode.frames import PUBLISHED_SECONDS, choose_frames, plausible_rate
from avprep.decode.media import Segment
from avprep.errors import DecodeError
from avprep.images import resize_and_crop
from avprep.options import DecodeOptions

_SAME_TIME = 1e-6  # seconds; far below a frame, far above rounding


# Decoders that can be told packet by packet to leave out frames that no other refers to. Some take
# the order only once (libdav1d, for AV1), and then leave out wanted frames as well.
_CAN_SKIP = frozenset({"h264", "hevc", "mpeg1video", "mpeg2video", "mpeg4", "vp8", "vp9"})


class VideoTrack:
    """The video packets of a clip, and the frames taken from them."""

    def __init__(self, stream: VideoStream, origin: float, segment: Segment) -> None:
        self.stream = stream
        self.segment = segment
        self.complete = False
        self._base = float(stream.time_base)
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
            time = stamp * self._base
            # A frame is never decoded after it is shown, so later packets hold later frames.
            if time >= self._horizon() - _SAME_TIME:
                self.complete = True
                return
        self._packets.append(packet)
        if packet.pts is not None and not packet.is_discard:
            self._first_shown = min(self._first_shown, packet.pts * self._base)

    def _horizon(self) -> float:
        begin = self._origin + self.segment.begin if self.segment.start else self._first_shown
        seconds = float(PUBLISHED_SECONDS)
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

    def ends_before_segment(self) -> bool:
        """Whether the last picture was over when the segment begins."""
        if not self.segment.start:
            return False
        ends = [p.pts + (p.duration or 0) for p in self._packets if p.pts is not None]
        begin = self._origin + self.segment.start
        return max(ends, default=0) * self._base <= begin + _SAME_TIME

    def duration(self) -> float:
        """Seconds from the first kept frame to the end of the last, or of the segment."""
        times = [
            (p.pts + (p.duration or 0)) * self._base
            for p in self._packets
            if p.pts is not None and not p.is_discard
        ]
        container = self.stream.container.duration  # type: ignore[attr-defined]
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
        times = [stamp * self._base for stamp in stamps]
        return [stamps[i] for i in self._choose(times, count)]

    def _choose(self, times: Sequence[float], count: int) -> list[int]:
        """Positions of the frames to take among ascending display times."""
        first, last = 0, len(times)
        if self.segment.start:
            begin = self._origin + self.segment.begin
            # The frame on screen when the segment begins is its first.
            first = max(
                (i for i, time in enumerate(times) if time <= begin + _SAME_TIME), default=0
            )
        if self.segment.end is not None:
            end = self._origin + self.segment.end
            last = max(sum(time < end - _SAME_TIME for time in times), first + 1)
        rate = plausible_rate(_rate_of(self.stream), times)
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
        times: list[float] = []
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
        if context.name not in _CAN_SKIP:
            wanted = None
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


def _rate_of(stream: VideoStream) -> float:
    """Frames a second as OpenCV, and so the published code, sees them: the mean over the file.

    The rate that libav guesses is one of which all gaps between frames are multiples. Where the
    rate varies that is far too high, and all frames would be taken from the clip's beginning.
    """
    return float(stream.average_rate or stream.guessed_rate or 0)


def _time_of(frame: VideoFrame, earlier: Sequence[float], stream: VideoStream) -> float:
    if frame.pts is not None:
        return float(frame.pts * stream.time_base)
    step = 1 / plausible_rate(_rate_of(stream), ())
    return earlier[-1] + step if earlier else 0.0
