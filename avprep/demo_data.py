"""A small labelled video set, made on the spot with ffmpeg: real files, real codecs.

Eight classes. Each shows one of four moving shapes and plays one of four sounds; a shape occurs
in two classes and so does a sound, so neither alone tells the class (at best one guess in two)
and both together do. Colours, sizes, speeds, pitches and noise vary from clip to clip.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import ffmpeg
import numpy as np
from numpy.typing import NDArray

from avprep import storage
from avprep.errors import UserError, WorkFailed
from avprep.ffmpeg_binary import find_ffmpeg
from avprep.jobs import PoolOptions, run_jobs
from avprep.labels import LabelSet, label_set_from_names, write_label_csv

SHAPES = ("circle", "checks", "stripes", "triangle")
SOUNDS = ("tone", "rising", "bursts", "falling")
# Class k shows shape k % 4; the second four classes play the next shape's sound.
CLASSES = tuple(
    f"{SHAPES[k % 4]}-{SOUNDS[(k + k // 4) % 4]}" for k in range(len(SHAPES) + len(SOUNDS))
)
BROKEN = ("broken_cut_short.mp4", "broken_not_a_video.mp4")

_AUDIO_RATE = 44100


@dataclass(frozen=True)
class Container:
    """A file type with its codecs, as ffmpeg names them."""

    suffix: str
    video: dict[str, str | int]
    audio: dict[str, str | int]


_H264: dict[str, str | int] = {
    "vcodec": "libx264",
    "preset": "ultrafast",
    "crf": 24,
    "pix_fmt": "yuv420p",
}
_COMMON = Container("mp4", _H264, {"acodec": "aac", "audio_bitrate": "96k"})
_OTHERS = (
    Container("mkv", _H264, {"acodec": "flac"}),
    Container(
        "webm",
        {"vcodec": "libvpx-vp9", "deadline": "realtime", "cpu-used": 8, "video_bitrate": "600k"},
        {"acodec": "libopus", "audio_bitrate": "64k"},
    ),
    Container("avi", {"vcodec": "mpeg4", "qscale:v": 5}, {"acodec": "libmp3lame"}),
)
_EVERY_NTH_IS_ANOTHER_CONTAINER = 9


@dataclass(frozen=True)
class DemoClip:
    """One video to make; everything about it follows from `seed`."""

    path: Path
    label: str
    seed: int
    container: Container
    seconds: float


@dataclass(frozen=True)
class DemoDataOptions:
    """How much to make."""

    train_clips: int = 40  # a class
    test_clips: int = 8  # a class
    seconds: float = 2.0
    seed: int = 0


def make_demo_data(
    out: Path,
    options: DemoDataOptions,
    pool: PoolOptions,
    on_progress: Callable[[int, int], None] = lambda done, total: None,
) -> LabelSet:
    """Make OUT/train/CLASS/*, OUT/test/CLASS/* and OUT/labels.csv; files already there are kept.

    Two files of the training set are broken on purpose.

    Raises:
        UserError: the folder cannot be made.
        WorkFailed: ffmpeg could not encode a clip.
    """
    clips = list(plan_demo_clips(out, options))
    for folder in {clip.path.parent for clip in clips}:
        storage.make_folder(folder)
        storage.remove_abandoned(folder)  # of a run that was killed
    missing = [clip for clip in clips if not clip.path.exists()]
    done = len(clips) - len(missing)
    on_progress(done, len(clips))
    for _ in run_jobs(make_clip, missing, pool):
        done += 1
        on_progress(done, len(clips))
    make_broken_files(clips[0].path)
    labels = label_set_from_names(CLASSES)
    write_label_csv(out / "labels.csv", labels)
    return labels


def plan_demo_clips(out: Path, options: DemoDataOptions) -> Iterator[DemoClip]:
    """Every clip of the set, in a fixed order."""
    if options.seconds < 1:
        raise UserError(f"--seconds {options.seconds:g}: clips need at least 1 s.")
    number = 0
    for split, count in (("train", options.train_clips), ("test", options.test_clips)):
        for label in CLASSES:
            for position in range(count):
                number += 1
                other = number // _EVERY_NTH_IS_ANOTHER_CONTAINER % len(_OTHERS)
                is_other = number % _EVERY_NTH_IS_ANOTHER_CONTAINER == 0
                container = _OTHERS[other] if is_other else _COMMON
                name = f"{label}_{split}_{position:03d}.{container.suffix}"
                seed = options.seed * 1_000_003 + number
                path = out / split / label / name
                yield DemoClip(path, label, seed, container, options.seconds)


def make_clip(clip: DemoClip) -> None:
    """Render and encode one clip; it appears under its name only when whole."""
    rng = np.random.default_rng(clip.seed)
    rate = float(rng.choice([12.5, 15, 15000 / 1001, 20]))
    width, height = (256, 192) if rng.random() < 0.7 else (192, 256)
    shape, sound = clip.label.split("-")
    frames = render_frames(shape, round(clip.seconds * rate), rate, width, height, rng)
    audio = render_sound(sound, clip.seconds, rng)

    with tempfile.TemporaryDirectory(prefix="avprep-") as folder:
        sound_file, target = Path(folder, "sound.pcm"), Path(folder, clip.path.name)
        sound_file.write_bytes(audio.tobytes())
        picture = ffmpeg.input(
            "pipe:0", format="rawvideo", pix_fmt="rgb24", s=f"{width}x{height}", r=rate
        )
        channel = ffmpeg.input(str(sound_file), format="s16le", ar=_AUDIO_RATE, ac=1)
        output = ffmpeg.output(
            picture, channel, str(target), threads=1, **clip.container.video, **clip.container.audio
        )
        try:
            output.run(cmd=find_ffmpeg(), input=frames.tobytes(), quiet=True)
        except ffmpeg.Error as error:
            lines = error.stderr.decode(errors="replace").strip().splitlines()
            raise WorkFailed(f"{clip.path}: ffmpeg could not encode it: {lines[-1]}") from error
        storage.write_atomic(clip.path, target.read_bytes())


def make_broken_files(whole: Path) -> None:
    """Beside a whole file: a copy cut short, and a text file that calls itself a video."""
    cut_short, not_a_video = (whole.with_name(name) for name in BROKEN)
    data = whole.read_bytes()
    cut_short.write_bytes(data[: len(data) // 2])
    not_a_video.write_text("This file has the name of a video and is none.\n" * 40)


def render_frames(
    shape: str, count: int, rate: float, width: int, height: int, rng: np.random.Generator
) -> NDArray[np.uint8]:
    """A shape moving over a plain, noisy background: uint8 [count, height, width, 3]."""
    hue = rng.random()
    colour = _hsv(hue, rng.uniform(0.6, 1.0), rng.uniform(0.75, 1.0))
    background = _hsv(hue + rng.uniform(0.35, 0.65), rng.uniform(0.2, 0.8), rng.uniform(0.15, 0.5))
    radius = rng.uniform(0.24, 0.34) * min(width, height)
    centre = rng.uniform(0.4, 0.6, 2) * (width, height)
    velocity = rng.uniform(-0.06, 0.06, 2) * (width, height)  # pixels a second
    angle, spin = rng.uniform(-0.3, 0.3), rng.uniform(-0.3, 0.3)
    y, x = np.mgrid[0:height, 0:width].astype(np.float32)
    noise = rng.normal(0, 8, (height, width, 1)).astype(np.float32)
    frames = np.empty((count, height, width, 3), np.uint8)
    for number in range(count):
        time = number / rate
        mid_x, mid_y = centre + velocity * time
        turn = angle + spin * time
        cos, sin = np.float32(np.cos(turn)), np.float32(np.sin(turn))
        dx, dy = x - np.float32(mid_x), y - np.float32(mid_y)
        along, across = dx * cos + dy * sin, dy * cos - dx * sin
        mask = _MASKS[shape](along, across, radius)[..., None]
        # The noise is one fixed texture that drifts: fresh noise would fill the file with bits.
        texture = np.roll(noise, number, axis=1)
        frames[number] = np.clip(np.where(mask, colour, background) + texture, 0, 255)
    return frames


_MASKS: dict[str, Callable[[NDArray, NDArray, float], NDArray[np.bool_]]] = {
    "circle": lambda along, across, radius: along**2 + across**2 < radius**2,
    "checks": lambda along, across, radius: (
        np.sin(along * (6.0 / radius)) * np.sin(across * (6.0 / radius)) > 0
    ),
    "stripes": lambda along, across, radius: np.sin(along * (9.0 / radius)) > 0,
    "triangle": lambda along, across, radius: (
        (across < radius * 0.8) & (across > 2.0 * abs(along) - radius * 1.1)
    ),
}


def _hsv(hue: float, saturation: float, value: float) -> NDArray[np.float32]:
    offsets = np.array([5.0, 3.0, 1.0])
    k = (offsets + hue % 1.0 * 6.0) % 6.0
    rgb = value - value * saturation * np.clip(np.minimum(k, 4.0 - k), 0.0, 1.0)
    return (rgb * 255).astype(np.float32)


def render_sound(sound: str, seconds: float, rng: np.random.Generator) -> NDArray[np.int16]:
    """A sound over faint noise: int16 [samples], 44.1 kHz mono."""
    time = np.arange(int(seconds * _AUDIO_RATE)) / _AUDIO_RATE
    low, high = rng.uniform(250, 600), rng.uniform(2000, 4500)
    period = rng.uniform(0.4, 0.8)
    phase = (time / period + rng.random()) % 1.0
    if sound == "tone":
        pitch = rng.uniform(300, 2500)
        signal = np.sin(2 * np.pi * pitch * time) + 0.3 * np.sin(4 * np.pi * pitch * time)
    elif sound == "bursts":
        signal = rng.normal(0, 0.6, len(time)) * (phase < rng.uniform(0.25, 0.5))
    else:
        sweep = phase if sound == "rising" else 1.0 - phase
        frequency = low * (high / low) ** sweep
        signal = np.sin(2 * np.pi * np.cumsum(frequency) / _AUDIO_RATE)
    signal = signal * rng.uniform(0.2, 0.7) + rng.normal(0, rng.uniform(0.002, 0.02), len(time))
    return (np.clip(signal, -1, 1) * 32767).astype(np.int16)
