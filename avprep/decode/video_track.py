"""The pictures of a clip in the first engine.

Two ways to the same frames. `PacketTrack` is fast: it chooses frames by the time stamps of their
packets and decodes only what those need. It is for containers that state when each picture is shown
and where decoding can begin, and it checks their statements against the decoder's output.
`FrameTrack` is for all other files: it decodes everything in the stream's order, as the ffmpeg
program does, chooses among the pictures that came out, and decodes again to fetch them.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator
from itertools import pairwise

import numpy as np
from av.packet import Packet
from av.video.frame import PictureType, VideoFrame
from av.video.stream import VideoStream
from numpy.typing import NDArray

from avprep.decode.frames import SAME_TIME, choose_frames, step_for
from avprep.decode.libav import decoded, open_file
from avprep.decode.media import Request, no_frame_error
from avprep.decode.picture import picture_of
from avprep.errors import DecodeError

# Decoders that can skip, packet by packet, frames that no other refers to. Others (libdav1d, for
# AV1) read this setting only once, and then skip wanted frames as well.
_CAN_SKIP = frozenset({"h264", "hevc", "mpeg1video", "mpeg2video", "mpeg4", "vp8", "vp9"})

# Decoders that output no picture whose references are missing.
_HIDES_BROKEN = frozenset({"h264"})

# Containers that state when each picture is shown and where decoding can begin.
_RELIABLE_CONTAINERS = frozenset({"mov", "mp4", "matroska", "webm", "flv", "mpegts"})
_PROGRESSIVE = frozenset({0, 1})  # AVFieldOrder; 0: unknown. Each field may be a packet.


class ReadAgain(Exception):
    """The file breaks an assumption and has to be read again in a more careful way."""

    def __init__(self, kind: type[VideoTrack]) -> None:
        super().__init__(kind.__name__)
        self.kind = kind


class VideoTrack(ABC):
    """Takes the video packets of a clip, gives its frames.

    Args:
        request: what is asked for.
        stream: where the packets come from.
        origin: the container's start, seconds.
    """

    seeks = True  # whether reading may begin at a key frame before the segment

    def __init__(self, request: Request, stream: VideoStream, origin: float) -> None:
        self.stream = stream
        self.complete = False
        self._request = request
        self._window = request.window(origin)
        self._base = float(stream.time_base)
        self._packets: list[Packet] = []
        self._group = 0  # where in the packets the latest group of pictures begins
        stream.codec_context.thread_count = 1
        stream.codec_context.thread_type = "NONE"

    @abstractmethod
    def add(self, packet: Packet) -> None:
        """Take the next packet in the order of the file."""

    @abstractmethod
    def _shown(self) -> tuple[list[int], list[float]]:
        """Numbers of the pictures on screen, and the ascending seconds at which they are shown."""

    @abstractmethod
    def _frames(self, wanted: set[int]) -> Iterator[tuple[int, VideoFrame]]:
        """Numbers and frames, as they are decoded; those that are not wanted may be left out."""

    def take(self) -> tuple[NDArray[np.uint8], tuple[float, ...]]:
        """The chosen frames, resized, and the times they are shown at.

        Raises:
            ReadAgain: another kind of track is needed for this file.
            DecodeError: there is no frame to take.
        """
        if not self._packets:
            raise no_frame_error(self._request, "its video stream holds no frame")
        numbers, times = self._shown()
        rate, count = _rate_of(self.stream), self._request.options.frames
        chosen = choose_frames(times, rate, count, self._window, more_follow=self.complete)
        pictures = self._pictures({numbers[i] for i in chosen})
        begin = times[0] if self._window.begin is None else self._window.begin
        frames = np.stack([pictures[numbers[i]] for i in chosen])
        return frames, tuple(round(max(times[i] - begin, 0.0), 6) for i in chosen)

    def _pictures(self, wanted: set[int]) -> dict[int, NDArray[np.uint8]]:
        """The pictures of some numbers, in their final form."""
        pictures: dict[int, NDArray[np.uint8]] = {}
        for number, frame in self._frames(wanted):
            if number in wanted:
                pictures[number] = picture_of(frame, self.stream, self._request.options)
                if len(pictures) == len(wanted):
                    break
        return pictures

    def _keep(self, packet: Packet) -> None:
        """Keep a packet; of what comes before a segment, the last two groups of pictures.

        Frames shown before their group's key frame refer to the group before as well.
        """
        time = self._time_of(packet)
        if packet.is_keyframe and self.seeks and time is not None and self._window.is_before(time):
            del self._packets[: self._group]
            self._group = len(self._packets)
        self._packets.append(packet)

    def _time_of(self, packet: Packet) -> float | None:
        """Seconds at which a packet is decoded; none of its frames is shown earlier."""
        stamp = packet.dts if packet.dts is not None else packet.pts
        return None if stamp is None else stamp * self._base


class PacketTrack(VideoTrack):
    """Relies on what the packets state, and checks it."""

    _first_shown = float("inf")  # seconds, of the packets so far

    def add(self, packet: Packet) -> None:
        if self.complete:
            return
        time, limit = self._time_of(packet), self._window.frames_end(self._first_shown)
        # A frame is never decoded after it is shown, so later packets hold later frames.
        if time is not None and self._packets and time >= limit - SAME_TIME:
            self.complete = True
            return
        self._keep(packet)
        if packet.pts is not None and not packet.is_discard:
            self._first_shown = min(self._first_shown, packet.pts * self._base)

    def _shown(self) -> tuple[list[int], list[float]]:
        if not self._packets_agree():
            raise ReadAgain(FrameTrack)
        stamps = sorted(p.pts for p in self._packets if _is_shown(p, self.stream))
        if not stamps:
            raise ReadAgain(FrameTrack)
        return stamps, [stamp * self._base for stamp in stamps]

    def _packets_agree(self) -> bool:
        """Whether the packets' time stamps and flags make sense, alone and together."""
        shown = [packet.pts for packet in self._packets]
        decoded = [packet.dts for packet in self._packets]
        if None in shown or None in decoded or len(set(shown)) < len(shown):
            return False
        if any(later <= one for one, later in pairwise(decoded)):
            return False
        if any(p.is_corrupt or p.has_sidedata("new_extradata") for p in self._packets):
            return False
        # A codec that holds frames back shows them in another order than it stores them.
        is_reordered = any(later < one for one, later in pairwise(shown))
        reorders = self.stream.codec_context.reorder_depth > 0
        return self._packets[0].is_keyframe and (is_reordered or not reorders)

    def _frames(self, wanted: set[int]) -> Iterator[tuple[int, VideoFrame]]:
        """Decode what the wanted frames need; their numbers are their time stamps."""
        if min(wanted) < self._packets[0].pts:  # a leading frame whose references are missing
            raise ReadAgain(FrameTrack)
        groups = self._needed(wanted)
        keys = {group[0].pts for group in groups}
        packets = [packet for group in groups for packet in group]
        last = max(i for i, packet in enumerate(packets) if packet.pts in wanted)
        latest: int | None = None
        for frame in self._decoded(packets[: last + 1], wanted):
            is_late = frame.pts is None or (latest is not None and frame.pts <= latest)
            if is_late or (frame.pts in keys and not _begins_a_group(frame)):
                raise ReadAgain(FrameTrack)
            latest = frame.pts
            yield frame.pts, frame
        raise ReadAgain(FrameTrack)  # a wanted one is missing

    def _needed(self, wanted: set[int]) -> list[list[Packet]]:
        """The groups of pictures that hold a wanted frame, or are referred to by one."""
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
        return [group for group, keep in zip(groups, needed, strict=True) if keep]

    def _decoded(self, packets: Iterable[Packet], wanted: set[int]) -> Iterator[VideoFrame]:
        """Decoded frames; those that no other refers to are skipped unless wanted."""
        context = self.stream.codec_context
        can_skip = context.name in _CAN_SKIP
        for packet in packets:
            context.skip_frame = "NONREF" if can_skip and packet.pts not in wanted else "DEFAULT"
            yield from decoded(context, packet)
        yield from decoded(context, None)


