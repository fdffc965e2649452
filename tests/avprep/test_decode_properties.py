"""Whatever the rate, length, offset or segment: the published frames, and sound in its place."""

from __future__ import annotations

from bisect import bisect_right
from fractions import Fraction
from pathlib import Path

import cv2
import numpy as np
import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from avprep.decode import DecodeOptions, decode_clip
from tests.media import Exact, ideal, make_exact, numbers_of

RATES = (
    *(Fraction(25, 2), Fraction(24000, 1001), Fraction(25), Fraction(30000, 1001), Fraction(30)),
    Fraction(60),
)
RIPPLE = 8  # steps of int16 that the resampler's filter may be off the formula
OFF_THE_GRID = 0.00037  # seconds; a whole millisecond may lie a quarter of a frame before a frame
few_examples = settings(
    max_examples=25,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
    derandomize=True,
)


def steady(rate: Fraction, frames: int, **changes: object) -> Exact:
    """Frames at a constant rate."""
    stamps = tuple(range(0, frames * rate.denominator, rate.denominator))
    return Exact(stamps, Fraction(1, rate.numerator), rate, **changes)


def published_numbers(frames: int, rate: float) -> list[int]:
    """The published rule for a whole file of a constant rate."""
    n = min(frames, int(rate * 10))
    return [max(int(i * (n / 10)) - 1, 0) for i in range(10)]


