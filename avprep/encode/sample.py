"""A clip becomes the members of one sample: decoded from its video, or packed from files."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from avprep.audio import decode_audio, encode_flac, encode_wav, promised_samples
from avprep.clips import Clip
from avprep.decode import check_file, decode_clip
from avprep.decode.media import SHORTEST_AUDIO
from avprep.encode.wire import EncodedSample
from avprep.errors import DecodeError
from avprep.images import JPEG_END, decode_jpeg, encode_jpeg, jpeg_size
from avprep.options import SampleOptions
from avprep.quality.measures import measure_clip

_ENCODERS = {"flac": encode_flac, "wav": encode_wav}
_MAGIC = {"flac": b"fLaC", "wav": b"RIFF"}


def encode_clip(clip: Clip, options: SampleOptions) -> EncodedSample:
    """Make the members of a clip's sample.

    A clip with `wav` is packed from its extracted files; any other is decoded from `video`.

    Raises:
        DecodeError: the clip cannot become a sample; its cause says why.
    """
    return pack_files(clip, options) if clip.wav else decode_video(clip, options)


def decode_video(clip: Clip, options: SampleOptions) -> EncodedSample:
    """Decode `clip.video` and encode audio and frames."""
    media = decode_clip(clip.video, clip.start, clip.end, options.decode)
    encode = _ENCODERS[options.audio]
    return EncodedSample(
        audio=encode(media.pcm, options.decode.sample_rate) if len(media.pcm) else b"",
        frames=tuple(encode_jpeg(frame, options.jpeg_quality) for frame in media.frames),
        frame_times=media.frame_times,
        num_samples=len(media.pcm),
        decoder=media.decoder,
        complete=media.extent.is_complete,
        seconds_found=media.extent.found,
        seconds_promised=media.extent.promised,
        audio_shortened=media.is_shortened,
        measures=measure_clip(media.pcm, media.frames, options.decode.sample_rate),
    )


def pack_files(clip: Clip, options: SampleOptions) -> EncodedSample:
    """Take the files that were extracted before; JPEG bytes are kept as they are."""
    audio, rate = _read(Path(clip.wav)), options.decode.sample_rate
    try:
        pcm = decode_audio(audio, rate)
    except (RuntimeError, ValueError) as error:
        raise DecodeError("garbage", f"{clip.wav}: {error}") from error
    if not len(pcm):
        raise DecodeError("no-audio", f"{clip.wav}: holds no audio sample")
    if len(pcm) < SHORTEST_AUDIO:
        raise DecodeError("too-short", f"{clip.wav}: {len(pcm) / rate:.3f} s of audio")
    found, promised = len(pcm) / rate, max(promised_samples(audio), len(pcm)) / rate
    if found < promised and options.decode.incomplete == "fail":
        detail = f"{clip.wav}: holds {found:g} s of the {promised:g} s it promises"
        raise DecodeError("truncated", detail)
    limit = round(options.decode.max_audio * rate)
    is_shortened, pcm = len(pcm) > limit, pcm[:limit]
    if is_shortened or not audio.startswith(_MAGIC[options.audio]):
        audio = _ENCODERS[options.audio](pcm, rate)
    frames, pictures = [], []
    number_of_frames = options.decode.frames
    if options.decode.missing_video == "omit" and not _has_frames(clip, number_of_frames):
        number_of_frames = 0
    expected = (options.decode.frame_size, options.decode.frame_size)
    for number in range(number_of_frames):
        path = _frame_file(clip, number)
        jpeg = _read(path)
        pixels = jpeg_size(jpeg)
        if pixels != expected:
            what = "not a JPEG image" if pixels is None else f"{pixels[0]}x{pixels[1]} pixels"
            raise DecodeError("garbage", f"{path}: {what}, expected {expected[0]}x{expected[1]}")
        if not jpeg.endswith(JPEG_END):
            raise DecodeError("truncated", f"{path}: ends before its picture does")
        frames.append(jpeg)
        try:
            pictures.append(decode_jpeg(jpeg))
        except OSError as error:
            raise DecodeError("garbage", f"{path}: {error}") from error
    return EncodedSample(
        audio=audio,
        frames=tuple(frames),
        frame_times=(),
        num_samples=len(pcm),
        decoder="files",
        complete=found >= promised,
        seconds_found=round(found, 3),
        seconds_promised=round(promised, 3),
        audio_shortened=is_shortened,
        measures=measure_clip(pcm, np.array(pictures, np.uint8).reshape(-1, *expected, 3), rate),
    )


def _frame_file(clip: Clip, number: int) -> Path:
    return Path(f"{clip.video_path}/frame_{number}/{clip.video_id}.jpg")


def _has_frames(clip: Clip, number_of_frames: int) -> bool:
    """Whether any is there: a clip that has lost some of its frames is damaged."""
    return any(_frame_file(clip, number).exists() for number in range(number_of_frames))


def _read(path: Path) -> bytes:
    check_file(path)
    try:
        return path.read_bytes()
    except OSError as error:
        raise DecodeError("unreadable", f"{path}: {error.strerror}") from error
