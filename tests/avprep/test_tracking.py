"""Trackers: what they are given, and that they cannot hurt the work."""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Mapping

import pytest
from click.testing import CliRunner
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from avprep import tracking
from avprep.cli import group
from avprep.clips import Clip
from avprep.errors import UserError
from avprep.manifest.model import write_manifest
from avprep.tracking import BackgroundTracker, TrackedRun, Trackers, check_trackers


class Recorder:
    """A tracker that keeps what it gets."""

    def __init__(self) -> None:
        self.rows: list[tuple[int, Mapping[str, float]]] = []
        self.is_closed = False

    def log(self, step: int, figures: Mapping[str, float]) -> None:
        self.rows.append((step, figures))

    def close(self) -> None:
        self.is_closed = True


class Raising(Recorder):
    def log(self, step: int, figures: Mapping[str, float]) -> None:
        raise ValueError("quota exceeded\nand more")


def test_a_tracker_gets_every_row_in_order_and_is_closed():
    recorder = Recorder()
    tracker = BackgroundTracker("recorder", lambda: recorder)
    for step in range(100):
        tracker.log(step, {"loss": 1 / (step + 1)})
    tracker.close(seconds=60)
    assert recorder.rows == [(step, {"loss": 1 / (step + 1)}) for step in range(100)]
    assert recorder.is_closed
    assert tracker.failure == ""


def test_a_tracker_that_raises_is_told_of_in_one_line():
    tracker = BackgroundTracker("raising", Raising)
    tracker.log(1, {"loss": 1.0})
    tracker.close(seconds=60)
    assert tracker.failure == (
        "raising: ValueError: quota exceeded. It gets no more rows; the command continues."
    )


def test_a_tracker_that_cannot_begin_is_told_of():
    def begin() -> Recorder:
        raise ConnectionError("no route to host")

    tracker = BackgroundTracker("far", begin)
    tracker.close(seconds=60)
    assert "far: ConnectionError: no route to host" in tracker.failure


def test_a_tracker_that_would_end_the_program_is_told_of():
    def begin() -> Recorder:
        sys.exit("log in first")

    tracker = BackgroundTracker("strict", begin)
    tracker.close(seconds=60)
    assert "strict: SystemExit: log in first" in tracker.failure


def test_a_tracker_that_hangs_neither_blocks_nor_is_waited_for_long(monkeypatch):
    monkeypatch.setattr(tracking, "_WAITING_ROWS", 3)
    released = threading.Event()

    class Hanging(Recorder):
        def log(self, step: int, figures: Mapping[str, float]) -> None:
            released.wait()

    tracker = BackgroundTracker("hanging", Hanging)
    for step in range(10):
        tracker.log(step, {})
    assert "hanging: has not answered for 3 rows" in tracker.failure
    tracker.close(seconds=0.2)
    released.set()


def test_a_tracker_that_does_not_finish_is_given_up():
    released = threading.Event()

    class NeverFinishing(Recorder):
        def close(self) -> None:
            released.wait()

    tracker = BackgroundTracker("slow", NeverFinishing)
    tracker.close(seconds=0.2)
    assert "slow: did not finish within 0.2 s" in tracker.failure
    released.set()


def test_several_that_hang_are_waited_for_together(monkeypatch, tmp_path):
    monkeypatch.setattr(tracking, "_CLOSING_SECONDS", 2.0)
    released = threading.Event()
    names = ("wandb", "mlflow", "trackio")
    for name in names:
        monkeypatch.setitem(tracking._TRACKERS, name, lambda run: released.wait())
    trackers = Trackers(names, TrackedRun("1", "run", "cavmae", {}, tmp_path))
    began = time.monotonic()
    trackers.close()
    waited = time.monotonic() - began
    released.set()
    assert waited < 2 * 2.0, "waited for one after another"
    assert [failure.partition(":")[0] for failure in trackers.failures()] == list(names)


def test_each_failure_is_told_once(monkeypatch, tmp_path):
    monkeypatch.setitem(tracking._TRACKERS, "wandb", lambda run: Raising())
    trackers = Trackers(["wandb"], TrackedRun("1", "run", "cavmae", {}, tmp_path))
    trackers.log(1, {})
    trackers.close()
    assert len(trackers.failures()) == 1
    assert trackers.failures() == []


def test_a_library_that_is_not_installed_is_named_with_the_remedy(monkeypatch):
    monkeypatch.setattr(tracking.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(UserError, match=r"mlflow is not installed.* 'avprep-cavmae\[mlflow\]'"):
        check_trackers(["mlflow"])


def test_a_folder_of_a_trackers_name_does_not_pass_for_its_library(monkeypatch, tmp_path):
    (tmp_path / "wandb").mkdir()
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(UserError, match="wandb is not installed"):
        check_trackers(["wandb"])


def test_a_build_tells_its_speed_and_failures_by_cause(demo_clip, tmp_path):
    (tmp_path / "broken.mp4").write_bytes(b"")
    shards = tmp_path / "shards"
    manifest = tmp_path / "m.jsonl"
    videos = {"whole": str(demo_clip), "broken": str(tmp_path / "broken.mp4")}
    write_manifest(manifest, [Clip(name, video=file) for name, file in videos.items()])
    command = ["shard", str(manifest), "--out", str(shards), "--track", "tensorboard"]
    result = CliRunner().invoke(group, command)
    assert result.exit_code == 0, result.output
    events = EventAccumulator(f"{shards}-tracking/tensorboard")
    events.Reload()
    (*_, last) = events.Scalars("failed/empty")
    assert (last.step, last.value) == (2, 1)
    assert events.Scalars("clips_per_second")[-1].value > 0
