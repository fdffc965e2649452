"""A small labelled video set, made on the spot with ffmpeg: real files, real codecs.

Eight classes. Each shows one of four shapes and plays one of four sounds. Every shape and every
sound occurs in two classes, so either alone gives at best one right guess in two, and both together
give the class.

Within a class every clip has its own traits, which can be both seen and heard (`Traits`), so that
a sound can find its own picture among many of its class. The hue of the background, angles and
loudness say nothing about the other modality.
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
from avprep.errors import WorkFailed
from avprep.ffmpeg_binary import find_ffmpeg
from avprep.jobs import run_jobs
from avprep.options import DemoDataOptions, PoolOptions
from avprep.progress import OnProgress, Progress, ignore

SHAPES = ("circle", "rings", "stripes", "cross")
SOUNDS = ("tone", "rising", "bursts", "falling")
# Class k shows shape k % 4; the second four classes play the next shape's sound.
CLASSES = tuple(
    f"{SHAPES[k % 4]}-{SOUNDS[(k + k // 4) % 4]}" for k in range(len(SHAPES) + len(SOUNDS))
)
BROKEN = ("broken_cut_short.mp4", "broken_not_a_video.mp4")

_AUDIO_RATE = 44100


_Codecs = dict[str, str | int]
_H264: _Codecs = {"vcodec": "libx264", "preset": "ultrafast", "crf": 24, "pix_fmt": "yuv420p"}
_VP9: _Codecs = {
    "vcodec": "libvpx-vp9",
    "deadline": "realtime",
    "cpu-used": 8,
    "video_bitrate": "600k",
}
# As ffmpeg names them, by the suffix of the file.
_CODECS: dict[str, _Codecs] = {
    "mp4": {**_H264, "acodec": "aac", "audio_bitrate": "96k"},
    "mkv": {**_H264, "acodec": "flac"},
    "webm": {**_VP9, "acodec": "libopus", "audio_bitrate": "64k"},
    "avi": {"vcodec": "mpeg4", "qscale:v": 5, "acodec": "libmp3lame"},
}
_USUAL, *_OTHERS = _CODECS
_EVERY_NTH_IS_ANOTHER = 9


@dataclass(frozen=True)
class DemoClip:
    """One video to make; everything about it follows from `seed`."""

    path: Path  # …/CLASS/NAME.SUFFIX
    seed: int
    seconds: float


@dataclass(frozen=True)
class Traits:
    """What a clip shows and plays besides its class, each from 0 to 1."""

    size: float  # of the shape; a large one lies low and sounds low
    haze: float  # how light the background is; a light one hisses


@dataclass(frozen=True)
class DemoData:
    """The videos that exist now."""

    clips: int
    classes: int
    broken: tuple[str, ...]  # names of files of the training set that are broken on purpose


def make_demo_data(
    out: str | Path,
    options: DemoDataOptions = DemoDataOptions(),
    pool: PoolOptions = PoolOptions(),
    on_progress: OnProgress = ignore,
) -> DemoData:
    """Make OUT/train/CLASS/* and OUT/test/CLASS/*; files already there are kept.

    Args:
        out: the folder.
        options: how many clips of each class, and how long they are.
        pool: who does the work.
        on_progress: called with progress: clips done.

    Raises:
        UserError: the folder cannot be made.
        WorkFailed: ffmpeg could not encode a clip.
    """
    clips = list(plan_demo_clips(Path(out), options))
    for folder in {clip.path.parent for clip in clips}:
        storage.make_folder(folder)
        storage.remove_abandoned(folder)  # by a run that was killed
    missing = [clip for clip in clips if not clip.path.exists()]
    done = len(clips) - len(missing)
    on_progress(Progress("clip", done, len(clips)))
    for _ in run_jobs(make_clip, missing, pool):
        done += 1
        on_progress(Progress("clip", done, len(clips)))
    make_broken_files(clips[0].path)
    return DemoData(len(clips), len(CLASSES), BROKEN)


def plan_demo_clips(out: Path, options: DemoDataOptions) -> Iterator[DemoClip]:
    """Every clip of the set, in a fixed order."""
    number = 0
    for split, count in (("train", options.train_clips), ("test", options.test_clips)):
        for label in CLASSES:
            for position in range(count):
                number += 1
                others, is_usual = divmod(number, _EVERY_NTH_IS_ANOTHER)
                suffix = _USUAL if is_usual else _OTHERS[others % len(_OTHERS)]
                path = out / split / label / f"{label}_{split}_{position:03d}.{suffix}"
                yield DemoClip(path, options.seed * 1_000_003 + number, options.seconds)


def make_clip(clip: DemoClip) -> None:
    """Render and encode one clip; it appears under its name only when whole."""
    rng = np.random.default_rng(clip.seed)
    traits = draw_traits(rng)
    rate = float(rng.choice([10, 12.5, 15, 15000 / 1001]))
    width, height = (208, 160) if rng.random() < 0.7 else (160, 208)
    shape, sound = clip.path.parent.name.split("-")
    frames = render_frames(shape, traits, round(clip.seconds * rate), rate, width, height, rng)
    audio = render_sound(sound, traits, clip.seconds, rng)

    with tempfile.TemporaryDirectory(prefix="avprep-") as folder:
        sound_file, target = Path(folder, "sound.pcm"), Path(folder, clip.path.name)
        sound_file.write_bytes(audio.tobytes())
        picture = ffmpeg.input(
            "pipe:0", format="rawvideo", pix_fmt="rgb24", s=f"{width}x{height}", r=rate
        )
        channel = ffmpeg.input(str(sound_file), format="s16le", ar=_AUDIO_RATE, ac=1)
        codecs = _CODECS[clip.path.suffix[1:]]
        output = ffmpeg.output(picture, channel, str(target), threads=1, **codecs)
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


def draw_traits(rng: np.random.Generator) -> Traits:
    """The traits of a clip, evenly spread."""
    return Traits(*rng.random(2))


def render_frames(
    shape: str,
    traits: Traits,
    count: int,
    rate: float,
    width: int,
    height: int,
    rng: np.random.Generator,
) -> NDArray[np.uint8]:
    """A shape that swings over a plain ground: uint8 [count, height, width, 3]."""
    side = min(width, height)  # what training sees: the central square
    hue = _HUES[shape] + rng.uniform(-0.05, 0.05)
    colour = _hsv(hue, 0.95, rng.uniform(0.75, 1.0))
    ground = _hsv(rng.random(), 0.5, 0.08 + 0.47 * traits.haze)
    radius = side * (0.2 + 0.16 * traits.size)
    room = side / 2 - radius
    mid_x, mid_y = rng.uniform(-room, room), room * (2 * traits.size - 1)
    angle, spin, phase = rng.uniform((-0.25, -0.3, 0), (0.25, 0.3, 2 * np.pi))
    y, x = np.mgrid[0:height, 0:width].astype(np.float32)
    x, y = x - np.float32(width / 2), y - np.float32(height / 2)
    noise = rng.normal(0, 2, (height, width, 1)).astype(np.float32)
    frames = np.empty((count, height, width, 3), np.uint8)
    for number in range(count):
        time = number / rate
        swing = 0.06 * side * np.sin(2 * np.pi * time + phase)
        turn = angle + spin * time
        cos, sin = np.float32(np.cos(turn) / radius), np.float32(np.sin(turn) / radius)
        dx, dy = x - np.float32(mid_x + swing), y - np.float32(mid_y)
        mask = _MASKS[shape](dx * cos + dy * sin, dy * cos - dx * sin)
        # The same noise in every frame: changing noise would make the files large.
        frames[number] = np.clip(np.where(mask[..., None], colour, ground) + noise, 0, 255)
    return frames


_HUES = {"circle": 0.0, "rings": 0.14, "stripes": 0.36, "cross": 0.62}
# Of coordinates along and across the shape, in units of its radius.
_MASKS: dict[str, Callable[[NDArray, NDArray], NDArray[np.bool_]]] = {
    "circle": lambda along, across: along**2 + across**2 < 1,
    "rings": lambda along, across: (
        (np.hypot(along, across) * 2.5 % 1 > 0.4) & (along**2 + across**2 < 1)
    ),
    "stripes": lambda along, across: (
        (across * 2 % 1 > 0.4) & (np.maximum(abs(along), abs(across)) < 0.9)
    ),
    "cross": lambda along, across: (
        (np.minimum(abs(along), abs(across)) < 0.35) & (np.maximum(abs(along), abs(across)) < 1)
    ),
}


def _hsv(hue: float, saturation: float, value: float) -> NDArray[np.float32]:
    offsets = np.array([5.0, 3.0, 1.0])
    k = (offsets + hue % 1.0 * 6.0) % 6.0
    rgb = value - value * saturation * np.clip(np.minimum(k, 4.0 - k), 0.0, 1.0)
    return (rgb * 255).astype(np.float32)


# Beats per second, the share of a beat that sounds, how loud each overtone is beside the one below,
# and how many octaves the pitch rises within a beat.
_SOUNDS = {
    "tone": (1.5, 0.9, 0.15, 0.0),
    "rising": (3.0, 0.8, 0.5, 1.6),
    "bursts": (6.0, 0.5, 0.5, 0.0),
    "falling": (3.0, 0.8, 0.9, -1.6),
}


def render_sound(
    sound: str, traits: Traits, seconds: float, rng: np.random.Generator
) -> NDArray[np.int16]:
    """A sound at every beat, over a faint hiss: int16 [samples], 44.1 kHz mono."""
    time = np.arange(int(seconds * _AUDIO_RATE)) / _AUDIO_RATE
    tempo, share, richness, octaves = _SOUNDS[sound]
    beat = (time * tempo * rng.uniform(0.8, 1.2) + rng.random()) % 1.0  # from 0 to 1 within each
    pitch = 1200.0 * (200.0 / 1200.0) ** traits.size
    loudness = richness ** np.arange(6)  # of the pitch and its overtones
    if sound == "bursts":
        signal = _noise_around(pitch, loudness, len(time), rng)
    else:
        phase = 2 * np.pi * np.cumsum(pitch * 2.0 ** (octaves * (beat - 0.5))) / _AUDIO_RATE
        signal = np.imag(np.polyval([*loudness[::-1], 0.0], np.exp(1j * phase)))
    signal /= np.sqrt(np.mean(signal**2))
    envelope = np.minimum(beat / 0.06, 1.0) * np.clip((share - beat) / 0.1, 0.0, 1.0)
    signal *= envelope * rng.uniform(0.1, 0.2)
    signal += rng.normal(0, 0.0003 * 10.0 ** (1.3 * traits.haze), len(time))
    return (np.clip(signal, -1, 1) * 32767).astype(np.int16)


def _noise_around(
    pitch: float, loudness: NDArray[np.floating], count: int, rng: np.random.Generator
) -> NDArray[np.float64]:
    """Noise in bands around a pitch and its overtones: float64 [count]."""
    spectrum = np.fft.rfft(rng.normal(0, 1, count))
    octaves = np.log2(np.fft.rfftfreq(count, 1 / _AUDIO_RATE).clip(1) / pitch)
    bands = [
        gain * np.exp(-(((octaves - np.log2(number)) / 0.4) ** 2))
        for number, gain in enumerate(loudness, 1)
    ]
    return np.fft.irfft(spectrum * np.sum(bands, axis=0), count)
