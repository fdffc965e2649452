"""Each measure says what its definition says, on sounds and pictures whose values are known."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from avprep.quality.faults import FAULTS
from avprep.quality.measures import (
    COLUMNS,
    MEASURES,
    PICTURE_MEASURES,
    SOUND_MEASURES,
    measure_clip,
    measure_pictures,
    measure_sound,
)

RATE = 16000
TIMES = np.arange(2 * RATE) / RATE
RNG = np.random.default_rng(0)
SIZE = 224
TEXTURE = RNG.integers(0, 256, (SIZE, SIZE, 3), np.uint8)


def sound(x) -> dict[str, float]:
    return measure_sound(np.rint(np.clip(x, -1, 1) * 32767).astype(np.int16), RATE)


def sine(peak, frequency=440.0):
    return peak * np.sin(2 * np.pi * frequency * TIMES)


def film(picture, count=10):
    return np.repeat(picture[None], count, axis=0)


def test_levels_are_relative_to_full_scale():
    found = sound(sine(0.5))
    assert found["peak_db"] == pytest.approx(20 * math.log10(0.5), abs=0.01)
    assert found["rms_db"] == pytest.approx(20 * math.log10(0.5 / math.sqrt(2)), abs=0.01)
    assert sound(np.full(RATE, -1.0))["peak_db"] == 0.0


def test_the_clipped_share_counts_what_lies_at_full_scale():
    assert sound(sine(0.97))["clipped"] == 0
    over = sine(4.0)
    assert sound(over)["clipped"] == pytest.approx((np.abs(over) >= 0.98).mean(), abs=1e-3)
    assert measure_sound(np.full(RATE, -32768, np.int16))["clipped"] == 1


def test_the_silent_share_counts_windows_and_not_their_offset():
    half = np.where(TIMES < 1, sine(0.1), 0.0)
    assert sound(half)["silent"] == 0.5
    assert sound(0.25 + sine(0.0005))["silent"] == 1
    assert sound(sine(0.003))["silent"] == 0  # -53 dBFS


def test_flatness_tells_noise_from_tones_at_any_level():
    noise = RNG.standard_normal(len(TIMES))
    assert sound(0.2 * noise)["flatness"] > 0.95
    assert sound(0.01 * noise)["flatness"] > 0.95
    assert sound(sine(0.3))["flatness"] < 0.01
    assert sound(0.0001 * noise)["flatness"] == 0  # nothing but silence


def test_stillness_is_the_share_that_does_not_change():
    frames = film(TEXTURE // 2 + 64)
    assert measure_pictures(frames)["stillness"] == 1
    grain = frames + RNG.integers(0, 4, frames.shape, np.uint8)
    assert measure_pictures(grain)["stillness"] == 1
    frames[1::2, : SIZE // 4] += 40  # a quarter of the picture flickers
    assert measure_pictures(frames)["stillness"] == 0.75
    assert measure_pictures(frames[:1])["stillness"] == 0  # nobody can say


def test_blank_frames_are_of_one_colour():
    frames = film(TEXTURE)
    frames[::2] = (200, 30, 30)
    assert measure_pictures(frames)["blank"] == 0.5
    frames[:] = 0
    assert measure_pictures(frames)["blank"] == 1


def test_blur_grows_with_blurring_and_not_with_contrast():
    cv2 = pytest.importorskip("cv2")
    sharp = np.kron(RNG.integers(0, 2, (14, 14, 1)), np.ones((16, 16, 3))) * 200
    blurs = [
        measure_pictures(film(cv2.GaussianBlur(sharp, (0, 0), sigma).astype(np.uint8)))["blur"]
        for sigma in (0.1, 2, 4, 8)
    ]
    assert blurs == sorted(blurs)
    assert blurs[0] < 0.2
    assert blurs[-1] > 0.7
    assert measure_pictures(film((sharp / 2).astype(np.uint8)))["blur"] == pytest.approx(
        blurs[0], abs=0.05
    )


def test_letterbox_is_the_share_under_equal_bars():
    frames = film(TEXTURE)
    frames[:, :28] = frames[:, -28:] = 3
    assert measure_pictures(frames)["letterbox"] == 0.25
    assert measure_pictures(frames.transpose(0, 2, 1, 3))["letterbox"] == 0.25
    frames[0, :28] = 90  # not in all frames: no bar
    assert measure_pictures(frames)["letterbox"] == 0
    assert measure_pictures(np.zeros_like(frames))["letterbox"] == 0  # nothing but black


def test_without_sound_or_pictures_a_clip_measures_as_silence_or_a_black_picture():
    absent = measure_clip(np.empty(0, np.int16), np.empty((0, SIZE, SIZE, 3), np.uint8), RATE)
    silence, black = np.zeros(RATE, np.int16), np.zeros((10, SIZE, SIZE, 3), np.uint8)
    present = measure_clip(silence, black, RATE)
    assert {name: absent[name] for name in MEASURES} == {name: present[name] for name in MEASURES}
    assert absent["picture_hash"] == absent["sound_hash"] == ""


@given(
    pcm=arrays.arrays(np.int16, st.integers(0, 2000)),
    frames=arrays.arrays(np.uint8, st.tuples(st.integers(0, 3), *[st.just(16)] * 2, st.just(3))),
)
def test_whatever_a_clip_holds_its_measures_are_plain_numbers_in_their_range(pcm, frames):
    found = measure_clip(pcm, frames, RATE)
    assert tuple(found) == COLUMNS
    for name in MEASURES:
        low, high = (-100, 0) if name.endswith("_db") else (0, 1)
        assert type(found[name]) is float
        assert low <= found[name] <= high, (name, found)


def test_a_fault_is_a_threshold_on_a_measure():
    assert {fault.measure for fault in FAULTS} == MEASURES.keys() - {"peak_db"}
    assert SOUND_MEASURES.keys() & PICTURE_MEASURES.keys() == set()
    still, quiet = (next(f for f in FAULTS if f.name == name) for name in ("still", "quiet"))
    assert still.condition == "stillness >= 0.98"
    assert quiet.condition == "rms_db <= -50"
    assert still.found_in(np.array([0.97, 0.98, 1.0])).tolist() == [False, True, True]
    assert quiet.found_in(np.array([-49.9, -50.0])).tolist() == [False, True]
