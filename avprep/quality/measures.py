"""Measures of a clip's sound and pictures that tell faulty clips from good ones.

Each is a number that always exists: a clip without sound measures as digital silence does, one
without pictures as a black picture does. docs/quality.md describes them for people, and
`avprep.quality.faults` says which values mean a fault.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import reduce

import cv2
import numpy as np
from numpy.typing import NDArray

from avprep.quality.hashes import hash_picture, hash_sound, to_text

# What each measure is, with its unit. Levels are relative to full scale (dBFS).
SOUND_MEASURES = {
    "rms_db": "loudness: root mean square of all samples, dBFS",
    "peak_db": "largest sample, dBFS",
    "clipped": "share of samples within 2 % of full scale",
    "silent": "share of 10 ms windows below -60 dBFS, their mean taken away",
    "flatness": "spectral flatness from 100 Hz to 7 kHz: 1 is white noise, near 0 a tone",
}
PICTURE_MEASURES = {
    "stillness": "share of the picture that stays the same from one frame to the next",
    "blank": "share of frames of a single colour, such as black",
    "blur": "share of the edges' contrast that blurring the frames once more keeps",
    "letterbox": "share of the picture under black bars on two opposite sides",
}
MEASURES = {**SOUND_MEASURES, **PICTURE_MEASURES}
PICTURE_HASH, SOUND_HASH = "picture_hash", "sound_hash"
COLUMNS = (*MEASURES, PICTURE_HASH, SOUND_HASH)  # what `measure_clip` says of a clip

QUIETEST_DB = -100.0  # below the smallest step of 16 bits: stands for silence

_THUMBNAIL = 28  # pixels a side: means over 8x8 pixels of a frame of 224
_FULL_SCALE = 32768.0
_NEAR_FULL_SCALE = 0.98 * _FULL_SCALE  # a lossy codec lets flat tops waver by a few percent
_SILENCE = _FULL_SCALE * 10 ** (-60 / 20)  # room noise that nobody hears, and codecs' residue
_WINDOWS_PER_SECOND = 100
_FFT = 512
_BAND = (100.0, 7000.0)  # Hz; hum lies below, resampling and codecs cut off above
_SAME = 4  # of 255: what codecs change in a still picture's thumbnail
_ONE_COLOUR = 4.0  # of 255, standard deviation in a thumbnail
_GRAIN = np.array([2.0])  # of 255: differences of neighbours that are noise, not edges
_REBLUR = (15, 15)
_DARK = 16.0  # of 255: mean of a row or column that belongs to a black bar
_LOOKED_AT = 4  # frames at most, whose edges and bars are measured: their neighbours are similar


def measure_clip(
    pcm: NDArray[np.int16], frames: NDArray[np.uint8], sample_rate: int
) -> dict[str, float | str]:
    """All measures of a clip, and its `picture_hash` and `sound_hash` as text.

    Args:
        pcm: int16 [samples], mono; may be empty.
        frames: uint8 [frames, height, width, 3]; may be empty.
        sample_rate: Hz.
    """
    return {
        **measure_sound(pcm, sample_rate),
        **measure_pictures(frames),
        PICTURE_HASH: to_text(hash_picture(frames)),
        SOUND_HASH: to_text(hash_sound(pcm)),
    }


def measure_sound(pcm: NDArray[np.int16], sample_rate: int = 16000) -> dict[str, float]:
    """The measures of `SOUND_MEASURES`.

    Args:
        pcm: int16 [samples], mono; may be empty.
        sample_rate: Hz.
    """
    x = pcm.astype(np.float32)
    level = np.abs(x)
    windows = _in_windows(x, sample_rate // _WINDOWS_PER_SECOND)
    is_silent = windows.std(axis=1) < _SILENCE
    return {
        "rms_db": _decibels(float(np.sqrt(np.dot(x, x) / len(x)))) if len(x) else QUIETEST_DB,
        "peak_db": _decibels(float(level.max(initial=0.0))),
        "clipped": _share(level >= _NEAR_FULL_SCALE),
        "silent": _share(is_silent) if len(x) else 1.0,
        "flatness": round(_flatness(x, sample_rate), 4),
    }


def measure_pictures(frames: NDArray[np.uint8]) -> dict[str, float]:
    """The measures of `PICTURE_MEASURES`.

    Args:
        frames: uint8 [frames, height, width, 3], in time order; may be empty.
    """
    small = _thumbnails(frames)
    differences = np.abs(np.diff(small.astype(np.int16), axis=0))
    changes = reduce(np.maximum, np.moveaxis(differences, 3, 0))
    spread = np.array([cv2.meanStdDev(thumbnail)[1].max() for thumbnail in small])
    is_there = len(small) > 0
    looked_at = frames[:: max(1, -(-len(frames) // _LOOKED_AT))]
    grey = [np.asarray(cv2.cvtColor(one, cv2.COLOR_RGB2GRAY), np.uint8) for one in looked_at]
    return {
        # Of a single frame nobody can say whether it moves.
        "stillness": _share(changes <= _SAME) if is_there else 1.0,
        "blank": _share(spread < _ONE_COLOUR) if is_there else 1.0,
        "blur": round(_blur(grey), 4),
        "letterbox": round(_letterbox(grey), 4),
    }


def _thumbnails(frames: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """uint8 [frames, 28, 28, 3]: means over areas."""
    small = np.empty((len(frames), _THUMBNAIL, _THUMBNAIL, 3), np.uint8)
    for frame, thumbnail in zip(frames, small, strict=True):
        cv2.resize(frame, (_THUMBNAIL, _THUMBNAIL), thumbnail, interpolation=cv2.INTER_AREA)
    return small


def _decibels(level: float) -> float:
    smallest = _FULL_SCALE * 10 ** (QUIETEST_DB / 20)
    return round(20 * float(np.log10(max(level, smallest) / _FULL_SCALE)), 2)


def _share(is_so: NDArray[np.bool_]) -> float:
    return round(int(np.count_nonzero(is_so)) / is_so.size, 4) if is_so.size else 0.0


def _in_windows(x: NDArray[np.float32], length: int) -> NDArray[np.float32]:
    """[windows, length]; what is left over at the end belongs to none, unless it is all."""
    if len(x) < length:
        return np.pad(x, (0, length - len(x)))[None]
    return x[: len(x) // length * length].reshape(-1, length)


def _flatness(x: NDArray[np.float32], sample_rate: int) -> float:
    """Geometric over arithmetic mean of the mean power spectrum of what is not silent."""
    windows = _in_windows(x, _FFT)
    windows = windows[windows.std(axis=1) >= _SILENCE]
    if not len(windows):
        return 0.0
    shape = np.hanning(_FFT).astype(np.float32)
    power = (np.abs(np.fft.rfft(windows * shape)) ** 2).mean(axis=0)
    low, high = (round(frequency * _FFT / sample_rate) for frequency in _BAND)
    power = power[low : high + 1] + 1e-9
    return float(np.exp(np.log(power).mean()) / power.mean())


def _blur(frames: Sequence[NDArray[np.uint8]]) -> float:
    """How much of the differences of neighbours is left when the frames are blurred once more.

    A sharp edge loses most of it, one that was blurred before hardly any (Crété et al., 2007).
    """
    edges = lost = 0.0
    for grey in frames:
        again = np.asarray(cv2.blur(grey, _REBLUR), np.uint8)
        for axis in range(2):
            before = cv2.subtract(_steps(grey, axis), _GRAIN)  # never below 0
            edges += cv2.sumElems(before)[0]
            lost += cv2.sumElems(cv2.subtract(before, _steps(again, axis)))[0]
    return 1 - lost / edges if edges else 0.0


def _steps(grey: NDArray[np.uint8], axis: int) -> NDArray[np.uint8]:
    first, second = (grey[1:], grey[:-1]) if axis == 0 else (grey[:, 1:], grey[:, :-1])
    return np.asarray(cv2.absdiff(first, second), np.uint8)


def _letterbox(frames: Sequence[NDArray[np.uint8]]) -> float:
    """The share under bars that are black in all frames, above and below or left and right."""
    if not frames:
        return 0.0
    brightest = np.maximum.reduce(frames)
    return max(_bars(brightest.mean(axis=1)), _bars(brightest.mean(axis=0)))


def _bars(levels: NDArray[np.floating]) -> float:
    """Twice the narrower of the two bars, as a share; none if all is dark."""
    bright = np.flatnonzero(levels > _DARK)
    if not len(bright):
        return 0.0
    return 2 * min(int(bright[0]), len(levels) - 1 - int(bright[-1])) / len(levels)
