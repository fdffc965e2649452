"""Which way up a picture is shown: display matrices as the ffmpeg program applies them."""

from __future__ import annotations

import math
import struct
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

_LARGEST_ERROR = 1.0  # degrees that a quarter turn may be off


@dataclass(frozen=True)
class Orientation:
    """How stored pixels become the shown picture.

    Attributes:
        is_mirrored: whether left and right are swapped first.
        quarters: anticlockwise quarter turns after that.
        angle: degrees clockwise to rotate the stored picture within its own frame, for angles
            that are not quarter turns; else 0.
    """

    is_mirrored: bool = False
    quarters: int = 0
    angle: float = 0.0

    def turned(self, square: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """uint8 [size, size, 3], mirrored and turned by quarters."""
        mirrored = square[:, ::-1] if self.is_mirrored else square
        return np.ascontiguousarray(np.rot90(mirrored, self.quarters))


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
        return Orientation(True, 1) if matrix[3] > 0 else Orientation(False, 3)
    if abs(degrees - 180) < _LARGEST_ERROR:
        is_flipped = matrix[4] < 0
        return Orientation((matrix[0] < 0) != is_flipped, 2 if is_flipped else 0)
    if abs(degrees - 270) < _LARGEST_ERROR:
        return Orientation(True, 3) if matrix[3] < 0 else Orientation(False, 1)
    if abs(degrees) < _LARGEST_ERROR:
        return Orientation(True, 2) if matrix[4] < 0 else Orientation()
    return Orientation(angle=degrees if abs(degrees) > _LARGEST_ERROR else 0.0)


def _angle(matrix: Sequence[int]) -> float | None:
    """Whole degrees clockwise, from -0.9 to 359.1; None where the matrix has no angle."""
    across, along = math.hypot(matrix[0], matrix[3]), math.hypot(matrix[1], matrix[4])
    if not across or not along:
        return None
    exact = math.degrees(math.atan2(matrix[1] / along, matrix[0] / across))
    whole = math.copysign(math.floor(abs(exact) + 0.5), exact)
    return whole - 360 * math.floor(whole / 360 + 0.9 / 360)
