"""Clips are decoded in a process of their own, so that a bad one costs only itself.

libav can crash on a hostile file, loop on it, or ask for all memory. A worker therefore hands
each clip to a child process over a pipe and watches it: a child that dies or exceeds the time
limit is replaced, the clip is tried once more alone in the fresh child, and then recorded as
failed. Frames on the pipe are a JSON header and raw bytes; nothing is pickled.
"""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import selectors
import signal
import struct
import subprocess
import sys
import threading
import time
from dataclasses import asdict, fields
from types import TracebackType
from typing import IO

from avprep.clips import Clip
from avprep.encoded import EncodedSample
from avprep.errors import DecodeError
from avprep.options import IsolationOptions, SampleOptions

_LENGTH = struct.Struct("<Q")
_PARENT_POLL_SECONDS = 1.0
_PAYLOADS = ("audio", "frames")  # fields of a sample that are messages of their own
_FACTS = tuple(
    one.name for one in fields(EncodedSample) if one.name not in (*_PAYLOADS, "frame_times")
)


class _ChildDied(Exception):
    """The child ended without an answer; holds its exit status."""


class IsolatedEncoder:
    """`encode_clip` with a time limit, a memory limit and a life of its own.

    Use as a context manager; the child starts with the first clip and is reused.
    """

    def __init__(self, options: SampleOptions, limits: IsolationOptions) -> None:
        self.options = options
        self.limits = limits
        self._child: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> IsolatedEncoder:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """End the child; the next clip starts another."""
        self._stop()

    def encode(self, clip: Clip) -> EncodedSample:
        """Encode one clip.

        Raises:
            DecodeError: the clip failed, crashed its process twice, or ran out of time twice.
        """
        try:
            return self._attempt(clip)
        except (_ChildDied, TimeoutError):
            self._stop()  # whatever the child's earlier clips left behind is gone with it
        try:
            return self._attempt(clip)
        except TimeoutError:
            self._stop()
            limit = f"{self.limits.time_limit:g} s"
            raise DecodeError(
                "timeout", f"{clip.video or clip.wav}: not done within {limit}, tried twice"
            ) from None
        except _ChildDied as death:
            self._stop()
            raise _cause_of_death(clip, death.args[0], self.limits) from None

    def _attempt(self, clip: Clip) -> EncodedSample:
        child = self._child or self._start()
        deadline = time.monotonic() + self.limits.time_limit
        request = json.dumps({"clip": asdict(clip), "options": asdict(self.options)}).encode()
        assert child.stdin is not None
        try:
            write_message(child.stdin, request)
            reply = json.loads(self._receive(child, deadline))
            payloads = [self._receive(child, deadline) for _ in range(reply.get("payloads", 0))]
        except (BrokenPipeError, EOFError):
            raise _ChildDied(child.wait()) from None
        if "cause" in reply:
            raise DecodeError(reply["cause"], reply["detail"])
        return EncodedSample(
            audio=payloads[0],
            frames=tuple(payloads[1:]),
            frame_times=tuple(reply["frame_times"]),
            **{name: reply[name] for name in _FACTS},
        )

    def _receive(self, child: subprocess.Popen[bytes], deadline: float) -> bytes:
        assert child.stdout is not None
        descriptor = child.stdout.fileno()
        with selectors.DefaultSelector() as selector:
            selector.register(descriptor, selectors.EVENT_READ)

            def read_exactly(count: int) -> bytes:
                buffer = bytearray()
                while len(buffer) < count:
                    if not selector.select(max(0.0, deadline - time.monotonic())):
                        raise TimeoutError
                    piece = os.read(descriptor, min(count - len(buffer), 1 << 20))
                    if not piece:
                        raise EOFError
                    buffer += piece
                return bytes(buffer)

            return read_exactly(_LENGTH.unpack(read_exactly(_LENGTH.size))[0])

    def _start(self) -> subprocess.Popen[bytes]:
        environment = {
            **os.environ,
            # The child sees the same packages, and never one that lies in the current folder.
            "PYTHONPATH": os.pathsep.join(entry for entry in sys.path if entry),
            "PYTHONSAFEPATH": "1",
        }
        self._child = subprocess.Popen(
            [
                *(sys.executable, "-m", "avprep.decode_server"),
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

    def _stop(self) -> None:
        if self._child is None:
            return
        # The child leads a group of its own, in which there may be an ffmpeg.
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._child.pid, signal.SIGKILL)
        self._child.wait()
        for stream in (self._child.stdin, self._child.stdout):
            if stream is not None:
                stream.close()
        self._child = None


def _cause_of_death(clip: Clip, status: int, limits: IsolationOptions) -> DecodeError:
    path = clip.video or clip.wav
    if status == -signal.SIGKILL:
        return DecodeError(
            "out-of-memory",
            f"{path}: its process was killed by the system, tried twice "
            f"(limit {limits.memory_limit:g} GiB a worker)",
        )
    how = signal.Signals(-status).name if status < 0 else f"exit status {status}"
    return DecodeError("crash", f"{path}: its process died ({how}), tried twice")


def write_message(stream: IO[bytes], payload: bytes) -> None:
    """Write one length-prefixed message to a raw (unbuffered) pipe."""
    view = memoryview(_LENGTH.pack(len(payload)) + payload)
    while view:
        view = view[stream.write(view) :]


def read_message(stream: IO[bytes]) -> bytes | None:
    """Read one message; None at the end of the stream."""
    head = _read_exactly(stream, _LENGTH.size)
    return None if head is None else _read_exactly(stream, _LENGTH.unpack(head)[0])


def _read_exactly(stream: IO[bytes], count: int) -> bytes | None:
    buffer = bytearray()
    while len(buffer) < count:
        piece = stream.read(count - len(buffer))
        if not piece:
            return None
        buffer += piece
    return bytes(buffer)


def exit_with_parent(parent: int) -> None:
    """End this process when the one that started it is gone, however it went.

    A worker whose parent was killed with SIGKILL is told nothing; it has to look.

    Args:
        parent: process id of the one that started this one (it may be gone already).
    """

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(_PARENT_POLL_SECONDS)
        os._exit(1)

    threading.Thread(target=watch, name="exit-with-parent", daemon=True).start()


def ask_kernel_to_end_with_parent() -> None:
    """The same by Linux's own means, which works also while libav holds every thread."""
    if sys.platform == "linux":
        pr_set_pdeathsig = 1
        ctypes.CDLL(None).prctl(pr_set_pdeathsig, signal.SIGKILL)


def reply_to(outcome: EncodedSample | DecodeError) -> list[bytes]:
    """The messages that answer one request: a header, then the payloads it announces."""
    if isinstance(outcome, DecodeError):
        return [json.dumps({"cause": outcome.cause, "detail": outcome.detail}).encode()]
    header = {
        "payloads": 1 + len(outcome.frames),
        "frame_times": outcome.frame_times,
        **{name: getattr(outcome, name) for name in _FACTS},
    }
    return [json.dumps(header).encode(), outcome.audio, *outcome.frames]
