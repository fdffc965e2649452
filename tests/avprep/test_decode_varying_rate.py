"""Pictures at a varying rate are spread over the clip, whatever its container says of the rate."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from avprep.decode import DecodeOptions, decode_clip
from tests.media import Exact, make_exact, number_in, run_ffmpeg
from tests.odd_media import Shown, shown_by_ffmpeg

VP8 = ("-c:v", "libvpx", "-b:v", "1M", "-deadline", "realtime", "-fps_mode", "passthrough")
CONTAINERS = {
    "mp4": ("-c:v", "copy", "-c:a", "aac"),
    "mov": ("-c:v", "copy", "-c:a", "pcm_s16le"),
    "mkv": ("-c:v", "copy", "-c:a", "mp2"),
    "flv": ("-c:v", "copy", "-c:a", "libmp3lame"),
    "ts": ("-c:v", "copy", "-c:a", "mp2"),
    "webm": (*VP8, "-c:a", "libvorbis"),
}
SECONDS = 12
TICK = Fraction(1, 1000)


def stamps(pattern: str, seed: int) -> tuple[int, ...]:
    """Milliseconds at which pictures are shown, from 0."""
    random = np.random.default_rng(seed)
    fast, slow = range(0, 1000, 40), range(1000, SECONDS * 1000, 900)
    steady = np.arange(0, SECONDS * 1000, 40)
    match pattern:
        case "a burst, then slow":  # as of a screen recorder
            chosen = {*fast, *slow}
        case "slow, then a burst":
            chosen = {0, *(SECONDS * 1000 - time for time in (*fast, *slow))}
        case "dropped at random":  # as of a phone in the dark
            chosen = {0, *steady[random.random(len(steady)) > 0.6]}
        case "jitter":
            gaps = random.integers(15, 300, 200).cumsum()
            chosen = {0, *gaps[gaps < SECONDS * 1000]}
        case _:  # pauses
            chosen = {0, *(time for time in steady if time // 1500 % 2 == seed % 2)}
    return tuple(sorted(int(time) for time in chosen))


def possible(shown: list[Shown], reported: float, begin: float | None, end: float | None):
    """For each frame, the numbers on screen around its time: containers round times to 1 ms."""
    since = shown[0].time if begin is None else max(begin, shown[0].time)
    limit = min(since + 10, end or float("inf"))
    first = max(i for i, one in enumerate(shown) if not i or one.time <= since)
    clip = [one for i, one in enumerate(shown) if i >= first and (i == first or one.time < limit)]
    steps, span = len(clip) - 1, clip[-1].time - clip[0].time
    over = limit if shown[-1].time >= limit else min(limit, clip[-1].time + span / steps)
    count, rate = len(clip), len(clip) / (over - since)
    if abs(reported * span - steps) <= 0.5:
        count, rate = min(count, int(reported * 10)), reported
    on_screen = []
    for i in range(10):
        time = since + (max(int(i * count / 10) - 1, 0) + 0.25) / rate
        around = (time - 0.004, time, time + 0.004)
        on_screen.append(
            {max(one.number for one in clip if one.time <= max(at, clip[0].time)) for at in around}
        )
    return on_screen


@settings(
    max_examples=15,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(
    pattern=st.sampled_from(
        ["a burst, then slow", "slow, then a burst", "dropped at random", "jitter", "pauses"]
    ),
    seed=st.integers(0, 99),
    container=st.sampled_from(sorted(CONTAINERS)),
    window=st.sampled_from([(None, None), (None, None), (2.0, 9.0), (0.5, 11.0), (3.3, None)]),
)
@pytest.mark.parametrize("engine", ["pyav", "ffmpeg"])
def test_frames_are_spread_by_the_mean_rate_of_the_clip(
    tmp_path, pattern, seed, container, window, engine
):
    movie = Exact(stamps(pattern, seed), TICK, Fraction(25), audio_seconds=SECONDS, b_frames=2)
    path = vary(tmp_path, container, movie)
    with av.open(str(path)) as opened:
        reported = float(opened.streams.video[0].average_rate or 0)
    media = decode_clip(path, *window, DecodeOptions(decoder=engine))
    numbers = [number_in(frame) for frame in media.frames]
    allowed = possible(shown_by_ffmpeg(path), reported, *window)
    assert all(one in some for one, some in zip(numbers, allowed, strict=True)), (numbers, allowed)


def vary(folder: Path, container: str, movie: Exact) -> Path:
    source, path = folder / "source.mov", folder / f"film.{container}"
    make_exact(source, movie)
    run_ffmpeg("-i", str(source), *CONTAINERS[container], str(path))
    return path


@pytest.mark.parametrize("container", CONTAINERS)
@pytest.mark.parametrize("engine", ["pyav", "ffmpeg"])
def test_a_burst_does_not_take_all_ten_frames(tmp_path, container, engine):
    movie = Exact(stamps("a burst, then slow", 0), TICK, Fraction(25), audio_seconds=SECONDS)
    path = vary(tmp_path, container, movie)
    times = decode_clip(path, options=DecodeOptions(decoder=engine)).frame_times
    assert times[-1] > 6
    assert sum(time < 1 for time in times) < 5
