"""Media whose content says what it is, so that what was decoded can be read back.

Every frame carries its number as a grid of dark and light cells in the middle of the picture.
Every audio channel is a rising tone with a start frequency of its own, given by a formula, so the
right samples at any rate are known exactly.

One known ffmpeg makes them, imageio-ffmpeg's, whichever one the code under test finds: an older
one lacks some of the containers and options.
"""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path

import av
import imageio_ffmpeg
import numpy as np
import soundfile
from numpy.typing import NDArray

from avprep.decode import Media

GRID = 4  # cells a side: 16 bits
DARK, LIGHT, AROUND = 30, 225, 128


def picture(number: int, width: int, height: int, pixel_aspect: float = 1.0) -> NDArray[np.uint8]:
    """uint8 [height, width]: the number in the square that a centre crop shows.

    Args:
        number: below 2**16.
        width: pixels.
        height: pixels.
        pixel_aspect: shown width of a pixel over its shown height.
    """
    side = min(width * pixel_aspect, height)
    x = (np.arange(width) + 0.5 - width / 2) * pixel_aspect / side + 0.5
    y = (np.arange(height) + 0.5 - height / 2) / side + 0.5
    column, row = np.floor(x * GRID).astype(int), np.floor(y * GRID).astype(int)
    inside = ((row >= 0) & (row < GRID))[:, None] & ((column >= 0) & (column < GRID))[None]
    bit = (row[:, None] * GRID + column[None]).clip(0, GRID * GRID - 1)
    # Mixing the bits makes neighbours differ in half the cells, and a turned grid no number.
    cells = np.where(mixed(number) >> bit & 1, LIGHT, DARK)
    return np.where(inside, cells, AROUND).astype(np.uint8)


def mixed(number: int) -> int:
    """A one-to-one scramble of 16-bit numbers."""
    return (number * 40503 + 0x5A5A) & 0xFFFF


def number_in(frame: NDArray[np.uint8]) -> int:
    """The number that a decoded frame carries.

    Raises:
        AssertionError: a cell is neither dark nor light.
    """
    grey = frame.mean(axis=2)
    cell = len(grey) // GRID
    value = 0
    for bit in range(GRID * GRID):
        top, left = bit // GRID * cell, bit % GRID * cell
        middle = grey[
            top + cell // 4 : top + 3 * cell // 4, left + cell // 4 : left + 3 * cell // 4
        ]
        level = middle.mean()
        assert level < 85 or level > 170, f"cell {bit} is {level:.0f}, neither dark nor light"
        value |= int(level > 127) << bit
    return (value - 0x5A5A) * pow(40503, -1, 1 << 16) & 0xFFFF


def numbers_of(media: Media) -> list[int]:
    """Those of all its frames."""
    return [number_in(frame) for frame in media.frames]


def tone(times: NDArray[np.float64], channel: int = 0) -> NDArray[np.float64]:
    """The sound of a channel at given times (seconds), between -0.5 and 0.5."""
    start = 300 + 170 * channel
    return 0.5 * np.sin(2 * np.pi * (start * times + 40 * times**2))


def ideal(count: int, since: float = 0.0, channel: int = 0) -> NDArray[np.float64]:
    """[count] samples at 16 kHz of a channel, in steps of int16, from a time on."""
    return tone(since + np.arange(count) / 16000, channel) * 32768


@dataclass(frozen=True)
class Movie:
    """A file to make: what is in it, and how ffmpeg is to write it."""

    name: str  # with the suffix that chooses the container
    video: tuple[str, ...] = ("-c:v", "libx264", "-preset", "ultrafast")
    audio: tuple[str, ...] = ("-c:a", "pcm_s16le")
    width: int = 192
    height: int = 144
    rate: Fraction = Fraction(25)
    frames: int = 50
    pixel_aspect: float = 1.0
    audio_rate: int = 44100
    channels: int = 1
    audio_seconds: float = 2.0
    audio_start: float = 0.0  # after the video's
    video_start: float = 0.0
    before: tuple[str, ...] = field(default=())  # options ahead of the picture's input
    extra: tuple[str, ...] = field(default=())  # last options

    def times(self) -> list[float]:
        """Seconds at which each frame is shown, from the container's start."""
        first = max(self.video_start - self.audio_start, 0.0) if self.audio_seconds else 0.0
        return [first + float(number / self.rate) for number in range(self.frames)]


