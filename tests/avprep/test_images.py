"""Pictures are measured, cut and scaled right."""

from __future__ import annotations

import io

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from avprep.images import jpeg_size


def jpeg(width: int, height: int, **options: object) -> bytes:
    noise = np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(noise).save(buffer, "JPEG", **options)
    return buffer.getvalue()


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"progressive": True},
        {"quality": 100, "subsampling": 0},
        {"exif": b"Exif\0\0" + bytes(3000), "comment": b"\xff\xc0 not a frame", "dpi": (72, 72)},
        {"icc_profile": bytes(range(256)) * 600},
        {"restart_marker_blocks": 1},
    ],
)
@pytest.mark.parametrize("size", [(1, 1), (224, 224), (640, 3)])
def test_the_size_of_a_jpeg_is_what_pillow_says(size, options):
    data = jpeg(*size, **options)
    assert jpeg_size(data) == Image.open(io.BytesIO(data)).size == size


@given(st.binary(max_size=200))
def test_bytes_that_are_no_jpeg_have_no_size(data):
    assert jpeg_size(data) is None
    assert jpeg_size(b"\xff\xd8\xff\xd9" + data) is None
    found = jpeg_size(b"\xff\xd8" + data)
    assert found is None or min(found) > 0


def test_a_jpeg_cut_in_its_headers_has_no_size():
    data = jpeg(30, 20)
    begin = data.index(b"\xff\xc0")
    assert all(jpeg_size(data[:end]) is None for end in range(begin + 9))


def test_other_pictures_have_no_jpeg_size():
    buffer = io.BytesIO()
    Image.new("RGB", (8, 8)).save(buffer, "PNG")
    assert jpeg_size(buffer.getvalue()) is None
