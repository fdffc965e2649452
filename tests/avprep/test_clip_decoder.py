"""A clip that kills, hangs or starves its process costs that clip and nothing else."""

from __future__ import annotations

import contextlib
import os
import signal
import threading
import time
from collections.abc import Iterator

import pytest

from avprep.clips import Clip
from avprep.encode.process import ClipDecoder
from avprep.errors import DecodeError
from avprep.options import IsolationOptions, SampleOptions
from tests.media import Movie, make_movie


@pytest.fixture
def decoder():
    with ClipDecoder(SampleOptions(), IsolationOptions()) as decoder:
        yield decoder


def test_a_good_clip_comes_back_whole(decoder, demo_clip):
    sample = decoder.decode(Clip("x", video=str(demo_clip)))
    assert sample.audio.startswith(b"fLaC")
    assert len(sample.frames) == 10
    assert all(jpeg.startswith(b"\xff\xd8") for jpeg in sample.frames)
    assert sample.num_samples == pytest.approx(16000, rel=0.1)


def test_a_child_forgets_the_pictures_of_its_clips(decoder, tmp_path):
    movie = Movie("large.mp4", width=1280, height=720, frames=20, audio_seconds=0.8)
    clip = Clip("x", video=str(make_movie(tmp_path, movie)))
    peaks = []
    for _ in range(12):
        decoder.decode(clip)
        peaks.append(decoder.usage.peak_bytes)
    assert peaks[-1] - peaks[2] < 20e6  # the pictures of one clip as they are decoded take 14 MB


def test_a_bad_clip_keeps_its_cause_across_the_pipe(decoder, tmp_path):
    with pytest.raises(DecodeError) as caught:
        decoder.decode(Clip("x", video=str(tmp_path / "nowhere.mp4")))
    assert caught.value.cause == "missing"
    assert "nowhere.mp4" in caught.value.detail


def test_a_killed_child_is_replaced_and_the_clip_succeeds(decoder, demo_clip):
    clip = Clip("x", video=str(demo_clip))
    expected = decoder.decode(clip)
    os.kill(decoder._child.pid, signal.SIGSEGV)
    time.sleep(0.05)
    assert decoder.decode(clip) == expected


@contextlib.contextmanager
def every_child_gets(signal_number: int, decoder: ClipDecoder) -> Iterator[None]:
    """Meanwhile each of the decoder's processes gets a signal before it can answer."""
    stop = threading.Event()

    def send() -> None:
        hit = None
        while not stop.wait(0.001):
            child = decoder._child
            if child is not None and child is not hit:
                os.kill(child.pid, signal_number)
                hit = child

    thread = threading.Thread(target=send)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()


def test_a_clip_whose_process_dies_twice_is_a_crash(decoder, demo_clip):
    clip = Clip("x", video=str(demo_clip))
    with every_child_gets(signal.SIGSEGV, decoder), pytest.raises(DecodeError) as caught:
        decoder.decode(clip)
    assert caught.value.cause == "crash"
    assert "SIGSEGV" in caught.value.detail
    assert decoder.decode(clip).num_samples > 0


def test_a_clip_whose_process_hangs_twice_is_a_timeout(demo_clip):
    clip = Clip("x", video=str(demo_clip))
    with ClipDecoder(SampleOptions(), IsolationOptions(time_limit=1.0)) as decoder:
        with every_child_gets(signal.SIGSTOP, decoder), pytest.raises(DecodeError) as caught:
            decoder.decode(clip)
        assert caught.value.cause == "timeout"
        assert "1 s" in caught.value.detail
        decoder.limits = IsolationOptions()  # a busy machine may take longer over a good clip
        assert decoder.decode(clip).num_samples > 0


def test_a_clip_that_needs_too_much_memory_is_out_of_memory(tmp_path):
    """A sparse file far larger than the limit, read whole by the packing code."""
    huge = tmp_path / "huge.wav"
    with huge.open("wb") as file:
        file.truncate(8 << 30)
    limits = IsolationOptions(memory_limit=0.5)
    with ClipDecoder(SampleOptions(), limits) as decoder:
        with pytest.raises(DecodeError) as caught:
            decoder.decode(Clip("huge", wav=str(huge), video_path=str(tmp_path)))
        assert caught.value.cause == "out-of-memory"


def test_the_child_is_gone_when_the_decoder_is_closed(demo_clip):
    with ClipDecoder(SampleOptions(), IsolationOptions()) as decoder:
        decoder.decode(Clip("x", video=str(demo_clip)))
        pid = decoder._child.pid
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)
