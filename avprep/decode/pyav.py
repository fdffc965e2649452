"""The first engine: PyAV, audio and video from one pass over the file.

Audio packets are decoded as they are read; video packets are kept, and once all of the clip's
first 10 s are there, only what the chosen frames need is decoded.
"""

from __future__ import annotations

import errno
import itertools
from collections.abc import Iterable, Iterator, Sequence
from contextlib import nullcontext
from fractions import Fraction
from pathlib import Path
from typing import TypeVar

import av
import numpy as np
from av.audio.stream import AudioStream
from av.container import InputContainer
from av.error import ArgumentError, FFmpegError, InvalidDataError
from av.packet import Packet
from av.stream import Stream
from av.video.codeccontext import VideoCodecContext
from av.video.stream import VideoStream

from avprep.decode.audio_track import PREROLL, AudioTrack
from avprep.decode.clock import may_jump, running_on
from avprep.decode.extent import PacketSpans
from avprep.decode.frames import PUBLISHED_SECONDS
from avprep.decode.header import Header, Kind
from avprep.decode.media import SHORTEST_AUDIO, Media, Segment, no_frames
from avprep.decode.sniff import INPUT_OPTIONS, why_not_media
from avprep.decode.video_track import ReadAgain, VideoTrack, kind_of_track
from avprep.errors import DecodeError
from avprep.options import DecodeOptions

_SEEK_DISTANCES = (PREROLL, 5.0, 20.0, 80.0, float("inf"))  # seconds before a segment, in turn
_SURVEY_PACKETS = 500  # read at most from a file's beginning before a seek
_LONGEST_FRAME = 10.0  # seconds; that a rate this low is real is doubtful
_NOT_THE_FILM = av.stream.Disposition.attached_pic | av.stream.Disposition.timed_thumbnails

AnyStream = TypeVar("AnyStream", VideoStream, AudioStream)


def decode_with_pyav(
    path: str | Path,
    start: float | None,
    end: float | None,
    options: DecodeOptions,
    header: Header,
) -> Media:
    """Decode a file, or a segment of it, with PyAV.

    Raises:
        DecodeError: see `avprep.decode.decode_clip`.
    """
    try:
        return _decode_patiently(path, Segment(start, end), options, header)
    except MemoryError:
        raise DecodeError("out-of-memory", f"{path}: needs too much memory") from None
    except FFmpegError as error:
        if error.errno == errno.ENOMEM:
            raise DecodeError("out-of-memory", f"{path}: needs too much memory") from None
        raise DecodeError("garbage", f"{path}: {error.strerror}") from error


def _decode_patiently(
    path: str | Path, segment: Segment, options: DecodeOptions, header: Header
) -> Media:
    """Read the file in the fastest way that is right for it, found by trying."""
    kind: type[VideoTrack] | None = None
    while True:
        try:
            with _open(path) as container:
                # Times that the file does not tell are libavcodec's to find, as in ffmpeg.
                container.flags &= ~av.container.Flags.gen_pts.value  # type: ignore[operator]
                _check_begin(container, path, segment.start)
                return _decode(container, path, segment, options, header, kind)
        except ReadAgain as again:
            kind = again.kind


def _open(path: str | Path) -> InputContainer:
    try:
        # "file:" keeps a name such as "pipe:0.mp4" a file. Titles may be in any encoding.
        return av.open(f"file:{path}", options=INPUT_OPTIONS, metadata_errors="replace")
    except (ArgumentError, InvalidDataError) as error:  # the first: a demuxer not in the list
        raise why_not_media(path) from error


def _check_begin(container: InputContainer, path: str | Path, start: float | None) -> None:
    """Refuse a segment past the file's end, where the container says how long it is."""
    if av.format.Flags.no_timestamps in av.format.Flags(container.format.flags):
        return  # then the length is only guessed from a bit rate
    seconds = (container.duration or 0) / av.time_base
    if may_jump(container):  # then so may the time stamps that its length is told by
        return
    if start and seconds and start >= seconds:
        raise DecodeError("too-short", f"{path}: ends at {seconds:.3f} s, before {start:g} s")


