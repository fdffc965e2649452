"""A clip that kills, hangs or starves its process costs that clip and nothing else."""

from __future__ import annotations

import os
import signal
import threading
import time
from pathlib import Path

import pytest

from avprep.clips import Clip
from avprep.errors import DecodeError
from avprep.isolation import IsolatedEncoder
from avprep.options import IsolationOptions, SampleOptions


@pytest.fixture
def encoder():
    with IsolatedEncoder(SampleOptions(), IsolationOptions(time_limit=60)) as isolated:
        yield isolated


def test_a_good_clip_comes_back_whole(encoder, demo_clip):
    sample = encoder.encode(Clip("x", video=str(demo_clip)))
    assert sample.audio.startswith(b"fLaC")
    assert len(sample.frames) == 10
    assert all(jpeg.startswith(b"\xff\xd8") for jpeg in sample.frames)
    assert sample.num_samples == pytest.approx(16000, rel=0.1)


def test_a_bad_clip_keeps_its_cause_across_the_pipe(encoder, tmp_path):
    with pytest.raises(DecodeError) as caught:
        encoder.encode(Clip("x", video=str(tmp_path / "nowhere.mp4")))
    assert caught.value.cause == "missing"
    assert "nowhere.mp4" in caught.value.detail


def test_a_killed_child_is_replaced_and_the_clip_succeeds(encoder, demo_clip):
    clip = Clip("x", video=str(demo_clip))
    expected = encoder.encode(clip)
    os.kill(encoder._child.pid, signal.SIGSEGV)
    time.sleep(0.05)
    assert encoder.encode(clip) == expected


def test_a_clip_whose_process_dies_twice_is_a_crash(demo_clip, tmp_path):
    """The clip is a pipe that never opens, and the child is killed each time it waits on it."""
    fifo = tmp_path / "fifo.wav"
    os.mkfifo(fifo)
    with IsolatedEncoder(SampleOptions(), IsolationOptions(time_limit=60)) as encoder:
        stop = threading.Event()

        def assassin() -> None:
            while not stop.is_set():
                child = encoder._child
                if child is not None and _is_blocked_on(child.pid, fifo):
                    os.kill(child.pid, signal.SIGSEGV)
                time.sleep(0.05)

        thread = threading.Thread(target=assassin)
        thread.start()
        try:
            with pytest.raises(DecodeError) as caught:
                encoder.encode(Clip("fifo", wav=str(fifo), video_path=str(tmp_path)))
        finally:
            stop.set()
            thread.join()
        assert caught.value.cause == "crash"
        assert "SIGSEGV" in caught.value.detail
        assert encoder.encode(Clip("x", video=str(demo_clip))).num_samples > 0


def test_a_clip_that_never_ends_is_a_timeout(tmp_path):
    fifo = tmp_path / "fifo.wav"
    os.mkfifo(fifo)
    limits = IsolationOptions(time_limit=2.0)
    with (
        IsolatedEncoder(SampleOptions(), limits) as encoder,
        pytest.raises(DecodeError, match="2 s"),
    ):
        encoder.encode(Clip("fifo", wav=str(fifo), video_path=str(tmp_path)))


def test_a_clip_that_needs_too_much_memory_is_out_of_memory(tmp_path):
    """A sparse file far larger than the limit, read whole by the packing code."""
    huge = tmp_path / "huge.wav"
    with huge.open("wb") as file:
        file.truncate(8 << 30)
    limits = IsolationOptions(memory_limit=0.5)
    with IsolatedEncoder(SampleOptions(), limits) as encoder:
        with pytest.raises(DecodeError) as caught:
            encoder.encode(Clip("huge", wav=str(huge), video_path=str(tmp_path)))
        assert caught.value.cause == "out-of-memory"


def test_the_child_is_gone_when_the_encoder_is_closed(demo_clip):
    with IsolatedEncoder(SampleOptions(), IsolationOptions()) as encoder:
        encoder.encode(Clip("x", video=str(demo_clip)))
        pid = encoder._child.pid
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)


def _is_blocked_on(pid: int, path: Path) -> bool:
    """Whether the process is inside the system call that opens a FIFO."""
    try:
        return "wait_for_partner" in Path(f"/proc/{pid}/wchan").read_text() or (
            Path(f"/proc/{pid}/syscall").read_text().startswith("257 ")
        )
    except OSError:
        return False
