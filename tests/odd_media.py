"""Films that are odd in one respect, and what the ffmpeg program makes of them.

The pictures are numbered as in `tests.media`; the truth is what ffmpeg shows, and when.
"""

from __future__ import annotations

import re
import struct
import subprocess
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import imageio_ffmpeg
import numpy as np
from numpy.typing import NDArray

from tests.media import number_in, picture

FFMPEG = imageio_ffmpeg.get_ffmpeg_exe()  # the one that makes the media, whatever is on PATH
YUV = ("-pix_fmt", "yuv420p")
X264 = ("-c:v", "libx264", "-preset", "veryfast", *YUV)
MP2 = ("-c:a", "mp2")
PCM = ("-c:a", "pcm_s16le")


_TONE = "0.4*sin(2*PI*(300*t+20*t*t))"


def film(
    path: Path,
    video: tuple[str, ...] = X264,
    audio: tuple[str, ...] = MP2,
    *,
    numbers: range = range(250),
    rate: int = 25,
    extra: tuple[str, ...] = (),
) -> Path:
    """Numbered pictures and a rising tone."""
    pictures = b"".join(picture(number, 192, 144).tobytes() for number in numbers)
    seconds = len(numbers) / rate
    command = [
        *(FFMPEG, "-v", "error", "-y"),
        *("-f", "rawvideo", "-pix_fmt", "gray", "-s", "192x144", "-framerate", str(rate)),
        *("-i", "pipe:0", "-f", "lavfi", "-i", f"aevalsrc={_TONE}:s=44100:d={seconds}"),
        *(*video, *audio, "-fps_mode", "passthrough", *extra, str(path)),
    ]
    done = subprocess.run(command, input=pictures, capture_output=True, check=False)
    assert done.returncode == 0, done.stderr.decode()
    return path


@dataclass(frozen=True)
class Shown:
    """A picture that the ffmpeg program shows."""

    time: float  # seconds after the container's start
    number: int  # -1: guesswork of the decoder, for want of what the picture refers to


_TIME_BASE = re.compile(r"config in time_base: (\d+/\d+)")
_STAMP = re.compile(r" n: *\d+ pts: *(-?\d+) ")
_START = re.compile(r"Duration: .*, start: (-?\d+\.\d+)")


def shown_by_ffmpeg(path: Path) -> list[Shown]:
    """Each picture that comes out of ffmpeg's decoder, in its order."""
    side = 96
    square = f"crop='min(iw,ih)':'min(iw,ih)',scale={side}:{side}:flags=area,format=gray"
    times, _, raw = _run_showinfo(path, "-vf", f"showinfo=checksum=0,{square}")
    # Told to read the pictures alone, ffmpeg may count from their beginning.
    copied, start, _ = _run_showinfo(path, "-copyts", "-vf", "showinfo", "-frames:v", "1")
    offset = copied[0] - start - times[0]
    grey = np.frombuffer(raw, np.uint8)[: len(times) * side**2].reshape(-1, side, side)
    numbers = [_number_or_none(one[..., None].repeat(3, 2)) for one in grey]
    return [Shown(time + offset, number) for time, number in zip(times, numbers, strict=True)]


def _number_or_none(frame: NDArray[np.uint8]) -> int:
    try:
        return number_in(frame)
    except AssertionError:
        return -1


def _run_showinfo(path: Path, *options: str) -> tuple[list[float], float, bytes]:
    """(seconds of each picture, the container's start, raw pictures)."""
    command = [FFMPEG, "-nostdin", "-nostats", "-max_error_rate", "1", "-i", str(path)]
    command += ["-map", "0:V:0", "-fps_mode", "passthrough", *options, "-f", "rawvideo", "-"]
    done = subprocess.run(command, capture_output=True, check=True)
    words = done.stderr.decode("utf-8", "replace")
    base, start = _TIME_BASE.search(words), _START.search(words)
    assert base is not None, words
    tick = float(Fraction(base[1]))
    times = [int(stamp) * tick for stamp in _STAMP.findall(words)]
    begin = float(start[1]) if start else 0.0
    if "Input #0, matroska" in words:  # has no time before 0; 5.1 counts an encoder's delay as such
        begin = max(begin, 0.0)
    return times, begin, done.stdout


def picture_by_ffmpeg(path: Path) -> tuple[NDArray[np.uint8], float]:
    """(uint8 [height, width, 3], pixel aspect) of the first picture as ffmpeg turns it."""
    command = [FFMPEG, "-nostdin", "-i", str(path), "-map", "0:V:0", "-frames:v", "1"]
    command += ["-vf", "showinfo", "-c:v", "ppm", "-pix_fmt", "rgb24", "-f", "image2pipe", "-"]
    done = subprocess.run(command, capture_output=True, check=True)
    head = re.match(rb"P6\s(\d+) (\d+)\s255\s", done.stdout)
    aspect = re.search(rb" sar:(\d+)/(\d+) ", done.stderr)
    assert head is not None
    assert aspect is not None
    pixels = np.frombuffer(done.stdout[head.end() :], np.uint8)
    wide = int(aspect[1]) / int(aspect[2]) if int(aspect[1]) else 1.0
    return pixels.reshape(int(head[2]), int(head[1]), 3), wide


def sound_by_ffmpeg(path: Path) -> NDArray[np.int16]:
    """int16 [samples], 16 kHz: all sound of the file."""
    command = [FFMPEG, "-v", "error", "-nostdin", "-i", str(path), "-map", "0:a:0"]
    command += ["-ar", "16000", "-ac", "1", "-f", "s16le", "-"]
    raw = subprocess.run(command, capture_output=True, check=True).stdout
    return np.frombuffer(raw, np.int16)


def pitches(pcm: NDArray[np.int16]) -> list[int]:
    """The strongest frequency in the middle of each second, Hz."""
    middles = [pcm[at : at + 4000] for at in range(6000, len(pcm) - 4000, 16000)]
    spectra = [np.abs(np.fft.rfft(one * np.hanning(4000), 1 << 16)) for one in middles]
    return [int(np.argmax(one) * 16000 / (1 << 16)) for one in spectra]


def set_display_matrix(path: Path, matrix: tuple[float, ...]) -> Path:
    """Write a matrix of nine numbers (a b u c d v x y w) into an MP4's track header."""
    data = bytearray(path.read_bytes())
    at = data.find(b"tkhd") + 44
    fixed = [round(one * (1 << (30 if i % 3 == 2 else 16))) for i, one in enumerate(matrix)]
    data[at : at + 36] = struct.pack(">9i", *fixed)
    path.write_bytes(data)
    return path
