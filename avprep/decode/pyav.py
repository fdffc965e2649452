"""The first engine: PyAV, audio and video from one pass over the file.

Audio packets are decoded as they are read; video packets are kept, and once all of the clip's
first 10 s are there, only what the chosen frames need is decoded.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from contextlib import nullcontext
from fractions import Fraction
from typing import TypeVar

import av
from av.audio.stream import AudioStream
from av.container import InputContainer
from av.error import FFmpegError
from av.video.stream import VideoStream

from avprep.decode.audio_track import PREROLL, AudioTrack
from avprep.decode.clock import PacketClock, may_jump, running_on
from avprep.decode.extent import PacketSpans
from avprep.decode.frames import PUBLISHED_SECONDS
from avprep.decode.libav import open_file, packets_of
from avprep.decode.media import NO_AUDIO, NO_VIDEO, Reading, Request, no_frames
from avprep.decode.sniff import why_not_media
from avprep.decode.video_track import ReadAgain, VideoTrack, kind_of_track
from avprep.errors import DecodeError

_SEEK_DISTANCES = (PREROLL, 5.0, 20.0, 80.0, float("inf"))  # seconds before a segment, in turn
_SURVEY_PACKETS = 500  # read at most from a file's beginning before a seek
_NOT_THE_FILM = av.stream.Disposition.attached_pic | av.stream.Disposition.timed_thumbnails

AnyStream = TypeVar("AnyStream", VideoStream, AudioStream)


def decode_with_pyav(request: Request) -> Reading:
    """Decode a file, or a segment of it, with PyAV.

    Raises:
        DecodeError: see `avprep.decode.decode_clip`.
    """
    try:
        return _decode_patiently(request)
    except MemoryError:
        raise DecodeError("out-of-memory", f"{request.path}: needs too much memory") from None
    except FFmpegError as error:
        raise DecodeError("garbage", f"{request.path}: {error.strerror}") from error


def _decode_patiently(request: Request) -> Reading:
    """Read the file in the fastest way that suits it, found by trial."""
    kind: type[VideoTrack] | None = None
    while True:
        try:
            with open_file(request.path) as container:
                # Missing time stamps are for libavcodec to find, as in ffmpeg.
                container.flags &= ~av.container.Flags.gen_pts.value  # type: ignore[operator]
                _check_begin(container, request)
                return _Pass(container, request, kind).read()
        except ReadAgain as again:
            kind = again.kind


def _check_begin(container: InputContainer, request: Request) -> None:
    """Refuse a segment past the file's end, where the container says how long it is."""
    if av.format.Flags.no_timestamps in av.format.Flags(container.format.flags):
        return  # the length is only guessed from a bit rate
    if may_jump(container):  # its length comes from time stamps that may jump
        return
    seconds, start = (container.duration or 0) / av.time_base, request.start
    if start and seconds and start >= seconds:
        detail = f"{request.path}: ends at {seconds:.3f} s, before {start:g} s"
        raise DecodeError("too-short", detail)


