"""Still pictures: a clip of one frame, without sound."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps

from avprep.decode.extent import Extent
from avprep.decode.media import Media
from avprep.decode.partly import have_all, open_media
from avprep.errors import DecodeError
from avprep.images import resize_and_crop
from avprep.options import DecodeOptions

_FORMATS = {b"\xff\xd8\xff": "JPEG", b"\x89PNG\r\n\x1a\n": "PNG"}
_HEAD = 4096  # bytes, in which an animation says that it is one
_ANIMATION = b"acTL"


def is_still(path: str | Path) -> bool:
    """Whether a file begins as a JPEG or a PNG that is not an animation."""
    try:
        with open_media(path) as file:
            head = file.read(_HEAD)
    except OSError:
        return False  # for a decoder to explain
    return head.startswith(tuple(_FORMATS)) and _ANIMATION not in head


def decode_still(path: str | Path, options: DecodeOptions) -> Media:
    """The one frame of a picture, the way up that it is to be looked at.

    Raises:
        DecodeError: it is damaged, or a clip must have sound.
    """
    if options.missing_audio != "omit" or not options.frames:
        raise DecodeError("no-audio", f"{path}: is a picture")
    have_all(path)
    try:
        with Image.open(path, formats=list(_FORMATS.values())) as image:
            rgb = _rgb(ImageOps.exif_transpose(image))
    except Image.DecompressionBombError as error:
        raise DecodeError("out-of-memory", f"{path}: {error}") from error
    except (OSError, SyntaxError, ValueError) as error:  # all of these are Pillow's
        cause = "truncated" if "truncated" in str(error) else "garbage"
        raise DecodeError(cause, f"{path}: {error}") from error
    frame = resize_and_crop(rgb, options.frame_size, 1.0)
    return Media(np.empty(0, np.int16), frame[None], (0.0,), "pillow", Extent(0.0, 0.0))


def _rgb(image: Image.Image) -> NDArray[np.uint8]:
    """uint8 [height, width, 3]; the high byte where there are 16 bits per value."""
    if image.mode.startswith("I"):
        grey = np.asarray(image).astype(np.uint32) >> 8
        return np.repeat(grey.astype(np.uint8)[..., None], 3, axis=2)
    return np.asarray(image.convert("RGB"))