class FrameTrack(VideoTrack):
    """Decodes everything, in the order in which the ffmpeg program shows it."""

    def __init__(self, request: Request, stream: VideoStream, origin: float) -> None:
        super().__init__(request, stream, origin)
        self._clock = _FrameClock(self._base, step_for(_rate_of(stream)))
        self._waits = self._window.begin is not None and self.seeks
        self._begins_with_key = False  # whether the first picture is complete in itself
        self._lacks_references = False  # whether pictures refer to missing ones
        self._numbers: list[int] = []  # of the pictures on screen, in decoding order
        self._times: list[float] = []  # seconds at which each of them is shown
        self._count = 0  # decoded pictures

    def add(self, packet: Packet) -> None:
        if self.complete:
            return
        if not self._packets:
            hides_broken = self.stream.codec_context.name in _HIDES_BROKEN
            self._lacks_references = not (packet.is_keyframe or hides_broken)
        self._keep(packet)
        time = self._time_of(packet)
        if not self._waits:
            self._note(decoded(self.stream.codec_context, packet))
        elif time is None or not self._window.is_before(time):
            self._start_decoding()

    def _start_decoding(self) -> None:
        self._waits = False
        for packet in self._packets:
            self._note(decoded(self.stream.codec_context, packet))

    def _note(self, frames: Iterable[VideoFrame]) -> None:
        """Note when decoded frames are shown."""
        for frame in frames:
            time = self._clock.time(frame)
            if not self._count:
                self._begins_with_key = _begins_a_group(frame)
            if self._lacks_references and frame.pict_type == PictureType.I:
                self._lacks_references = False
                self._numbers, self._times = [], []
            # What comes out late is not shown; of equal times, the later frame is.
            if not self._times or time > self._times[-1] - SAME_TIME:
                self._numbers.append(self._count)
                self._times.append(time)
            self._count += 1
            limit = self._window.frames_end(self._times[0])
            self.complete = self.complete or time >= limit - SAME_TIME

    def _shown(self) -> tuple[list[int], list[float]]:
        if self._waits:
            self._start_decoding()
        if not self.complete:
            self._note(decoded(self.stream.codec_context, None))
        if self._window.begin is not None and self.seeks:
            begins_late = not self._times or not self._window.is_before(self._times[0])
            if begins_late or not self._begins_with_key:
                raise ReadAgain(PatientTrack)
        if not self._times:
            detail = f"{self._request.path}: none of its video frames can be decoded"
            raise DecodeError("no-frames", detail)
        return self._numbers, self._times

    def _frames(self, wanted: set[int]) -> Iterator[tuple[int, VideoFrame]]:
        """Decode again, in the same way."""
        # A used decoder holds back another number of frames than a new one.
        with open_file(self._request.path) as container:
            stream = container.streams[self.stream.index]
            assert isinstance(stream, VideoStream)
            decoder = stream.codec_context
        packets: Iterable[Packet | None] = (*self._packets, None)
        return enumerate(frame for packet in packets for frame in decoded(decoder, packet))


