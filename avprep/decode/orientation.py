"""Which way up a picture is shown: display matrices as the ffmpeg program applies them."""

from __future__ import annotations

import math
import struct
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Pixels = NDArray[np.uint8]  # [height, width, 3]

_LARGEST_ERROR = 1.0  # degrees that a quarter turn may be off


@dataclass(frozen=True)
class Orientation:
    """How stored pixels become the shown picture.

    Attributes:
        angle: degrees clockwise to rotate the stored picture within its own frame, for angles
            that are no quarter turns; else 0.
        moves: quarter turns and mirrors of the (square) picture, one after another.
    """

    angle: float = 0.0
    moves: tuple[Callable[[Pixels], Pixels], ...] = ()

    def apply_moves(self, square: Pixels) -> Pixels:
        """uint8 [size, size, 3], turned and mirrored."""
        for move in self.moves:
            square = move(square)
        return np.ascontiguousarray(square)


def read_matrix(side_data: bytes) -> tuple[int, ...]:
    """The nine numbers of a display matrix as libav hands it out."""
    return struct.unpack("=9i", side_data)


def orientation_of(matrix: Sequence[int]) -> Orientation:
    """What the ffmpeg program does for a display matrix of nine fixed-point numbers.

    It looks at the angle alone, then at single signs for mirrors; a matrix without an angle
    (zeros) changes nothing, and a sheared one is rotated.
    """
    degrees = _angle(matrix)
    if degrees is None:
        return Orientation()
    if abs(degrees - 90) < _LARGEST_ERROR:
        return Orientation(moves=(_transpose if matrix[3] > 0 else _clockwise,))
    if abs(degrees - 180) < _LARGEST_ERROR:
        mirrors = ((_mirror, matrix[0]), (_flip, matrix[4]))
        return Orientation(moves=tuple(move for move, sign in mirrors if sign < 0))
    if abs(degrees - 270) < _LARGEST_ERROR:
        return Orientation(moves=(_anti_transpose if matrix[3] < 0 else _anticlockwise,))
    if abs(degrees) < _LARGEST_ERROR:
        return Orientation(moves=(_flip,) if matrix[4] < 0 else ())
    return Orientation(angle=degrees if abs(degrees) > _LARGEST_ERROR else 0.0)


def _angle(matrix: Sequence[int]) -> float | None:
    """Whole degrees clockwise, from -0.9 to 359.1; None where the matrix has no angle."""
    across, along = math.hypot(matrix[0], matrix[3]), math.hypot(matrix[1], matrix[4])
    if not across or not along:
        return None
    exact = math.degrees(math.atan2(matrix[1] / along, matrix[0] / across))
    whole = math.copysign(math.floor(abs(exact) + 0.5), exact)
    return whole - 360 * math.floor(whole / 360 + 0.9 / 360)


def _transpose(square: Pixels) -> Pixels:
    return square.swapaxes(0, 1)


def _anti_transpose(square: Pixels) -> Pixels:
    return square[::-1, ::-1].swapaxes(0, 1)


def _clockwise(square: Pixels) -> Pixels:
    return np.rot90(square, -1)


def _anticlockwise(square: Pixels) -> Pixels:
    return np.rot90(square)


def _mirror(square: Pixels) -> Pixels:
    return square[:, ::-1]


def _flip(square: Pixels) -> Pixels:
    return square[::-1]