def _decode(
    container: InputContainer,
    path: str | Path,
    segment: Segment,
    options: DecodeOptions,
    header: Header,
    kind: type[VideoTrack] | None,
) -> Media:
    if not container.streams:
        raise why_not_media(path)
    video = _first_usable(container.streams.video) if options.frames else None
    audio = _first_usable(container.streams.audio)
    if video is None and options.frames:
        raise DecodeError("no-video", f"{path}: has no video stream")
    if audio is None and (options.missing_audio == "fail" or video is None):
        raise DecodeError("no-audio", f"{path}: has no audio stream")
    for stream, cause in ((video, "no-video"), (audio, "no-audio")):
        if stream is not None and stream.codec_context is None:
            raise DecodeError(cause, f"{path}: no decoder for its {stream.type} stream's format")

    origin = float(Fraction(container.start_time or 0, av.time_base))
    begin = origin + segment.begin
    pictures = None
    if video is not None:
        kind = kind or kind_of_track(video)
        pictures = kind(video, origin, segment, lambda: _new_decoder(path, video.index))
    sound = AudioTrack(audio, origin, segment, options) if audio is not None else None
    if segment.start:
        _seek(container, path, pictures, sound, origin, begin)
    end = float("inf") if segment.end is None else origin + segment.end
    wanted: dict[Kind, float] = {}
    if pictures is not None:
        wanted["video"] = min(begin + PUBLISHED_SECONDS, end)
    if sound is not None or options.missing_audio == "silence":
        wanted["audio"] = min(begin + options.max_audio, end)
    spans = _read(container, pictures, sound, max(wanted.values()))
    if sound is None:
        wanted.pop("audio", None)
    spans.check_begin(path, header, begin)

    frames, times = pictures.take(options, path) if pictures is not None else no_frames(options)
    pcm = sound.samples() if sound is not None else np.empty(0, np.int16)
    heard = len(pcm) / options.sample_rate if sound is not None else None
    extent = spans.extent(header, begin, wanted, heard)
    if not len(pcm) and (pictures.ends_before_segment() if pictures else segment.start):
        detail = f"{path}: has nothing to show or to hear from {segment.begin:g} s on"
        raise DecodeError("too-short", detail)
    if not len(pcm) and pictures is not None and options.missing_audio == "omit":
        return Media(pcm, frames, times, "pyav", extent)
    is_shortened = sound is not None and sound.is_shortened
    if not len(pcm) and pictures is not None and options.missing_audio == "silence":
        seconds = spans.length("video", begin, end)
        is_shortened = seconds > options.max_audio
        pcm = np.zeros(round(min(seconds, options.max_audio) * options.sample_rate), np.int16)
    if not len(pcm):
        raise DecodeError("no-audio", f"{path}: its audio stream holds no sample in the clip")
    if len(pcm) < SHORTEST_AUDIO:
        raise DecodeError("too-short", f"{path}: {len(pcm) / options.sample_rate:.3f} s of audio")
    return Media(pcm, frames, times, "pyav", extent, is_shortened)


def _first_usable(streams: Sequence[AnyStream]) -> AnyStream | None:
    """The first stream of a kind, as OpenCV and so the published code takes it.

    Album covers and the thumbnails of chapters are not the film. A stream that is announced but of
    which nothing is known gives way to one that is there.
    """
    films = [stream for stream in streams if not stream.disposition & _NOT_THE_FILM]
    return next(
        (stream for stream in films if _has_parameters(stream)), films[0] if films else None
    )


def _new_decoder(path: str | Path, index: int) -> VideoCodecContext:
    """A decoder for a video stream that has seen nothing of it."""
    with _open(path) as container:
        stream = container.streams[index]
        assert isinstance(stream, VideoStream)
        return stream.codec_context


def _has_parameters(stream: VideoStream | AudioStream) -> bool:
    """Whether libav found a packet to learn the stream's size or rate from."""
    if stream.codec_context is None:
        return True  # there, and of a format that no decoder knows
    if isinstance(stream, VideoStream):
        return bool(stream.codec_context.width)
    return bool(stream.codec_context.sample_rate)


