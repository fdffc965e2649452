"""Pictures are measured, cut and scaled right."""

from __future__ import annotations

import io
import time

import av
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from avprep.decode.picture import picture_of
from avprep.images import jpeg_size
from avprep.options import DecodeOptions


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


def test_a_picture_is_made_by_the_thread_that_asks_for_it(demo_clip):
    frame = av.VideoFrame.from_ndarray(np.zeros((1080, 1280), np.uint8), "yuv420p")  # 720p
    with av.open(str(demo_clip)) as container:
        stream = container.streams.video[0]
        of_process, of_thread = time.process_time(), time.thread_time()
        for _ in range(20):
            picture_of(frame, stream, DecodeOptions())
        of_process, of_thread = time.process_time() - of_process, time.thread_time() - of_thread
    assert of_process < 1.05 * of_thread  # 1.15 with two threads per frame, more with more cores
