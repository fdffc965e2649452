"""A decoded frame as it is shown: which way up, in which shape, in which size."""

from __future__ import annotations

import math
import struct
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction

import av
import numpy as np
from av.video.frame import VideoFrame
from av.video.stream import VideoStream
from numpy.typing import NDArray

from avprep.images import resize_and_crop
from avprep.options import DecodeOptions

_LARGEST_ERROR = 1.0  # degrees that a quarter turn may be off


def picture_of(frame: VideoFrame, stream: VideoStream, options: DecodeOptions) -> NDArray[np.uint8]:
    """uint8 [size, size, 3], RGB."""
    matrix = frame.side_data.get("DISPLAYMATRIX")
    orientation = Orientation()
    if matrix is not None:
        orientation = orientation_of(struct.unpack("=9i", bytes(matrix)))  # type: ignore[call-overload]
    if orientation.angle:
        frame = _rotated(frame, orientation.angle)
    # By default PyAV starts a thread per core for every frame, which costs more than it saves.
    rgb = frame.to_ndarray(format="rgb24", threads=1)
    square = resize_and_crop(rgb, options.frame_size, _pixel_aspect(stream, options))
    # Turning the square after the crop is the same as turning the picture before it.
    return orientation.turned(square)


def _pixel_aspect(stream: VideoStream, options: DecodeOptions) -> Fraction | float:
    """Shown width of a pixel over its shown height."""
    if options.pixels == "stored":
        return 1
    aspect = stream.sample_aspect_ratio or stream.codec_context.sample_aspect_ratio
    return aspect if aspect and aspect > 0 else 1


def _rotated(frame: VideoFrame, degrees: float) -> VideoFrame:
    """A frame rotated clockwise within its own size; corners are black, as in ffmpeg."""
    graph = av.filter.Graph()
    source = graph.add_buffer(
        width=frame.width, height=frame.height, format=frame.format, time_base=Fraction(1, 1000)
    )
    graph.link_nodes(source, graph.add("rotate", f"{degrees}*PI/180"), graph.add("buffersink"))
    graph.configure()
    graph.vpush(frame)
    return graph.vpull()


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