def numbers_by_time(
    shown: list[Fraction], rate: float, start: Fraction | None = None, end: Fraction | None = None
) -> list[int]:
    """The same rule by time: what is on screen then, give or take a quarter of a frame."""
    on_screen = 0 if start is None else max(bisect_right(shown, start) - 1, 0)
    stop = len(shown) if end is None else max(sum(time < end for time in shown), on_screen + 1)
    begin = shown[on_screen] if start is None else max(start, shown[on_screen])
    ten_seconds = sum(begin - 1 < time < begin + 10 for time in shown[on_screen:stop])
    n = min(ten_seconds, int(rate * 10 + 1e-6))
    targets = [begin + Fraction((max(i * n // 10 - 1, 0) + 0.25) / rate) for i in range(10)]
    return [min(max(bisect_right(shown, t) - 1, on_screen), stop - 1) for t in targets]


def mean_rate(shown: list[Fraction], reported: float) -> float:
    """Of the first 10 s, frames per second; the file's own, if that is right to half a frame."""
    first = [time for time in shown if time < shown[0] + 10]
    steps, span = len(first) - 1, float(first[-1] - shown[0])
    if abs(reported * span - steps) <= 0.5:
        return reported
    return len(first) / min(10.0, span + span / steps if first == shown else 10.0)


def sound_is(pcm: np.ndarray, since: float, edge: int = 60) -> bool:
    right = ideal(len(pcm), since) * 32767 / 32768
    return bool(np.abs(pcm - right)[edge:-edge].max(initial=0) <= RIPPLE)


@few_examples
@given(
    rate=st.sampled_from(RATES),
    frames=st.integers(1, 90),
    b_frames=st.integers(0, 3),
    audio_seconds=st.floats(0.2, 2.0),
    audio_rate=st.sampled_from([8000, 16000, 22050, 44100, 48000]),
    channels=st.integers(1, 2),
)
def test_any_steady_file_gives_the_published_frames(
    tmp_path, rate, frames, b_frames, audio_seconds, audio_rate, channels
):
    movie = steady(
        rate, frames, b_frames=b_frames, audio_seconds=audio_seconds,
        audio_rate=audio_rate, channels=channels,
    )  # fmt: skip
    media = decode_clip(make_exact(tmp_path / "clip.mov", movie))
    assert numbers_of(media) == published_numbers(frames, float(rate))
    expected = [float(number / rate) for number in numbers_of(media)]
    np.testing.assert_allclose(media.frame_times, expected, atol=2e-6)
    assert abs(len(media.pcm) - audio_seconds * 16000) <= 2
    assert sound_is(media.pcm, 0.0)


@few_examples
@given(
    gaps=st.lists(st.integers(1, 30), min_size=1, max_size=60),
    b_frames=st.integers(0, 2),
    engine=st.sampled_from(["pyav", "pyav", "ffmpeg"]),
)
def test_a_varying_rate_gives_the_frames_on_screen(tmp_path, gaps, b_frames, engine):
    stamps = tuple(int(stamp) for stamp in np.cumsum([0, *gaps]) * 100)
    movie = Exact(stamps, Fraction(1, 10000), Fraction(25), b_frames=b_frames)
    path = make_exact(tmp_path / "clip.mov", movie)
    capture = cv2.VideoCapture(str(path))
    reported = capture.get(cv2.CAP_PROP_FPS)
    capture.release()
    media = decode_clip(path, options=DecodeOptions(decoder=engine))
    shown = [stamp * movie.tick for stamp in stamps]
    assert numbers_of(media) == numbers_by_time(shown, mean_rate(shown, reported))
    expected = [float(shown[number]) for number in numbers_of(media)]
    np.testing.assert_allclose(media.frame_times, expected, atol=2e-6)


@few_examples
@given(
    rate=st.sampled_from(RATES),
    frames=st.integers(30, 120),
    group=st.integers(5, 60),
    b_frames=st.integers(0, 3),
    window=st.tuples(st.floats(0.05, 0.8), st.floats(0.1, 1.0)),
    audio_start=st.sampled_from([0.0, 0.0, 0.3]),
    engine=st.sampled_from(["pyav", "pyav", "pyav", "ffmpeg"]),
)
def test_any_segment_gives_the_frames_and_the_sound_of_its_time(
    tmp_path, rate, frames, group, b_frames, window, audio_start, engine
):
    seconds = float(frames / rate)
    start = round(window[0] * seconds, 3) + OFF_THE_GRID
    end = round(start + max(window[1] * (seconds - start), 0.1), 3) + OFF_THE_GRID
    movie = steady(
        rate, frames, group=group, b_frames=b_frames,
        audio_start=audio_start, audio_seconds=seconds + 1,
    )  # fmt: skip
    heard = max(end - max(start, audio_start), 0.0)
    assume(heard > 0.03)  # less is no sample
    path = make_exact(tmp_path / "clip.mov", movie)
    media = decode_clip(path, start, end, DecodeOptions(decoder=engine))
    shown = [number / rate for number in range(frames)]
    assert numbers_of(media) == numbers_by_time(shown, float(rate), Fraction(start), Fraction(end))
    assert abs(len(media.pcm) - heard * 16000) <= 2
    if engine == "pyav":
        grid = (round((start - audio_start) * 16000)) / 16000
        assert sound_is(media.pcm, max(grid, 0.0), edge=60 if start < audio_start else 0)


@few_examples
@given(
    cuts=st.lists(st.floats(0.1, 3.9), min_size=1, max_size=4, unique=True),
    audio_rate=st.sampled_from([8000, 11025, 32000, 44100, 48000, 96000]),
)
def test_neighbouring_segments_put_together_are_the_whole_sound(tmp_path, cuts, audio_rate):
    movie = steady(Fraction(25), 100, group=20, audio_seconds=4.0, audio_rate=audio_rate)
    path = make_exact(tmp_path / "clip.mov", movie)
    whole = decode_clip(path).pcm
    edges = [None, *sorted(cuts), None]
    edges = [edge for i, edge in enumerate(edges) if not i or edge is None
             or edge - (edges[i - 1] or 0) > 0.05]  # fmt: skip
    parts = [
        decode_clip(path, *edges[i : i + 2]).pcm
        for i in range(len(edges) - 1)
        if (edges[i + 1] or 4.0) - (edges[i] or 0.0) > 0.05
    ]
    joined = np.concatenate(parts)
    assert len(joined) == len(whole)
    assert np.abs(joined.astype(int) - whole).max() <= 1


@pytest.fixture(scope="module")
def three_minutes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    movie = steady(Fraction(30), 5400, audio_seconds=180.0, audio_rate=16000, b_frames=2)
    return make_exact(tmp_path_factory.mktemp("long") / "long.mov", movie)


@pytest.mark.parametrize("engine", ["pyav", "ffmpeg"])
@pytest.mark.parametrize(("longest", "heard"), [(30.0, 30), (12.5, 12.5), (1000.0, 180)])
def test_of_three_minutes_ten_seconds_are_seen_and_as_much_heard_as_asked(
    three_minutes, engine, longest, heard
):
    options = DecodeOptions(decoder=engine, max_audio=longest)
    media = decode_clip(three_minutes, options=options)
    assert numbers_of(media) == published_numbers(5400, 30.0) == numbers_of(media)
    assert len(media.pcm) == heard * 16000
    assert media.is_shortened == (heard < 180)
    assert sound_is(media.pcm[-16000:], heard - 1)


@pytest.mark.parametrize("engine", ["pyav", "ffmpeg"])
@pytest.mark.parametrize("start", [59.99, 171.2])
def test_segments_deep_in_a_file_are_exact(three_minutes, start, engine):
    media = decode_clip(three_minutes, start, start + 8, DecodeOptions(decoder=engine))
    shown = [Fraction(number, 30) for number in range(5400)]
    window = Fraction(str(start)), Fraction(str(start)) + 8
    assert numbers_of(media) == numbers_by_time(shown, 30.0, *window)
    assert len(media.pcm) == 8 * 16000
    assert sound_is(media.pcm, start, edge=0)
