"""The first engine: PyAV, audio and video from one pass over the file.

Audio packets are decoded as they are read; video packets are kept, and once all of the clip's
first 10 s are there, only what the chosen frames need is decoded.
"""

from __future__ import annotations

import contextlib
import errno
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
from av.audio.stream import AudioStream
from av.container import InputContainer
from av.error import FFmpegError, InvalidDataError
from av.video.codeccontext import VideoCodecContext
from av.video.stream import VideoStream

from avprep.decode.audio_track import PREROLL, AudioTrack
from avprep.decode.clock import may_jump, running_on
from avprep.decode.media import SHORTEST_AUDIO, Media, Segment, no_frames
from avprep.decode.sniff import looks_like_media
from avprep.decode.video_track import ReadAgain, VideoTrack, kind_of_track
from avprep.errors import DecodeError
from avprep.options import DecodeOptions

av.logging.set_level(None)  # libav's complaints end up in our causes, not on the terminal

_SEEK_DISTANCES = (PREROLL, 5.0, 20.0, 80.0, float("inf"))  # seconds before a segment, in turn
_LONG_BEFORE = 10 * av.time_base
_SURVEY_PACKETS = 500  # read at most from a file's beginning before a seek


def decode_with_pyav(
    path: str | Path, start: float | None, end: float | None, options: DecodeOptions
) -> Media:
    """Decode a file, or a segment of it, with PyAV.

    Raises:
        DecodeError: see `avprep.decode.decode_clip`.
    """
    try:
        return _decode_patiently(path, Segment(start, end), options)
    except MemoryError:
        raise DecodeError("out-of-memory", f"{path}: needs too much memory") from None
    except FFmpegError as error:
        if error.errno == errno.ENOMEM:
            raise DecodeError("out-of-memory", f"{path}: needs too much memory") from None
        raise DecodeError("garbage", f"{path}: {error.strerror}") from error


def _decode_patiently(path: str | Path, segment: Segment, options: DecodeOptions) -> Media:
    """Read the file in the fastest way that is right for it, found by trying."""
    kind: type[VideoTrack] | None = None
    while True:
        try:
            with _open(path) as container:
                # Times that the file does not tell are libavcodec's to find, as in ffmpeg.
                container.flags &= ~av.container.Flags.gen_pts.value  # type: ignore[operator]
                _check_begin(container, path, segment.start)
                return _decode(container, path, segment, options, kind)
        except ReadAgain as again:
            kind = again.kind


def _open(path: str | Path) -> InputContainer:
    try:
        # "file:" keeps a name such as "pipe:0.mp4" a file; the white list keeps a playlist in
        # disguise from fetching anything.
        return av.open(f"file:{path}", options={"protocol_whitelist": "file"})
    except InvalidDataError as error:
        if looks_like_media(path):
            raise DecodeError("truncated", f"{path}: cut short or damaged, has no index") from error
        raise DecodeError("garbage", f"{path}: not a media file") from error


def _check_begin(container: InputContainer, path: str | Path, start: float | None) -> None:
    """Refuse a segment past the file's end, where the container says how long it is."""
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
    kind: type[VideoTrack] | None,
) -> Media:
    video = _first_video(container) if options.frames else None
    audio = container.streams.audio[0] if container.streams.audio else None
    if video is None and options.frames:
        raise DecodeError("no-video", f"{path}: has no video stream")
    if audio is None and (options.missing_audio == "fail" or video is None):
        raise DecodeError("no-audio", f"{path}: has no audio stream")
    for stream, cause in ((video, "no-video"), (audio, "no-audio")):
        if stream is not None and stream.codec_context is None:
            raise DecodeError(cause, f"{path}: no decoder for its {stream.type} stream's format")

    origin = float(Fraction(container.start_time or 0, av.time_base))
    pictures = None
    if video is not None:
        kind = kind or kind_of_track(video)
        pictures = kind(video, origin, segment, lambda: _new_decoder(path, video.index))
    sound = AudioTrack(audio, origin, segment, options) if audio is not None else None
    if segment.start:
        _seek(container, pictures, sound, origin + segment.start)
    _read(container, pictures, sound)

    frames, times = pictures.take(options, path) if pictures is not None else no_frames(options)
    pcm = sound.samples() if sound is not None else np.empty(0, np.int16)
    if not len(pcm) and (pictures.ends_before_segment() if pictures else segment.start):
        detail = f"{path}: has nothing to show or to hear from {segment.begin:g} s on"
        raise DecodeError("too-short", detail)
    if not len(pcm) and pictures is not None and options.missing_audio == "omit":
        return Media(pcm, frames, times, "pyav")
    if not len(pcm) and pictures is not None and options.missing_audio == "silence":
        pcm = np.zeros(int(pictures.duration() * options.sample_rate), np.int16)
    if not len(pcm):
        raise DecodeError("no-audio", f"{path}: its audio stream holds no sample in the clip")
    if len(pcm) < SHORTEST_AUDIO:
        raise DecodeError("too-short", f"{path}: {len(pcm) / options.sample_rate:.3f} s of audio")
    return Media(pcm, frames, times, "pyav")


