"""Whatever the display matrix: pictures are shown as the ffmpeg program shows them."""

from __future__ import annotations

import math
import shutil
from pathlib import Path

import numpy as np
import pytest

from avprep.decode import DecodeOptions, decode_clip
from avprep.images import resize_and_crop
from tests.odd_media import X264, film, picture_by_ffmpeg, set_display_matrix


def turn(degrees: float, across: float = 1, along: float = 1) -> tuple[float, ...]:
    """A rotation of scaled axes."""
    cosine, sine = math.cos(math.radians(degrees)), math.sin(math.radians(degrees))
    return (across * cosine, along * sine, 0, -across * sine, along * cosine, 0, 0, 0, 1)


MATRICES = {
    "upright": turn(0),
    "zero": (0,) * 9,
    "a column of zeros": (1, 0, 0, 0, 0, 0, 0, 0, 1),
    **{f"{degrees} degrees": turn(degrees) for degrees in (90, 180, 270, 30, 135, 91, 315, 0.6)},
    "mirrored": (-1, 0, 0, 0, 1, 0, 0, 0, 1),
    "upside down": (1, 0, 0, 0, -1, 0, 0, 0, 1),
    "transposed": (0, 1, 0, 1, 0, 0, 0, 0, 1),
    "transposed the other way": (0, -1, 0, -1, 0, 0, 0, 0, 1),
    "sheared": (1, 0.5, 0, 0, 1, 0, 0, 0, 1),
    "sheared the other way": (1, 0, 0, -0.7, 1, 0, 0, 0, 1),
    "doubled": turn(0, 2, 2),
    "one axis doubled, turned": turn(90, 1, 2),
    "one axis doubled, askew": turn(20, 1, 2),
    "moved": (1, 0, 0, 0, 1, 0, 100, 50, 1),
}


@pytest.fixture(scope="module")
def upright(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("matrices") / "upright.mp4"
    return film(path, (*X264, "-crf", "10"), ("-c:a", "aac"), numbers=range(5))


@pytest.mark.parametrize("engine", ["pyav", "ffmpeg"])
@pytest.mark.parametrize("name", MATRICES)
def test_pictures_are_shown_as_ffmpeg_shows_them(tmp_path, upright, name, engine):
    path = tmp_path / "film.mp4"
    shutil.copyfile(upright, path)
    set_display_matrix(path, MATRICES[name])
    shown, pixel_aspect = picture_by_ffmpeg(path)
    right = resize_and_crop(shown, 224, pixel_aspect)
    frame = decode_clip(path, options=DecodeOptions(decoder=engine)).frames[0]
    error = np.square(right.astype(float) - frame).mean()
    assert 10 * np.log10(255**2 / (error + 1e-9)) > 38