def _seek(
    container: InputContainer,
    path: str | Path,
    pictures: VideoTrack | None,
    sound: AudioTrack | None,
    origin: float,
    begin: float,
) -> None:
    """Go to where reading for a segment begins, having looked at how the sound begins."""
    # From the beginning only a new container reads everything: a seek back may skip packets.
    reads_all = may_jump(container) or (pictures is not None and not pictures.seeks)
    if sound is not None:
        with _open(path) if reads_all else nullcontext(container) as surveyed:
            _survey(surveyed, _streams(pictures, sound), sound)
    if reads_all:
        return
    streams = _streams(pictures, sound)
    # Containers without an index may come out behind the key frame asked for.
    for distance in _SEEK_DISTANCES:
        target = max(begin - distance, origin)
        # Before the first picture only the sound leads anywhere.
        leading = next((one for one in streams if _start_of(one) <= target), streams[-1])
        stamp = round(target / leading.time_base)
        container.seek(stamp, stream=leading)
        if target == origin or _is_before(container, leading, begin):
            break
    container.seek(stamp, stream=leading)


def _survey(
    container: InputContainer, streams: Iterable[VideoStream | AudioStream], sound: AudioTrack
) -> None:
    """Look at the first packets of the sound; the streams may be those of another container."""
    packets = _packets(container, [container.streams[one.index] for one in streams])
    for packet in itertools.islice(packets, _SURVEY_PACKETS):
        if packet.stream_index == sound.stream.index and sound.survey(packet):
            break
    sound.end_survey()


def _start_of(stream: VideoStream | AudioStream) -> float:
    """Seconds."""
    return float((stream.start_time or 0) * stream.time_base)


def _streams(
    pictures: VideoTrack | None, sound: AudioTrack | None
) -> list[VideoStream | AudioStream]:
    """The streams to read, the pictures' first."""
    return [track.stream for track in (pictures, sound) if track is not None]


def _is_before(container: InputContainer, stream: VideoStream | AudioStream, begin: float) -> bool:
    """Whether the stream's next packet is a key frame (as all sound is) of `begin` or earlier."""
    packet = next(_packets(container, [stream]), None)
    if packet is None:
        return False
    stamp = packet.pts if packet.pts is not None else packet.dts
    if stamp is None or not packet.is_keyframe:
        return False
    return float(stamp * stream.time_base) <= begin


def _read(
    container: InputContainer,
    pictures: VideoTrack | None,
    sound: AudioTrack | None,
    until: float,
) -> PacketSpans:
    """One pass over the file: packets to their tracks, until neither wants more.

    Args:
        container: the file.
        pictures: takes the video packets.
        sound: takes the audio packets; without it, pictures are followed for their length.
        until: when the clip ends, on the file's clock.
    """
    spans = PacketSpans()
    clocks = {stream.index: _Clock(stream) for stream in container.streams}
    reached = 0.0
    leader, *_ = _streams(pictures, sound)
    packets = _packets(container, container.streams)
    for packet in running_on(container, packets, leader.index):
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
    if sound is not None:
        sound.flush()
    return spans


def _packets(container: InputContainer, streams: Iterable[Stream]) -> Iterator[Packet]:
    """Packets up to where the file ends, or can no longer be read.

    A stream that appears within the file (a second sound in a VOB, other PIDs in a broadcast) is
    unknown to PyAV, which trips over it at the end.
    """
    try:
        for packet in container.demux(list(streams)):
            if packet.size:
                yield packet
    except IndexError:
        return
    except FFmpegError as error:  # a file cut short: what was read so far counts
        if error.errno == errno.ENOMEM:
            raise


class _Clock:
    """Seconds of a stream's packets; counted where an elementary stream has no time stamps."""

    def __init__(self, stream: Stream) -> None:
        self._base = float(stream.time_base or 0)
        rate = getattr(stream, "average_rate", None)
        self._frame = min(1 / float(rate), _LONGEST_FRAME) if rate else 0.0
        self._next = 0.0

    def time_of(self, packet: Packet) -> tuple[float, float]:
        """(start, duration)."""
        stamp = packet.pts if packet.pts is not None else packet.dts
        start = self._next if stamp is None else stamp * self._base
        length = (packet.duration or 0) * self._base or self._frame
        self._next = start + length
        return start, length
