"""Samples of many clips, or their lengths: their videos are fetched while others are decoded."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Generator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextlib import ExitStack
from queue import SimpleQueue
from typing import TypeVar

from avprep.clips import Clip
from avprep.encode.process import ClipDecoder, Fill
from avprep.encode.wire import EncodedSample
from avprep.errors import DecodeError, Unreadable
from avprep.options import IsolationOptions, SampleOptions
from avprep.origins.fetch import LocalVideo, fetch_videos
from avprep.processes import check_stop, stopped_by

_AHEAD = 2  # clips per decoder that are fetched or decoded and not yet taken
_LOOK_SECONDS = 0.25  # how often a thread that waits looks whether it should go on waiting

Answer = TypeVar("Answer", EncodedSample, float)


def encode_clips(
    clips: Sequence[Clip],
    options: SampleOptions,
    limits: IsolationOptions,
    decoders: int,
) -> Generator[tuple[Clip, EncodedSample | Unreadable], None, None]:
    """Each clip with its sample, or with why there is none.

    They come in the order in which their videos can be read, which does not depend on how many
    decoders there are; see `fetch_videos`.

    Args:
        clips: with different ids.
        options: what their samples hold.
        limits: what one clip may cost before it is given up.
        decoders: children that decode at a time.
    """
    children = [ClipDecoder(options, limits) for _ in range(decoders)]
    return _answers(clips, children, ClipDecoder.decode, limits.scratch_size)


def measure_clips(
    clips: Sequence[Clip], limits: IsolationOptions, decoders: int
) -> Generator[tuple[Clip, float | Unreadable], None, None]:
    """Each clip with the seconds that its whole video lasts; as `encode_clips` otherwise."""
    children = [ClipDecoder(SampleOptions(), limits) for _ in range(decoders)]
    return _answers(clips, children, ClipDecoder.length_of, limits.scratch_size)


def _answers(
    clips: Sequence[Clip],
    decoders: Sequence[ClipDecoder],
    ask: Callable[[ClipDecoder, Clip, str, Fill | None], Answer],
    scratch_size: int,
) -> Generator[tuple[Clip, Answer | Unreadable], None, None]:
    """Each clip with what a decoder says of it."""
    stop = threading.Event()
    idle: SimpleQueue[ClipDecoder] = SimpleQueue()

    def answer(clip: Clip, video: LocalVideo) -> Answer | Unreadable:
        decoder = idle.get()
        try:
            with stopped_by(stop):
                return ask(decoder, clip, video.path, video.fill)
        except DecodeError as error:
            return error.outcome
        finally:
            idle.put(decoder)
            video.release()

    with ExitStack() as stack:
        for decoder in decoders:
            idle.put(stack.enter_context(decoder))
        threads = stack.enter_context(ThreadPoolExecutor(len(decoders)))
        stack.callback(stop.set)  # before the threads are waited for, and their children ended
        waiting: deque[tuple[Clip, Future[Answer | Unreadable] | Unreadable]] = deque()
        for clip, video in fetch_videos(clips, scratch_size):
            waiting.append(
                (clip, video)
                if isinstance(video, Unreadable)
                else (clip, threads.submit(answer, clip, video))
            )
            if len(waiting) > _AHEAD * len(decoders):
                yield _taken(*waiting.popleft())
        while waiting:
            yield _taken(*waiting.popleft())


def _taken(
    clip: Clip, outcome: Future[Answer | Unreadable] | Unreadable
) -> tuple[Clip, Answer | Unreadable]:
    if isinstance(outcome, Unreadable):
        return clip, outcome
    while not wait([outcome], _LOOK_SECONDS).done:
        check_stop()
    return clip, outcome.result()
