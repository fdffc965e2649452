"""What was put into a file comes out of it: every kind of file, both engines."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest

from avprep.decode import DecodeOptions, Media, decode_clip
from tests.media import Movie, ideal, make_movie, number_in

ENGINES = ("pyav", "ffmpeg")
YUV = ("-pix_fmt", "yuv420p")
X264 = ("-c:v", "libx264", "-preset", "ultrafast", *YUV)
X264_B_FRAMES = ("-c:v", "libx264", "-preset", "veryfast", *YUV)
AAC = ("-c:a", "aac", "-aac_pns", "0")  # without noise drawn from the decoder's memory
FLAC = ("-c:a", "flac")


@dataclass(frozen=True)
class Kind:
    """A file, and how far what is decoded may be from what was put in."""

    movie: Movie
    delay: int = 0  # samples at 16 kHz that sound may be off in time; 0: exact
    lossless: bool = True  # whether samples are known, or only their likeness
    engines: tuple[str, ...] = ENGINES


def lossless(name: str, **changes: object) -> Kind:
    return Kind(Movie(name, **changes))


def lossy(name: str, delay: int = 2, engines: tuple[str, ...] = ENGINES, **changes: object) -> Kind:
    return Kind(Movie(name, **changes), delay, lossless=False, engines=engines)


KINDS = (
    # Containers and video codecs.
    lossless("plain.mkv"),
    lossy("b-frames.mp4", video=X264_B_FRAMES, audio=AAC),
    lossy(
        "open-gop.mp4", video=(*X264_B_FRAMES, "-g", "12", "-x264-params", "open-gop=1"), audio=AAC
    ),
    lossless(
        "fragments.mp4", video=X264, audio=FLAC, extra=("-movflags", "frag_keyframe+empty_moov")
    ),
    lossless("uncompressed-sound.mov", video=X264_B_FRAMES),
    lossy("stream.ts", video=X264_B_FRAMES, audio=("-c:a", "mp2"), delay=260),
    lossy(
        "program.mpg",
        video=("-c:v", "mpeg2video", "-q:v", "3", *YUV),
        audio=("-c:a", "mp2"),
        delay=520,
    ),
    lossless("plain.avi", video=("-c:v", "mpeg4", "-q:v", "3", *YUV)),
    lossless("motion-jpeg.avi", video=("-c:v", "mjpeg", "-q:v", "3", "-pix_fmt", "yuvj420p")),
    lossy(
        "old.flv",
        video=("-c:v", "flv", "-q:v", "3", *YUV),
        audio=("-c:a", "libmp3lame"),
        delay=1200,
    ),
    lossless("old.wmv", video=("-c:v", "wmv2", "-q:v", "3", *YUV)),
    lossy("free.ogv", video=("-c:v", "libtheora", "-q:v", "7", *YUV), audio=("-c:a", "libvorbis")),
    lossy(
        "vp8.webm",
        video=("-c:v", "libvpx", "-b:v", "1M", "-deadline", "realtime"),
        audio=("-c:a", "libvorbis"),
        delay=20,
    ),
    lossy(
        "vp9.webm",
        video=("-c:v", "libvpx-vp9", "-b:v", "1M", "-deadline", "realtime", "-cpu-used", "8"),
        audio=("-c:a", "libopus"),
        delay=20,
    ),
    lossy(
        "av1.mp4",
        video=("-c:v", "libsvtav1", "-preset", "12", "-crf", "20", *YUV),
        audio=AAC,
        engines=("pyav",),
    ),
    lossy(
        "hidden-frames.webm",
        video=(
            "-c:v",
            "libvpx-vp9",
            "-b:v",
            "1M",
            "-deadline",
            "good",
            "-cpu-used",
            "5",
            "-auto-alt-ref",
            "1",
            "-lag-in-frames",
            "16",
        ),
        audio=("-c:a", "libopus"),
        delay=20,
    ),
    lossless(
        "hevc.mkv",
        video=(
            "-c:v",
            "libx265",
            "-preset",
            "ultrafast",
            "-x265-params",
            "log-level=none:bframes=4",
            *YUV,
        ),
    ),
    lossless("prores.mov", video=("-c:v", "prores_ks")),
    # Pixels.
    lossless(
        "ten-bit-h264.mkv",
        video=("-c:v", "libx264", "-preset", "ultrafast", "-pix_fmt", "yuv420p10le"),
    ),
    lossless(
        "ten-bit-hevc.mkv",
        video=(
            "-c:v",
            "libx265",
            "-preset",
            "ultrafast",
            "-x265-params",
            "log-level=none",
            "-pix_fmt",
            "yuv420p10le",
        ),
    ),
    lossless(
        "full-range.mkv", video=("-c:v", "libx264", "-preset", "ultrafast", "-pix_fmt", "yuvj420p")
    ),
    lossless("grey.mkv", video=("-c:v", "ffv1", "-pix_fmt", "gray")),
    lossless("sixteen-bit-grey.mkv", video=("-c:v", "ffv1", "-pix_fmt", "gray16le")),
    lossless("alpha.mov", video=("-c:v", "png", "-pix_fmt", "rgba")),
    lossy(
        "alpha.webm",
        video=(
            "-c:v",
            "libvpx-vp9",
            "-deadline",
            "realtime",
            "-cpu-used",
            "8",
            "-pix_fmt",
            "yuva420p",
        ),
        audio=("-c:a", "libopus"),
        delay=20,
    ),
    lossless("palette.avi", video=("-c:v", "rawvideo", "-pix_fmt", "rgb24")),
    lossless("interlaced.mkv", video=(*X264, "-x264-params", "tff=1")),
    lossy(
        "interlaced.mpg",
        video=("-c:v", "mpeg2video", "-q:v", "3", *YUV, "-flags", "+ildct+ilme"),
        audio=("-c:a", "mp2"),
        delay=520,
    ),
    lossless("odd.mkv", width=187, height=133, video=("-c:v", "ffv1", "-pix_fmt", "yuv444p")),
    lossless(
        "odd-h264.mkv",
        width=187,
        height=133,
        video=("-c:v", "libx264", "-preset", "ultrafast", "-pix_fmt", "yuv444p"),
    ),
    lossless("tall.mkv", width=90, height=400),
    lossless("4k.mkv", width=3840, height=2160, frames=12, audio_seconds=0.48),
    lossless(
        "wide-pixels.mkv",
        pixel_aspect=2.0,
        extra=("-bsf:v", "h264_metadata=sample_aspect_ratio=2/1"),
    ),
    lossless("tall-pixels.mp4", pixel_aspect=0.5, video=X264, extra=("-aspect", "2:3"), audio=FLAC),
    # Rates.
    lossless("rate-12.5.mkv", rate=Fraction(25, 2), frames=25),
    lossless("rate-23.976.mkv", rate=Fraction(24000, 1001), frames=48),
    lossless(
        "rate-29.97.mp4", rate=Fraction(30000, 1001), frames=60, video=X264_B_FRAMES, audio=FLAC
    ),
    lossless("rate-60.mp4", rate=Fraction(60), frames=120, video=X264_B_FRAMES, audio=FLAC),
    # Sound.
    lossless("5.1.mkv", channels=6, audio_rate=48000, audio=FLAC),
    lossy("5.1.mp4", channels=6, audio_rate=48000, video=X264, audio=(*AAC, "-b:a", "400k")),
    lossy("dolby.mkv", channels=6, audio_rate=48000, audio=("-c:a", "ac3"), delay=90),
    lossless("stereo.mkv", channels=2),
    lossless("mono-8k.mov", audio_rate=8000),
    lossless("22k.mkv", audio_rate=22050),
    lossless("16k.mkv", audio_rate=16000),
    lossless("96k.mkv", audio_rate=96000, audio=FLAC),
    lossless("192k.mkv", audio_rate=192000, audio=FLAC),
    lossless("apple.mov", audio=("-c:a", "alac")),
    lossless("24-bit.mkv", audio=("-c:a", "pcm_s24le")),
    lossless("float.mkv", audio=("-c:a", "pcm_f32le")),
    lossless("double.mkv", audio=("-c:a", "pcm_f64le")),
    lossy("8-bit.mkv", audio=("-c:a", "pcm_u8")),
    lossy("mulaw-8k.mov", audio_rate=8000, audio=("-c:a", "pcm_mulaw")),
    lossy("mp3.mkv", audio=("-c:a", "libmp3lame"), delay=20),
    # Alignment.
    lossless("sound-late.mkv", audio_start=0.4),
    lossy("sound-late.mp4", video=X264, audio=AAC, audio_start=0.4, delay=400),
    lossless("sound-ends-early.mkv", audio_seconds=1.1),
    lossless("sound-lasts-longer.mkv", audio_seconds=3.0),
    lossless("picture-late.mkv", video_start=0.4),
    lossy("picture-late.mp4", video=X264_B_FRAMES, audio=AAC, video_start=0.4),
    lossy(
        "picture-late.ts", video=X264_B_FRAMES, audio=("-c:a", "mp2"), video_start=0.4, delay=260
    ),
)
ZOO = {kind.movie.name: kind for kind in KINDS}
# Sound whose delay ffmpeg 5 announces to the millisecond, and version 9 removes by the sample.
DELAY_IN_MILLISECONDS = ("mp3.mkv", "dolby.mkv")
READINGS = [(name, engine) for name, kind in ZOO.items() for engine in kind.engines]


@pytest.fixture(scope="session")
def zoo(made_once: Callable[..., Path]) -> dict[str, Path]:
    """Every kind of file."""

    def make(folder: Path) -> None:
        with ThreadPoolExecutor(2) as pool:
            list(pool.map(lambda kind: make_movie(folder, kind.movie), KINDS))

    folder = made_once("zoo", make)
    return {name: folder / name for name in ZOO}


@pytest.fixture(scope="session")
def decoded(zoo: dict[str, Path]) -> Callable[..., Media]:
    """Decode a file of the zoo once for all tests."""
    cache: dict[tuple[object, ...], Media] = {}

    def decode(
        name: str, engine: str, start: float | None = None, end: float | None = None
    ) -> Media:
        key = (name, engine, start, end)
        if key not in cache:
            cache[key] = decode_clip(zoo[name], start, end, DecodeOptions(decoder=engine))
        return cache[key]

    return decode


def expected_numbers(
    movie: Movie, start: float | None = None, end: float | None = None
) -> list[int]:
    """The published rule, written anew: frames counted, then what is on screen at those times."""
    shown = [time for time in movie.times() if end is None or time < end]
    on_screen = 0
    if start is not None:
        on_screen = max(number for number, time in enumerate(shown) if number == 0 or time <= start)
    count = min(len(shown) - on_screen, int(movie.rate * 10))
    begin = shown[on_screen] if start is None else max(start, shown[on_screen])
    numbers = []
    for i in range(10):
        time = begin + max(i * count // 10 - 1, 0) / float(movie.rate)
        numbers.append(max(n for n, at in enumerate(shown) if n == on_screen or at <= time + 0.002))
    return numbers


def segment_of(movie: Movie) -> tuple[float, float]:
    """A segment from the middle of one frame to the middle of another."""
    step = float(1 / movie.rate)
    total = movie.frames * step
    first = movie.times()[0]
    start = first + (round(total * 0.33 / step) + 0.5) * step
    return round(start, 4), round(start + 0.4 * total, 4)


def sound_error(pcm: np.ndarray, movie: Movie, since: float, delay: int) -> tuple[float, float]:
    """(likeness, largest error) of samples beside the formula, at the best delay allowed."""
    edge = 700 if delay else 60  # ends are faded by codec or filter
    inner = slice(edge, len(pcm) - edge)
    got = pcm.astype(float)[inner]
    shift = best_shift(got, ideal(len(pcm), since - delay / 16000 + edge / 16000, 0), delay)
    right = ideal(len(pcm), since + shift / 16000)[inner]
    likeness = got @ right / np.sqrt((got @ got) * (right @ right))
    return likeness, float(np.abs(got - right).max())


def best_shift(got: np.ndarray, longer: np.ndarray, delay: int) -> int:
    """Where in `longer`, which begins `delay` samples ahead, `got` fits best: ±delay."""
    size = 1 << (len(got) + len(longer)).bit_length()
    spectrum = np.fft.rfft(longer, size) * np.conj(np.fft.rfft(got, size))
    return int(np.argmax(np.fft.irfft(spectrum, size)[: 2 * delay + 1])) - delay


def check_sound(pcm: np.ndarray, kind: Kind, since: float) -> None:
    likeness, error = sound_error(pcm, kind.movie, since, kind.delay)
    if kind.lossless:
        assert error <= 8, "more than the resampler's own ripple"
    else:
        assert likeness > 0.97


@pytest.mark.parametrize(("name", "engine"), READINGS)
def test_whole_files_give_the_published_frames_and_all_sound(decoded, name, engine):
    kind = ZOO[name]
    media = decoded(name, engine)
    numbers = [number_in(frame) for frame in media.frames]
    assert numbers == expected_numbers(kind.movie)
    times = kind.movie.times()
    expected = [times[number] - times[0] for number in numbers]
    assert np.abs(np.subtract(media.frame_times, expected)).max() < 0.0021
    check_sound(media.pcm, kind, 0.0)
    spare = 0 if kind.lossless else 1600  # codecs pad their last block
    assert -2 <= len(media.pcm) - kind.movie.audio_seconds * 16000 <= spare + 2
    assert media.extent.is_complete


@pytest.mark.parametrize(("name", "engine"), READINGS)
def test_segments_give_the_frames_and_the_sound_of_their_time(decoded, name, engine):
    kind = ZOO[name]
    movie = kind.movie
    start, end = segment_of(movie)
    media = decoded(name, engine, start, end)
    assert [number_in(frame) for frame in media.frames] == expected_numbers(movie, start, end)
    late = max(movie.audio_start - movie.video_start, 0.0)
    seconds = min(end, late + movie.audio_seconds) - max(start, late)
    # A container's clock of a millisecond is all the second engine has to go by.
    slack = dataclasses.replace(kind, delay=kind.delay or 16) if engine == "ffmpeg" else kind
    check_sound(media.pcm, dataclasses.replace(slack, lossless=False), max(start - late, 0.0))
    assert abs(len(media.pcm) - seconds * 16000) <= max(kind.delay, 18)
    assert media.extent.is_complete


@pytest.mark.parametrize("name", ZOO)
def test_segments_hold_the_samples_of_the_whole_file(decoded, name):
    start, end = segment_of(ZOO[name].movie)
    whole, part = decoded(name, "pyav").pcm, decoded(name, "pyav", start, end).pcm
    late = max(ZOO[name].movie.audio_start - ZOO[name].movie.video_start, 0.0)
    around = round(max(start - late, 0.0) * 16000)
    errors = {
        shift: np.abs(whole[around + shift :][: len(part)].astype(int) - part).max()
        for shift in range(-ZOO[name].delay - 1, ZOO[name].delay + 2)
        if len(whole) >= around + shift + len(part) and around + shift >= 0
    }
    # MPEG layer 2 rounds with a memory.
    assert min(errors.values()) <= (1 if ZOO[name].lossless else 2)


@pytest.mark.parametrize("name", [name for name in ZOO if ZOO[name].engines == ENGINES])
def test_both_engines_agree(decoded, name):
    one, other = (decoded(name, engine) for engine in ENGINES)
    for a, b in zip(one.frames, other.frames, strict=True):
        assert 10 * np.log10(255**2 / (np.square(a.astype(float) - b).mean() + 1e-9)) > 38
    length = min(len(one.pcm), len(other.pcm))
    # Their builds of ffmpeg differ in whether an MP4's last AAC block is cut to its duration.
    assert max(len(one.pcm), len(other.pcm)) - length <= 1024 * 16000 / 44100 + 1
    if name in DELAY_IN_MILLISECONDS:
        inner = slice(16, length - 400)
        shift = best_shift(other.pcm[inner].astype(float), one.pcm[: length - 384], 16)
        assert abs(shift) <= 8
    else:
        inner = slice(0, length - 400)
        assert np.abs(one.pcm[inner].astype(int) - other.pcm[inner]).max() <= 1
