"""The demo's videos are real files; only picture and sound together tell the class, and what a clip
shows says how it sounds."""

from __future__ import annotations

import dataclasses
import os
import signal
import subprocess
import sys
import time

import av
import numpy as np
import pytest

from avprep import storage
from avprep.demo_data import (
    BROKEN,
    CLASSES,
    SHAPES,
    SOUNDS,
    DemoDataOptions,
    Traits,
    make_demo_data,
    plan_demo_clips,
    render_frames,
    render_sound,
)
from avprep.jobs import PoolOptions

MIDDLE = Traits(size=0.5, haze=0.5)


def test_every_class_shares_its_shape_and_its_sound_with_others():
    shapes, sounds = zip(*(name.split("-") for name in CLASSES), strict=True)
    assert len(set(CLASSES)) == 8
    assert all(shapes.count(shape) == 2 for shape in shapes)
    assert all(sounds.count(sound) == 2 for sound in sounds)


def test_files_are_of_several_containers_and_codecs(demo_videos):
    found = set()
    for path in sorted(demo_videos.rglob("*.*")):
        if path.name not in BROKEN:
            with av.open(str(path)) as container:
                video, audio = container.streams.video[0], container.streams.audio[0]
                found.add((path.suffix, video.codec_context.name, audio.codec_context.name))
    assert (".mp4", "h264", "aac") in found
    assert len(found) > 1


def test_a_rerun_makes_nothing_anew(demo_videos):
    before = {path: path.stat().st_mtime_ns for path in demo_videos.rglob("*train_0*")}
    options = DemoDataOptions(train_clips=2, test_clips=1, seconds=1.0)
    make_demo_data(demo_videos, options, PoolOptions(1))
    assert {path: path.stat().st_mtime_ns for path in before} == before


def test_a_rerun_deletes_what_a_killed_run_left(tmp_path):
    line = [sys.executable, "-m", "avprep", "demo-data", tmp_path, "--seconds", "1"]
    line += ["--train-clips", "1", "--test-clips", "1"]
    killed = subprocess.Popen(line, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
                              start_new_session=True)  # fmt: skip
    while not list(tmp_path.glob("*/*/*")) and killed.poll() is None:
        time.sleep(0.01)
    os.killpg(killed.pid, signal.SIGKILL)
    killed.wait()
    storage.temporary_in(next(tmp_path.glob("*/*"))).write_bytes(b"the half of a clip")
    subprocess.run(line, check=True, capture_output=True)
    made = [path.name for path in tmp_path.rglob("*") if path.is_file()]
    assert len(made) == 16 + len(BROKEN)
    assert not [name for name in made if name.startswith(".")]


def test_train_and_test_clips_have_different_seeds(tmp_path):
    seeds = [clip.seed for clip in plan_demo_clips(tmp_path, DemoDataOptions())]
    assert len(set(seeds)) == len(seeds)


def frame_of(shape, **changes):
    traits = dataclasses.replace(MIDDLE, **changes)
    return render_frames(shape, traits, 1, 10.0, 160, 120, np.random.default_rng(3))[0]


def shape_in(frame):
    """bool [H, W]: the pixels of the shape, whose colour is pure, unlike the background's."""
    highest = frame.max(axis=2).astype(float)
    return (highest - frame.min(axis=2)) / highest > 0.75


def sound_of(sound, **changes):
    traits = dataclasses.replace(MIDDLE, **changes)
    return render_sound(sound, traits, 4.0, np.random.default_rng(3)) / 32768


def centroid(signal):
    """The mean of log2 of the frequencies, by power."""
    power = np.abs(np.fft.rfft(signal))[1:] ** 2
    return np.average(np.log2(np.fft.rfftfreq(len(signal), 1 / 44100)[1:]), weights=power)


@pytest.mark.parametrize("shape", SHAPES)
def test_traits_show(shape):
    small, large = (shape_in(frame_of(shape, size=size)) for size in (0.1, 0.9))
    assert large.sum() > 1.5 * small.sum()
    assert large.nonzero()[0].mean() > small.nonzero()[0].mean() + 10  # it lies lower
    clear, hazy = (frame_of(shape, haze=haze)[:, 0].max(axis=1).mean() for haze in (0.0, 1.0))
    assert hazy > 4 * clear


@pytest.mark.parametrize("sound", SOUNDS)
def test_what_a_clip_shows_is_what_it_sounds_like(sound):
    small, large = (centroid(sound_of(sound, size=size)) for size in (0.1, 0.9))
    assert small - large > 1.5  # octaves
    clear, hazy = (np.sort(np.abs(sound_of(sound, haze=haze)))[:5000].mean() for haze in (0.0, 1.0))
    assert hazy > 5 * clear  # in the rests between the beats
