"""Perceptual hashes: clips that look or sound the same have nearly the same bits.

A hash is a sequence of sub-hashes, one per picture or per sixteenth of a second of sound, so that
two clips can be compared at any shift against each other (`avprep.quality.near`). A set bit says
what is there, so a sub-hash of zeros says that there is nothing to recognise: a flat picture,
silence, a sound that never changes.

Whatever is compared is rounded to whole numbers first, so that two machines make the same bits.
"""

from __future__ import annotations

import base64

import cv2
import numpy as np
from numpy.typing import NDArray

PICTURES = 10  # sub-hashes of a clip at most
STEPS = 128  # of sound, likewise: the first 8 s
STEPS_PER_SECOND = 16

_GRID = 32  # pictures are shrunk to this many points in each direction
_DARK = 40  # of 255; black bars of lossy video are brighter than 0
_EVEN = 0.02  # of a side: bars of a letterbox are equally wide
_BARS_AT_MOST = 0.35  # of a side, each
_FLATTEST = 2  # of 255, standard deviation of the coarse picture

_RATE = 16000
_WINDOW, _HOP = 2000, _RATE // STEPS_PER_SECOND  # samples
_POOL = np.array(
    [1, 2, 3, 2, 1]
)  # steps: a third of a second, so that 1/32 s of shift costs little
_LAG = 4  # steps: the distance at which two windows have little in common
_BAND_EDGES = np.geomspace(300, 4000, 10)  # Hz: what low bit rates and telephones keep
_FLOOR = 1e-2  # of the mean energy: what lies 20 dB below may be noise of the codec
_LEVELS = 64  # per factor of two of energy
_CHANGE = 1  # level, 0.05 dB: less is no change


def hash_picture(frames: NDArray[np.uint8]) -> bytes:
    """The hash of a clip's pictures: 8 bytes for each of up to ten.

    The signs of the low frequencies of each picture's brightness. Black bars are cut off first, and
    then the middle square is taken: a letterboxed copy has the same square.

    Args:
        frames: uint8 [n, height, width, 3], evenly spaced; of more than ten, ten are used.
    """
    count = len(frames)
    if count > PICTURES:
        frames = frames[np.arange(PICTURES) * count // PICTURES]
    if not count:
        return b""
    grey = _shrunk(_without_bars(frames))
    spectrum = (_COSINES @ grey @ _COSINES.T)[:, _ROWS, _COLUMNS] // _SCALE**2
    energy = (spectrum**2).sum(axis=1, keepdims=True)
    # A coefficient that is nearly zero has no reliable sign: it counts as zero.
    bits = (spectrum > 0) & (spectrum**2 * (64 * 256) > energy)
    bits &= energy >= (_FLATTEST * _UNIT) ** 2
    return np.packbits(bits, axis=1).tobytes()


def hash_sound(pcm: NDArray[np.int16]) -> bytes:
    """The hash of a clip's sound: a byte per sixteenth of a second, of the first eight seconds.

    Whether the step from each frequency band to the next rises or falls with time: neither gain nor
    an equaliser changes that (Haitsma and Kalker, ISMIR 2002).

    Args:
        pcm: int16 [samples], 16 kHz. A clip of less than 0.625 s has no sub-hash.
    """
    pcm = pcm[: (STEPS + _LAG + len(_POOL) - 2) * _HOP + _WINDOW]
    if len(pcm) < _WINDOW + _HOP * (len(_POOL) - 1 + _LAG):
        return b""
    windows = np.lib.stride_tricks.sliding_window_view(pcm, _WINDOW)[::_HOP]
    spectrum = np.fft.rfft(windows * _HANN)
    power = np.add.reduceat(spectrum.real**2 + spectrum.imag**2, _FIRST_BINS, axis=1)[:, :-1]
    pooled = np.lib.stride_tricks.sliding_window_view(power, len(_POOL), axis=0) @ _POOL
    floor = 1 + _FLOOR * pooled.mean()
    levels = np.rint(np.log2(pooled + floor) * _LEVELS).astype(np.int64)  # [steps, bands]
    slopes = levels[:, 1:] - levels[:, :-1]
    return np.packbits(slopes[_LAG:] - slopes[:-_LAG] > _CHANGE, axis=1).tobytes()


def to_text(value: bytes) -> str:
    """A hash as JSON holds it: base64."""
    return base64.b64encode(value).decode("ascii")


def from_text(text: str) -> bytes:
    """What `to_text` wrote.

    Raises:
        ValueError: it is not base64.
    """
    return base64.b64decode(text, validate=True)


def _without_bars(frames: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """The middle square of what is not a black bar at all times."""
    green = frames[..., 1].max(axis=0)  # [height, width]
    top, bottom = _bars(green.max(axis=1))
    left, right = _bars(green.max(axis=0))
    height, width = bottom - top, right - left
    side = min(height, width)
    top, left = top + (height - side) // 2, left + (width - side) // 2
    return frames[:, top : top + side, left : left + side]


def _bars(brightest: NDArray[np.uint8]) -> tuple[int, int]:
    """Where a picture begins and ends along one side: after one bar, before an equal one."""
    size = len(brightest)
    bright = np.flatnonzero(brightest > _DARK)
    if len(bright):
        before, after = int(bright[0]), int(size - 1 - bright[-1])
        if max(before, after) <= _BARS_AT_MOST * size and abs(before - after) <= _EVEN * size:
            return before, size - after
    return 0, size


def _shrunk(frames: NDArray[np.uint8]) -> NDArray[np.int64]:
    """The brightness of square pictures: int64 [n, 32, 32], in 1/_FINE of 255."""
    side = frames.shape[1]
    edges = np.arange(_GRID + 1) * side // _GRID
    first = np.minimum(edges[:-1], side - 1)
    sizes = np.maximum(np.diff(edges), 1)
    totals = np.zeros((len(frames), _GRID, _GRID), np.int64)
    for frame, total in zip(frames, totals, strict=True):
        # What lies above and to the left of every point: sums over areas at a tenth of numpy's
        # cost. One frame at a time needs little memory.
        sums = cv2.integral(frame)
        sums = sums[first + sizes] - sums[first]
        total[:] = (sums[:, first + sizes] - sums[:, first]) @ _GREY
    return totals * _FINE // (sizes[:, None] * sizes * _GREY.sum())


_GREY = np.array([2, 5, 1])  # red, green, blue
_FINE = 16
_SCALE = 64  # of the whole numbers that stand for cosines
_COSINES = np.rint(
    _SCALE * np.cos(np.pi * np.outer(np.arange(11), 2 * np.arange(_GRID) + 1) / (2 * _GRID))
).astype(np.int64)
# The 64 lowest of the two-dimensional frequencies, without the mean.
_ROWS, _COLUMNS = np.array(
    sorted(
        ((u, v) for u in range(11) for v in range(11) if u + v),
        key=lambda place: (sum(place), place),
    )[:64]
).T
# The root of the sum of the squared coefficients of a picture whose points vary by 1 of 255.
_UNIT = _FINE * _GRID**2 // 2
_HANN = np.hanning(_WINDOW)
_FIRST_BINS = np.searchsorted(np.fft.rfftfreq(_WINDOW, 1 / _RATE), _BAND_EDGES)