class _Pass:
    """One pass over a file.

    Args:
        container: the file, just opened.
        request: what is asked for.
        kind: how pictures are taken; None: in the way that suits the stream.

    Raises:
        DecodeError: a stream that is asked for is missing.
    """

    def __init__(
        self, container: InputContainer, request: Request, kind: type[VideoTrack] | None
    ) -> None:
        self._container = container
        self._request = request
        self._origin = float(Fraction(container.start_time or 0, av.time_base))
        self._pictures: VideoTrack | None = None
        self._sound: AudioTrack | None = None
        video, audio = _streams_to_read(container, request)
        if video is not None:
            self._pictures = (kind or kind_of_track(video))(request, video, self._origin)
        if audio is not None:
            self._sound = AudioTrack(audio, request.window(self._origin), request.options)
        tracks = (self._pictures, self._sound)
        self._streams = [track.stream for track in tracks if track is not None]

    def read(self) -> Reading:
        """Read the clip.

        Raises:
            ReadAgain: the pictures have to be taken in another way.
            DecodeError: nothing of the clip is left, or none of its pictures can be decoded.
        """
        request = self._request
        if request.start:
            self._seek()
        spans = self._read_packets()
        spans.check_begin(request.path, request.header, self._origin + request.start)
        frames, times = self._pictures.take() if self._pictures else no_frames(request.options)
        pcm = self._sound.samples() if self._sound else None
        return Reading("pyav", self._origin, spans, frames, times, pcm)

    def _seek(self) -> None:
        """Go to where reading for a segment begins, having looked at how the sound begins."""
        container, begin = self._container, self._origin + self._request.start
        # From the beginning only a new container reads everything: a seek back may skip packets.
        reads_all = may_jump(container) or (self._pictures is not None and not self._pictures.seeks)
        if self._sound is not None:
            path = self._request.path
            with open_file(path) if reads_all else nullcontext(container) as surveyed:
                self._survey(surveyed, self._sound)
        if reads_all:
            return
        # Containers without an index may come out after the requested key frame.
        for distance in _SEEK_DISTANCES:
            target = max(begin - distance, self._origin)
            # Before the first picture only the sound leads anywhere.
            reachable = (one for one in self._streams if _start_of(one) <= target)
            leading = next(reachable, self._streams[-1])
            stamp = round(target / leading.time_base)
            container.seek(stamp, stream=leading)
            if target == self._origin or _is_before(container, leading, begin):
                break
        container.seek(stamp, stream=leading)

    def _survey(self, container: InputContainer, sound: AudioTrack) -> None:
        """Show the sound its first packets; the container may be another one of the same file."""
        streams = [container.streams[one.index] for one in self._streams]
        packets = itertools.islice(packets_of(container, streams), _SURVEY_PACKETS)
        sound.survey(packet for packet in packets if packet.stream_index == sound.stream.index)

    def _read_packets(self) -> PacketSpans:
        """Hand packets to their tracks until neither wants more.

        Without sound, pictures are followed to the end of the clip, for their length.
        """
        pictures, sound = self._pictures, self._sound
        spans, reached, until = PacketSpans(), 0.0, self._end_of_pictures()
        clocks = {stream.index: PacketClock(stream) for stream in self._container.streams}
        packets = packets_of(self._container, self._container.streams)
        for packet in running_on(self._container, packets, self._streams[0].index):
            start, length = clocks[packet.stream_index].time_of(packet)
            if pictures is not None and packet.stream is pictures.stream:
                spans.add("video", start, length)
                reached = max(reached, start)
                pictures.add(packet)
            elif sound is not None and packet.stream is sound.stream:
                spans.add("audio", start, length)
                sound.add(packet)
            else:
                spans.add(None, start, length)
            is_heard = reached >= until if sound is None else sound.complete
            if is_heard and (pictures is None or pictures.complete):
                break
        return spans

    def _end_of_pictures(self) -> float:
        """Until when the pictures of a clip without sound matter, on the file's clock."""
        options, longest = self._request.options, float(PUBLISHED_SECONDS)
        if options.missing_audio == "silence":  # which lasts as long as they do
            longest = max(longest, options.max_audio)
        return self._origin + min(self._request.start + longest, self._request.end)


def _streams_to_read(
    container: InputContainer, request: Request
) -> tuple[VideoStream | None, AudioStream | None]:
    """The streams of pictures and sound that a clip is made of."""
    path, options = request.path, request.options
    if not container.streams:
        raise why_not_media(path)
    video = first_usable(container.streams.video) if options.frames else None
    audio = first_usable(container.streams.audio)
    if video is None and options.frames and options.missing_video == "fail":
        raise DecodeError("no-video", f"{path}: {NO_VIDEO}")
    if audio is None and (options.missing_audio == "fail" or video is None):
        raise DecodeError("no-audio", f"{path}: {NO_AUDIO}")
    for stream, cause in ((video, "no-video"), (audio, "no-audio")):
        if stream is not None and stream.codec_context is None:
            raise DecodeError(cause, f"{path}: no decoder for its {stream.type} stream's format")
    return video, audio


def first_usable(streams: Sequence[AnyStream]) -> AnyStream | None:
    """The first stream of a kind, as OpenCV and so the published code takes it.

    Album covers and the thumbnails of chapters are not the film. A stream that has packets is
    preferred to one that is only announced.
    """
    films = [stream for stream in streams if not stream.disposition & _NOT_THE_FILM]
    return next(filter(_has_parameters, films), films[0] if films else None)


def _has_parameters(stream: VideoStream | AudioStream) -> bool:
    """Whether libav found a packet to learn the stream's size or rate from."""
    if stream.codec_context is None:
        return True  # it has packets, but no decoder
    if isinstance(stream, VideoStream):
        return bool(stream.codec_context.width)
    return bool(stream.codec_context.sample_rate)


def _start_of(stream: VideoStream | AudioStream) -> float:
    """Seconds."""
    return float((stream.start_time or 0) * stream.time_base)


def _is_before(container: InputContainer, stream: VideoStream | AudioStream, begin: float) -> bool:
    """Whether the stream's next packet is a key frame (as all sound is) of `begin` or earlier."""
    packet = next(packets_of(container, [stream]), None)
    if packet is None:
        return False
    stamp = packet.pts if packet.pts is not None else packet.dts
    if stamp is None or not packet.is_keyframe:
        return False
    return float(stamp * stream.time_base) <= begin
