"""Life and signals of processes, and of the threads that wait for them.

A child ends with its parent, however that went. Signals reach every process of a terminal or of a
Slurm step, but only the one that the user started acts on them: it ends the others in order.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import re
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextvars import ContextVar
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import subprocess

_PARENT_POLL_SECONDS = 1.0

_stop: ContextVar[threading.Event] = ContextVar("stop")


def available_cores() -> int:
    """Cores this process may use, which a container or Slurm may have limited."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


class Stopped(Exception):
    """Nobody waits for this work any more."""


@contextlib.contextmanager
def stopped_by(event: threading.Event) -> Iterator[None]:
    """Let `check_stop`, called by this thread inside the block, look at an event.

    Raises:
        Stopped: it is set already.
    """
    token = _stop.set(event)
    try:
        check_stop()
        yield
    finally:
        _stop.reset(token)


def check_stop() -> None:
    """Give up work that nobody waits for any more; to be called often by whatever takes long.

    Python can interrupt only its main thread, so other threads have to look.

    Raises:
        Stopped: see `stopped_by`.
    """
    event = _stop.get(None)
    if event is not None and event.is_set():
        raise Stopped


@contextlib.contextmanager
def held(*signals: signal.Signals) -> Iterator[None]:
    """Signals wait for the end of the block, and processes started inside never hear of them."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, signals)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def interrupt_on_sigterm() -> Callable[[], bool]:
    """Let SIGTERM end this process as Ctrl-C does. A second one changes nothing any more.

    Returns:
        Says whether one has come: libraries not written in Python may turn the KeyboardInterrupt
        into an error of theirs.
    """
    has_come = False

    def interrupt(*_: object) -> None:
        nonlocal has_come
        has_come = True
        ignore_sigterm()
        raise KeyboardInterrupt

    signal.signal(signal.SIGTERM, interrupt)
    return lambda: has_come


def ignore_sigterm() -> None:
    """From here to the end of the process its exit code is to stay what it is."""
    signal.signal(signal.SIGTERM, signal.SIG_IGN)


@dataclass(frozen=True)
class Usage:
    """What a process has taken so far."""

    cpu_seconds: float = 0.0  # with those of its children that have ended
    peak_bytes: int = 0  # of memory

    def joined_by(self, other: Usage) -> Usage:
        """Of two processes, one after the other."""
        return Usage(self.cpu_seconds + other.cpu_seconds, max(self.peak_bytes, other.peak_bytes))


def usage(process: int) -> Usage:
    """What a process has taken; nothing where that is not known any more. Linux only."""
    folder = Path("/proc", str(process))
    try:
        after_name = (folder / "stat").read_text().rpartition(")")[2].split()
        status = (folder / "status").read_text()
    except OSError:  # it has ended
        return Usage()
    ticks = sum(map(int, after_name[11:15]))
    peak = re.search(r"^VmHWM:\s*(\d+) kB", status, re.MULTILINE)
    return Usage(ticks / os.sysconf("SC_CLK_TCK"), int(peak[1]) * 1024 if peak else 0)


def end_group(leader: subprocess.Popen[bytes]) -> None:
    """End a process that leads a group of its own, and whatever else is in that group."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(leader.pid, signal.SIGKILL)
    leader.wait()
    for stream in (leader.stdin, leader.stdout):
        if stream is not None:
            stream.close()


def end_with_parent(parent: int) -> None:
    """End this process when the one that started it is gone, however it went.

    A child is not notified when its parent is killed with SIGKILL. Linux can kill it then, even
    while a library holds every thread, and does when the thread that started it ends. Elsewhere,
    and if the parent was quicker, the child has to look.

    Args:
        parent: process id of the one that started this one.
    """
    if sys.platform == "linux":
        pr_set_pdeathsig = 1
        ctypes.CDLL(None).prctl(pr_set_pdeathsig, signal.SIGKILL)

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(_PARENT_POLL_SECONDS)
        os._exit(1)

    threading.Thread(target=watch, name="end-with-parent", daemon=True).start()
