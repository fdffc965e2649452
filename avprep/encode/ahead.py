"""Samples of many clips: their videos are fetched while others are decoded."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Generator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextlib import ExitStack
from queue import SimpleQueue

from avprep.clips import Clip
from avprep.encode.process import ClipDecoder
from avprep.encode.wire import EncodedSample
from avprep.errors import DecodeError, Unreadable
from avprep.options import IsolationOptions, SampleOptions
from avprep.origins.fetch import LocalVideo, fetch_videos
from avprep.processes import check_stop, stopped_by

_AHEAD = 2  # clips per decoder that are fetched or decoded and not yet taken
_LOOK_SECONDS = 0.25  # how often a thread that waits looks whether it should go on waiting

Outcome = EncodedSample | Unreadable


def encode_clips(
    clips: Sequence[Clip],
    options: SampleOptions,
    limits: IsolationOptions,
    scratch_size: int,
    decoders: int,
) -> Generator[tuple[Clip, Outcome], None, None]:
    """Each clip with its sample, or with why there is none.

    They come in the order in which their videos can be read, which does not depend on how many
    decoders there are; see `fetch_videos`.

    Args:
        clips: with different ids.
        options: what their samples hold.
        limits: what one clip may cost before it is given up.
        scratch_size: bytes that fetched videos may take at a time.
        decoders: children that decode at a time.
    """
    stop = threading.Event()
    idle: SimpleQueue[ClipDecoder] = SimpleQueue()

    def encode(clip: Clip, video: LocalVideo) -> Outcome:
        decoder = idle.get()
        try:
            with stopped_by(stop):
                return decoder.decode(clip, video.path)
        except DecodeError as error:
            return error.outcome
        finally:
            idle.put(decoder)
            video.release()

    with ExitStack() as stack:
        for _ in range(decoders):
            idle.put(stack.enter_context(ClipDecoder(options, limits)))
        threads = stack.enter_context(ThreadPoolExecutor(decoders))
        stack.callback(stop.set)  # before the threads are waited for, and their children ended
        waiting: deque[tuple[Clip, Future[Outcome] | Unreadable]] = deque()
        for clip, video in fetch_videos(clips, scratch_size):
            waiting.append(
                (clip, video)
                if isinstance(video, Unreadable)
                else (clip, threads.submit(encode, clip, video))
            )
            if len(waiting) > _AHEAD * decoders:
                yield _taken(*waiting.popleft())
        while waiting:
            yield _taken(*waiting.popleft())


def _taken(clip: Clip, outcome: Future[Outcome] | Unreadable) -> tuple[Clip, Outcome]:
    if isinstance(outcome, Unreadable):
        return clip, outcome
    while not wait([outcome], _LOOK_SECONDS).done:
        check_stop()
    return clip, outcome.result()