def _first_video(container: InputContainer) -> VideoStream | None:
    """The first video stream, as OpenCV and so the published code takes it; no album cover."""
    return next((one for one in container.streams.video if not _is_cover(one)), None)


def _new_decoder(path: str | Path, index: int) -> VideoCodecContext:
    """A decoder for a video stream that has seen nothing of it."""
    with _open(path) as container:
        stream = container.streams[index]
        assert isinstance(stream, VideoStream)
        return stream.codec_context


def _is_cover(stream: VideoStream) -> bool:
    """Whether a video stream is a picture attached to the file, such as an album cover."""
    return bool(stream.disposition & av.stream.Disposition.attached_pic)


def _seek(
    container: InputContainer,
    pictures: VideoTrack | None,
    sound: AudioTrack | None,
    begin: float,
) -> None:
    """Go to where reading for a segment begins, having looked at how the sound begins."""
    if sound is not None:
        with contextlib.suppress(FFmpegError):
            for number, packet in enumerate(container.demux(_streams(pictures, sound))):
                is_sound = packet.stream is sound.stream
                if number == _SURVEY_PACKETS or (is_sound and sound.survey(packet)):
                    break
        sound.end_survey()
    if may_jump(container) or (pictures is not None and not pictures.seeks):
        _rewind(container)
        return
    leading, *_ = _streams(pictures, sound)
    # Containers without an index may come out behind the key frame asked for.
    for distance in _SEEK_DISTANCES:
        target = int((begin - distance) * av.time_base) if distance < begin else 0
        container.seek(target)
        if target <= (container.start_time or 0) or _is_before(container, leading, begin):
            break
    container.seek(target)


def _rewind(container: InputContainer) -> None:
    """Back to the first packet; some containers accept no time before it, some no time but one."""
    begin = container.start_time or 0
    try:
        container.seek(begin - _LONG_BEFORE)
    except FFmpegError:
        container.seek(begin)


def _streams(
    pictures: VideoTrack | None, sound: AudioTrack | None
) -> list[VideoStream | AudioStream]:
    """The streams to read, the pictures' first."""
    return [track.stream for track in (pictures, sound) if track is not None]


def _is_before(container: InputContainer, stream: VideoStream | AudioStream, begin: float) -> bool:
    """Whether the stream's next packet is a key frame (as all sound is) of `begin` or earlier."""
    packet = next(container.demux(stream))
    stamp = packet.pts if packet.pts is not None else packet.dts
    if stamp is None or not packet.is_keyframe:
        return False
    return float(stamp * stream.time_base) <= begin


def _read(container: InputContainer, pictures: VideoTrack | None, sound: AudioTrack | None) -> None:
    """One pass over the file: packets to their tracks, until neither wants more."""
    try:
        streams = _streams(pictures, sound)
        for packet in running_on(container, container.demux(streams), streams[0].index):
            if pictures is not None and packet.stream is pictures.stream:
                pictures.add(packet)
            elif sound is not None:
                sound.add(packet)
            if all(track is None or track.complete for track in (pictures, sound)):
                return
    except FFmpegError as error:  # a file cut short: what was read so far counts
        if error.errno == errno.ENOMEM:
            raise
