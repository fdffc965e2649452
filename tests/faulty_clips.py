"""Made-up clips, ordinary ones and ones with a fault, encoded in many ways.

Ordinary clips vary as real ones do: a camera that pans, things that move, a head that talks before
a fixed background; speech with pauses, music, rain; loud and low.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import soundfile
from numpy.typing import NDArray

from avprep.quality.faults import FAULTS
from tests.media import run_ffmpeg

Frames = NDArray[np.uint8]  # [frames, height, width, 3]
Sound = NDArray[np.float64]  # [samples], full scale at 1

SECONDS, RATE = 3, 10  # frames per second
IMPLIED = {"silent": {"quiet"}, "blank": {"still"}}  # a black picture is still, silence is quiet
_COLOURS = ((0, 0, 0), (0, 0, 255), (255, 255, 255), (16, 120, 60))
_X264 = ("-c:v", "libx264", "-preset", "veryfast", "-crf")
_VP8 = ("-c:v", "libvpx", "-deadline", "realtime", "-cpu-used", "8", "-b:v", "400k", "-crf")
# Container, video codec up to its quality, worst and best of that, and the sound's codecs.
_CODECS = (
    ("mp4", _X264, (36, 20), (("aac", "-b:a", "48k"), ("aac", "-b:a", "128k"))),
    ("mkv", _X264, (34, 20), (("libmp3lame", "-b:a", "96k"), ("flac",))),
    ("avi", ("-c:v", "mpeg4", "-q:v"), (14, 3), (("libmp3lame", "-b:a", "64k"),)),
    ("webm", _VP8, (40, 10), (("libopus", "-b:a", "48k"), ("libvorbis", "-q:a", "3"))),
)


@dataclass(frozen=True)
class MadeClip:
    """A file, and the names of the faults it has."""

    path: Path
    faults: frozenset[str]


def make_faulty_clip(folder: Path, number: int, fault: str = "") -> MadeClip:
    """Make the clip of a number, with a fault of `FAULTS`, or without."""
    rng = np.random.default_rng(number)
    height = int(rng.choice([144, 180, 240, 288]))
    width = int(rng.choice([height * 4 // 3, height * 16 // 9])) // 2 * 2
    if rng.random() < 0.15:
        width, height = height, width
    rate = int(rng.choice([44100, 48000]))
    frames, sound = _pictures(rng, height, width), _sound(rng, rate)
    if fault:
        frames, sound = _PLANTED[fault](rng, frames, sound)
    suffix, video, (worst, best), sounds = _CODECS[rng.integers(len(_CODECS))]
    path, wav = folder / f"{number:04d}.{suffix}", folder / f"{number:04d}.wav"
    soundfile.write(wav, sound, rate, subtype="PCM_16")
    run_ffmpeg(
        *("-f", "rawvideo", "-pix_fmt", "rgb24", "-s", f"{width}x{height}", "-r", RATE),
        *("-i", "pipe:0", "-i", wav, "-pix_fmt", "yuv420p", *video, rng.integers(best, worst)),
        *("-c:a", *sounds[rng.integers(len(sounds))], "-threads", "1", path),
        stdin=frames.tobytes(),
    )
    wav.unlink()
    return MadeClip(path, frozenset({fault} - {""}) | IMPLIED.get(fault, set()))


def fault_of(number: int) -> str:
    """Of twenty clips in a row, one has each fault, and the others none."""
    place = number % 20
    return FAULTS[place].name if place < len(FAULTS) else ""


def _pictures(rng: np.random.Generator, height: int, width: int) -> Frames:
    margin = 40
    scene = _texture(rng, height + 2 * margin, width + 2 * margin)
    speeds = rng.uniform(6, 12, 2)
    kind = rng.choice(["pan", "things", "head"])
    frames = []
    for number in range(SECONDS * RATE):
        time = number / (SECONDS * RATE)
        shift = 30 * np.sin(3 * speeds * time) if kind == "pan" else (0, 0)
        top, left = (int(margin + one) for one in shift)
        frame = scene[top : top + height, left : left + width].copy()
        if kind == "things":
            for thing in range(3):
                angles = speeds * time + thing * np.array([2, 3])
                x = int(width * (0.5 + np.sin(angles[0]) / 3))
                y = int(height * (0.5 + np.cos(angles[1]) / 3))
                colour = (80 * thing, 200 - 60 * thing, 90)
                cv2.circle(frame, (x, y), height // 9, colour, -1, cv2.LINE_AA)
        if kind == "head":
            _draw_head(frame, speeds * time, number)
        frames.append(frame)
    return np.stack(frames)


def _texture(rng: np.random.Generator, height: int, width: int) -> Frames:
    """Noise whose spectrum falls as that of photographs, and things with edges."""
    frequency = np.hypot(np.fft.fftfreq(height)[:, None], np.fft.rfftfreq(width))
    frequency[0, 0] = 1
    shared = rng.standard_normal((height, width))
    planes = []
    for _ in range(3):
        noise = shared + 0.5 * rng.standard_normal((height, width))
        spectrum = np.fft.rfft2(noise) / frequency ** rng.uniform(0.9, 1.3)
        plane = np.fft.irfft2(spectrum, (height, width))
        planes.append((plane - plane.mean()) / plane.std())
    scene = rng.uniform(30, 55) * np.stack(planes, axis=2) + rng.uniform(90, 160)
    scene = scene.clip(0, 255).astype(np.uint8)
    for _ in range(12):
        colour = tuple(map(int, rng.integers(0, 256, 3)))
        x, y = map(int, rng.integers(0, (width, height)))
        size = int(rng.integers(5, height // 5))
        if rng.random() < 0.5:
            cv2.circle(scene, (x, y), size, colour, -1, cv2.LINE_AA)
        else:
            cv2.rectangle(scene, (x, y), (x + 2 * size, y + size), colour, -1)
    return scene


def _draw_head(frame: Frames, angles: NDArray[np.float64], number: int) -> None:
    height, width = frame.shape[:2]
    x = int(width / 2 + 3 * np.sin(4 * angles[0]))
    y = int(height / 2 + 2 * np.sin(5 * angles[1]))
    size = (height // 6, height // 4)
    cv2.ellipse(frame, (x, y), size, 0, 0, 360, (205, 170, 150), -1, cv2.LINE_AA)
    for side in (-1, 1):
        eye = (x + side * height // 14, y - height // 12)
        cv2.circle(frame, eye, height // 50 + 1, (40, 30, 30), -1, cv2.LINE_AA)
    mouth = (height // 16, max(1, int(height / 22 * abs(np.sin(2.1 * number)))))
    cv2.ellipse(frame, (x, y + height // 9), mouth, 0, 0, 360, (120, 40, 50), -1, cv2.LINE_AA)


def _sound(rng: np.random.Generator, rate: int) -> Sound:
    times = np.arange(SECONDS * rate) / rate
    kind = rng.choice(["speech", "music", "rain"])
    if kind == "speech":
        pitch = rng.uniform(90, 220) * (1 + 0.1 * np.sin(1.4 * np.pi * times))
        phase = 2 * np.pi * np.cumsum(pitch) / rate
        voice = sum(np.sin(harmonic * phase) / harmonic for harmonic in range(1, 14))
        syllables = (np.sin(rng.uniform(12, 25) * times + rng.uniform(0, 6)) + 0.2).clip(0, 1)
        pauses = np.sin(2.5 * times + rng.uniform(0, 6)) > -0.5
        sound = voice * syllables * pauses + 0.001 * rng.standard_normal(len(times))
    elif kind == "music":
        decay = np.exp(-2 * (2 * times % 1))
        pitches = rng.uniform(150, 1500, 5)
        sound = decay * sum(np.sin(2 * np.pi * pitch * times) for pitch in pitches)
    else:
        spectrum = np.fft.rfft(rng.standard_normal(len(times)))
        frequencies = np.fft.rfftfreq(len(times), 1 / rate).clip(80)
        sound = np.fft.irfft(spectrum / frequencies ** rng.uniform(0.5, 1), len(times))
    sound = at_level(sound, rng.uniform(-45, -14))
    return sound * min(1.0, 0.97 / np.abs(sound).max())


def at_level(sound: Sound, decibels: float) -> Sound:
    """The same at another loudness (RMS, dBFS)."""
    return sound / np.sqrt(np.square(sound).mean()) * 10 ** (decibels / 20)


Planter = Callable[[np.random.Generator, Frames, Sound], tuple[Frames, Sound]]


def _silent(rng: np.random.Generator, frames: Frames, sound: Sound) -> tuple[Frames, Sound]:
    hiss = at_level(rng.standard_normal(len(sound)), rng.uniform(-90, -66))
    return frames, hiss if rng.random() < 0.5 else np.zeros_like(sound)


def _quiet(rng: np.random.Generator, frames: Frames, sound: Sound) -> tuple[Frames, Sound]:
    return frames, at_level(sound, rng.uniform(-57, -53))


def _clipped(rng: np.random.Generator, frames: Frames, sound: Sound) -> tuple[Frames, Sound]:
    return frames, at_level(sound, rng.uniform(-8, 4)).clip(-1, 1)


def _noise(rng: np.random.Generator, frames: Frames, sound: Sound) -> tuple[Frames, Sound]:
    return frames, at_level(rng.standard_normal(len(sound)), rng.uniform(-40, -15))


def _still(rng: np.random.Generator, frames: Frames, sound: Sound) -> tuple[Frames, Sound]:
    return np.repeat(frames[:1], len(frames), axis=0), sound


def _blank(rng: np.random.Generator, frames: Frames, sound: Sound) -> tuple[Frames, Sound]:
    grain = rng.normal(0, rng.choice([0, 2]), frames.shape)
    return (grain + rng.choice(_COLOURS)).clip(0, 255).astype(np.uint8), sound


def _blurred(rng: np.random.Generator, frames: Frames, sound: Sound) -> tuple[Frames, Sound]:
    sigma = min(frames.shape[1:3]) * rng.uniform(0.025, 0.06)
    return np.stack([cv2.GaussianBlur(frame, (0, 0), sigma) for frame in frames]), sound


def _letterboxed(rng: np.random.Generator, frames: Frames, sound: Sound) -> tuple[Frames, Sound]:
    """Bars above and below, or in an upright video too; both take 0.12 to 0.3 together."""
    height, width = frames.shape[1:3]
    bar = int(min(height, width) * rng.uniform(0.06, 0.15))
    boxed = np.zeros_like(frames)
    if height <= width:
        for frame, target in zip(frames, boxed, strict=True):
            target[bar : height - bar] = cv2.resize(frame, (width, height - 2 * bar))
    else:
        for frame, target in zip(frames, boxed, strict=True):
            target[:, bar : width - bar] = cv2.resize(frame, (width - 2 * bar, height))
    return boxed, sound


_PLANTED: dict[str, Planter] = {
    "silent": _silent,
    "quiet": _quiet,
    "clipped": _clipped,
    "noise": _noise,
    "still": _still,
    "blank": _blank,
    "blurred": _blurred,
    "letterboxed": _letterboxed,
}
