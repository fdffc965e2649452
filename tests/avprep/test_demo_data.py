"""The demo's videos are real files in which only picture and sound together tell the class."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time

import av

from avprep import storage
from avprep.demo_data import BROKEN, CLASSES, DemoDataOptions, make_demo_data, plan_demo_clips
from avprep.jobs import PoolOptions


def test_every_class_shares_its_shape_and_its_sound_with_others():
    shapes, sounds = zip(*(name.split("-") for name in CLASSES), strict=True)
    assert len(set(CLASSES)) == 8
    assert all(shapes.count(shape) == 2 for shape in shapes)
    assert all(sounds.count(sound) == 2 for sound in sounds)


def test_files_are_of_several_containers_and_codecs(demo_videos):
    found = set()
    for path in sorted(demo_videos.rglob("*.*")):
        if path.name not in (*BROKEN, "labels.csv"):
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
    storage.temporary_beside(next(tmp_path.glob("*/*/*"))).write_bytes(b"the half of a clip")
    subprocess.run(line, check=True, capture_output=True)
    made = [path.name for path in tmp_path.rglob("*") if path.is_file()]
    assert len(made) == 16 + len(BROKEN) + 1
    assert not [name for name in made if name.startswith(".")]


def test_train_and_test_clips_have_different_seeds(tmp_path):
    seeds = [clip.seed for clip in plan_demo_clips(tmp_path, DemoDataOptions())]
    assert len(set(seeds)) == len(seeds)