class PatientTrack(FrameTrack):
    """Begins at the file's first picture, for streams that cannot be entered elsewhere."""

    seeks = False


def kind_of_track(stream: VideoStream) -> type[VideoTrack]:
    """The fastest track that may suit a stream."""
    containers = stream.container.format.name.split(",")  # type: ignore[attr-defined]
    is_reliable = not _RELIABLE_CONTAINERS.isdisjoint(containers)
    # PyAV 17, the last for Python 3.10, does not tell the order; the slower track suits any.
    order = getattr(stream.codec_context, "field_order", None)
    return PacketTrack if is_reliable and order in _PROGRESSIVE else FrameTrack


class _FrameClock:
    """When frames are shown, in decoding order: libavcodec's best guess.

    Time stamps of packets go with their frames, but some containers have only times of decoding,
    or have the two swapped. Whichever of the two runs backwards less often is right.
    """

    def __init__(self, base: float, step: float) -> None:
        self.step = step  # seconds between frames that have no time stamp
        self._base = base
        self._faults = [0, 0]  # in times of showing, of decoding
        self._last: list[float] = [float("-inf"), float("-inf")]
        self._time: float | None = None

    def time(self, frame: VideoFrame) -> float:
        """Seconds; call it once per frame."""
        stamps = (frame.pts, frame.dts)
        for i, stamp in enumerate(stamps):
            if stamp is not None:
                self._faults[i] += stamp <= self._last[i]
            known = stamp if stamp is not None else stamps[1 - i]
            self._last[i] = self._last[i] if known is None else known
        shown, decoded = stamps
        is_sound = shown is not None and (decoded is None or self._faults[0] <= self._faults[1])
        stamp = shown if is_sound else decoded
        if stamp is not None:
            self._time = stamp * self._base
        else:
            self._time = 0.0 if self._time is None else self._time + self.step
        return self._time


def _begins_a_group(frame: VideoFrame) -> bool:
    """Whether a frame is complete in itself; not all decoders state the type of their frames."""
    return frame.pict_type not in (PictureType.P, PictureType.B, PictureType.S)


def _is_shown(packet: Packet, stream: VideoStream) -> bool:
    """Whether a packet's frame is shown; an edit list and VP8 and VP9 have hidden ones."""
    if packet.is_discard:
        return False
    head, tail = memoryview(packet)[0], memoryview(packet)[packet.size - 1]
    if stream.codec_context.name == "vp8":
        return bool(head & 0x10)
    if stream.codec_context.name == "vp9" and tail & 0xE0 != 0xC0:  # one frame, not a superframe
        return bool(head & 0b1010)  # shows an earlier frame or itself
    return True


def _rate_of(stream: VideoStream) -> float:
    """Frames per second as OpenCV, and so the published code, sees them: the mean over the file.

    The rate that libav guesses is one of which all gaps between frames are multiples.
    """
    return float(stream.average_rate or stream.guessed_rate or 0)