def make_movie(folder: Path, movie: Movie) -> Path:
    """Write a movie; returns its path."""
    path = folder / movie.name
    sound = folder / f"{movie.name}.wav"
    pictures = b"".join(
        picture(number, movie.width, movie.height, movie.pixel_aspect).tobytes()
        for number in range(movie.frames)
    )
    arguments = [
        *movie.before,
        *("-f", "rawvideo", "-pix_fmt", "gray", "-s", f"{movie.width}x{movie.height}"),
        *("-framerate", str(movie.rate), "-itsoffset", str(movie.video_start), "-i", "pipe:0"),
    ]
    if movie.audio_seconds:
        times = np.arange(round(movie.audio_seconds * movie.audio_rate)) / movie.audio_rate
        channels = np.stack([tone(times, channel) for channel in range(movie.channels)], axis=1)
        soundfile.write(sound, channels, movie.audio_rate, subtype="PCM_24")
        arguments += ["-itsoffset", str(movie.audio_start), "-i", str(sound)]
    arguments += [*movie.video, *movie.audio, "-fps_mode", "passthrough", *movie.extra, str(path)]
    run_ffmpeg(*arguments, stdin=pictures)
    sound.unlink(missing_ok=True)
    return path


def run_ffmpeg(*arguments: object, stdin: bytes = b"") -> None:
    """Make a file with ffmpeg; its complaints are the failure's text."""
    program = imageio_ffmpeg.get_ffmpeg_exe()
    command = [program, "-v", "error", "-y", *map(str, arguments)]
    done = subprocess.run(command, input=stdin, capture_output=True, check=False)
    assert done.returncode == 0, (command, done.stderr.decode())


@dataclass(frozen=True)
class Exact:
    """A MOV file with exact time stamps: H.264 and uncompressed sound."""

    stamps: tuple[int, ...]  # of the frames, in units of `tick`
    tick: Fraction  # seconds
    rate: Fraction  # frames per second, as announced to the encoder
    audio_start: float = 0.0
    audio_seconds: float = 1.0
    audio_rate: int = 44100
    channels: int = 1
    group: int = 250  # frames between key frames
    b_frames: int = 0


def make_exact(path: Path, movie: Exact) -> Path:
    """Write the file with PyAV, frame by frame; returns its path."""
    with av.open(str(path), "w") as container:
        video = container.add_stream("libx264", rate=movie.rate)
        video.width = video.height = 64
        video.pix_fmt = "yuv420p"
        video.codec_context.time_base = movie.tick
        video.options = {
            "preset": "ultrafast",
            "g": str(movie.group),
            "bf": str(movie.b_frames),
            "x264-params": "scenecut=0",
            "crf": "20",
        }
        audio = container.add_stream("pcm_s16le", rate=movie.audio_rate)
        audio.layout = {1: "mono", 2: "stereo"}[movie.channels]
        sound = _sound_frames(movie)
        next_sound = next(sound, None)
        for number, stamp in enumerate(movie.stamps):
            while next_sound is not None and next_sound.time <= stamp * movie.tick:
                container.mux(audio.encode(next_sound))
                next_sound = next(sound, None)
            frame = av.VideoFrame.from_ndarray(picture(number, 64, 64), format="gray")
            frame.pts, frame.time_base = stamp, movie.tick
            container.mux(video.encode(frame.reformat(format="yuv420p")))
        container.mux(video.encode(None))
        for rest in (next_sound, *sound):
            if rest is not None:
                container.mux(audio.encode(rest))
        container.mux(audio.encode(None))
    return path


def _sound_frames(movie: Exact) -> Iterator[av.AudioFrame]:
    rate, block = movie.audio_rate, 1024
    count = round(movie.audio_seconds * rate)
    for first in range(0, count, block):
        times = np.arange(first, min(first + block, count)) / rate
        channels = [tone(times, channel) for channel in range(movie.channels)]
        samples = np.rint(np.stack(channels, axis=1) * 32767).astype(np.int16)
        frame = av.AudioFrame.from_ndarray(
            samples.reshape(1, -1), format="s16", layout={1: "mono", 2: "stereo"}[movie.channels]
        )
        frame.sample_rate = rate
        frame.time_base = Fraction(1, rate)
        frame.pts = first + round(movie.audio_start * rate)
        yield frame
