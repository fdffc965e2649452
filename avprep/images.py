"""Frames as pictures: resize, crop, JPEG."""

from __future__ import annotations

import io
import struct
from fractions import Fraction
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

JPEG_END = b"\xff\xd9"  # the last bytes of a whole JPEG image


def resize_and_crop(
    rgb: NDArray[Any], size: int, pixel_aspect: Fraction | float
) -> NDArray[np.uint8]:
    """Scale the short side to `size` (bilinear, antialiased) and cut the centre out.

    Args:
        rgb: uint8 [height, width, 3].
        size: of the square result, pixels.
        pixel_aspect: shown width of a pixel over its shown height.

    Returns:
        uint8 [size, size, 3].
    """
    image = Image.fromarray(rgb)
    # Only the part that survives the crop is resampled: the same pixels, less work.
    box = crop_box(image.width, image.height, size, float(pixel_aspect))
    return np.asarray(image.resize((size, size), Image.Resampling.BILINEAR, box))


def crop_box(
    width: int, height: int, size: int, pixel_aspect: float
) -> tuple[float, float, float, float]:
    """The source rectangle that becomes the centre crop: (left, top, right, bottom)."""
    shown_width = width * pixel_aspect
    if shown_width >= height:
        scaled_width, scaled_height = max(size, int(size * shown_width / height)), size
    else:
        scaled_width, scaled_height = size, max(size, int(size * height / shown_width))
    left, top = round((scaled_width - size) / 2), round((scaled_height - size) / 2)
    x, y = width / scaled_width, height / scaled_height
    return left * x, top * y, min((left + size) * x, width), min((top + size) * y, height)


def encode_jpeg(rgb: NDArray[np.uint8], quality: int) -> bytes:
    """JPEG bytes of uint8 [height, width, 3]."""
    buffer = io.BytesIO()
    Image.fromarray(rgb).save(buffer, "JPEG", quality=quality)
    return buffer.getvalue()


def decode_jpeg(data: bytes) -> NDArray[np.uint8]:
    """uint8 [height, width, 3] of JPEG bytes.

    Raises:
        OSError: not an image, or damaged.
    """
    try:
        image = Image.open(io.BytesIO(data), formats=["JPEG"])
    except UnidentifiedImageError as error:  # its own text says where in memory the bytes are
        raise OSError("is not a JPEG image") from error
    return np.asarray(image if image.mode == "RGB" else image.convert("RGB"))  # it always copies


def jpeg_size(data: bytes) -> tuple[int, int] | None:
    """(width, height) of JPEG bytes without decoding them; None if they are not JPEG.

    Reads the headers alone: opening an image costs ten times as much, and packing asks for ten
    sizes per clip.
    """
    at = 2 if data.startswith(b"\xff\xd8") else len(data)
    while at + 9 <= len(data) and data[at] == 0xFF:
        marker, length, height, width = struct.unpack_from(">xBHxHH", data, at)
        if marker in _FRAME_MARKERS:
            return (width, height) if width and height else None
        if marker in _END_OF_HEADERS:
            return None
        is_fill_byte = marker == 0xFF
        at += 1 if is_fill_byte else 2 if marker in _BARE_MARKERS else 2 + max(length, 2)
    return None


# ITU-T T.81, table B.1.
_FRAME_MARKERS = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
_BARE_MARKERS = frozenset({0x01, *range(0xD0, 0xD8)})
_END_OF_HEADERS = frozenset({0xD9, 0xDA})
