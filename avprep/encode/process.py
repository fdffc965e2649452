"""The life of the child that makes samples, seen from the process that wants them.

libav can crash on a hostile file, loop on it, or ask for all memory. So each clip goes to a child
over a pipe, and the child is watched: one that dies or exceeds the time limit is replaced, the clip
is tried once more alone in the fresh child, and then recorded as failed.
"""

from __future__ import annotations

import os
import selectors
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace

from avprep.clips import Clip
from avprep.encode.wire import (
    EncodedSample,
    pack_request,
    read_message,
    unpack_answer,
    unpack_wish,
    write_message,
)
from avprep.errors import DecodeError, Unreadable
from avprep.options import IsolationOptions, SampleOptions
from avprep.processes import Usage, check_stop, end_group, usage

Fill = Callable[[int, int], None]  # first byte and number of bytes

_LOOK_SECONDS = 0.25  # how often a thread that waits looks whether it should go on waiting


class _ChildDied(Exception):
    """The child ended without an answer; holds its exit status."""


class ClipDecoder:
    """Decodes clips in a child process, with a time limit and a memory limit for each.

    Use as a context manager; the child starts with the first clip and is reused.
    """

    def __init__(self, options: SampleOptions, limits: IsolationOptions) -> None:
        self.options = options
        self.limits = limits
        self._child: subprocess.Popen[bytes] | None = None
        self._ended = Usage()

    def __enter__(self) -> ClipDecoder:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def close(self) -> None:
        """End the child; the next clip starts another."""
        if self._child is not None:
            self._ended = self.usage
            end_group(self._child)  # in which there may be an ffmpeg
            self._child = None

    @property
    def usage(self) -> Usage:
        """What the children have taken so far, but those that died by themselves."""
        return self._ended.joined_by(usage(self._child.pid)) if self._child else self._ended

    def decode(self, clip: Clip, path: str = "", fill: Fill | None = None) -> EncodedSample:
        """Make a clip's sample.

        Args:
            clip: whose.
            path: of the video where that is not `clip.video`; only messages name that then.
            fill: puts a part of the video into the file at `path`, where not all is there.

        Raises:
            DecodeError: the clip failed, crashed its process twice, or ran out of time twice.
        """
        answer = self._answer(clip, path, fill, self.options)
        assert isinstance(answer, EncodedSample)
        return answer

    def length_of(self, clip: Clip, path: str = "", fill: Fill | None = None) -> float:
        """Seconds of a clip's whole video; `path` and `fill` as for `decode`.

        Raises:
            DecodeError: as `decode` does.
        """
        answer = self._answer(clip, path, fill, None)
        assert isinstance(answer, float)
        return answer

    def _answer(
        self, clip: Clip, path: str, fill: Fill | None, options: SampleOptions | None
    ) -> EncodedSample | float:
        named = replace(clip, video=path) if path else clip
        request = pack_request(named, options, is_part=fill is not None)
        try:
            outcome = self._attempt(clip, request, fill)
        except (_ChildDied, TimeoutError):
            self.close()  # what the child's earlier clips left goes with it
            outcome = self._last_attempt(clip, request, fill)
        if isinstance(outcome, Unreadable):
            detail = outcome.detail.replace(path, clip.video) if path else outcome.detail
            raise DecodeError(outcome.cause, detail)
        return outcome

    def _last_attempt(
        self, clip: Clip, request: bytes, fill: Fill | None
    ) -> EncodedSample | float | Unreadable:
        try:
            return self._attempt(clip, request, fill)
        except TimeoutError:
            self.close()
            limit = f"{self.limits.time_limit:g} s"
            return Unreadable("timeout", f"{clip.file}: not done within {limit}, tried twice")
        except _ChildDied as death:
            self.close()
            return _cause_of_death(clip, death.args[0], self.limits)

    def _attempt(
        self, clip: Clip, request: bytes, fill: Fill | None
    ) -> EncodedSample | float | Unreadable:
        child = self._child or self._start()
        deadline = time.monotonic() + self.limits.time_limit
        assert child.stdin is not None
        assert child.stdout is not None
        descriptor = child.stdout.fileno()
        with selectors.DefaultSelector() as selector:
            selector.register(descriptor, selectors.EVENT_READ)

            def read(count: int) -> bytes:
                while not selector.select(min(deadline - time.monotonic(), _LOOK_SECONDS)):
                    check_stop()
                    if time.monotonic() >= deadline:
                        raise TimeoutError
                return os.read(descriptor, count)

            try:
                write_message(child.stdin, request)
                message = read_message(read)
                while fill is not None and (wish := unpack_wish(message)) is not None:
                    waiting = time.monotonic()
                    fill(*wish)
                    deadline += time.monotonic() - waiting  # the limit is for decoding
                    write_message(child.stdin, b"")
                    message = read_message(read)
                return unpack_answer(message, lambda: read_message(read))
            except (BrokenPipeError, EOFError):
                raise _ChildDied(child.wait()) from None
            except DecodeError as error:  # no more of the video is to be had
                self.close()  # for it still waits
                return Unreadable(error.cause, f"{clip.video}: {error.detail}")

    def _start(self) -> subprocess.Popen[bytes]:
        environment = {
            **os.environ,
            # The child sees the same packages, and never one that lies in the current folder.
            "PYTHONPATH": os.pathsep.join(entry for entry in sys.path if entry),
            "PYTHONSAFEPATH": "1",
            # glibc would give the memory of every picture back to the system, only to have it
            # cleared and mapped again for the next: 3 % of a clip's CPU time.
            "MALLOC_MMAP_THRESHOLD_": str(32 << 20),
            "MALLOC_TRIM_THRESHOLD_": str(64 << 20),
        }
        self._child = subprocess.Popen(
            [
                *(sys.executable, "-m", f"{__package__}.server"),
                *(str(self.limits.memory_limit), str(os.getpid())),
            ],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            bufsize=0,
            env=environment,
            start_new_session=True,  # Ctrl-C is for the parent, which ends the child in order
        )
        return self._child


def _cause_of_death(clip: Clip, status: int, limits: IsolationOptions) -> Unreadable:
    if status == -signal.SIGKILL:
        return Unreadable(
            "out-of-memory",
            f"{clip.file}: its process was killed by the system, tried twice "
            f"(limit {limits.memory_limit:g} GiB per worker)",
        )
    how = signal.Signals(-status).name if status < 0 else f"exit status {status}"
    return Unreadable("crash", f"{clip.file}: its process died ({how}), tried twice")
