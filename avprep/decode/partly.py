"""A file of which only parts are there yet: whoever reads others asks for them first."""

from __future__ import annotations

import io
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from typing_extensions import Buffer

Ask = Callable[[int, int], None]  # first byte and number of bytes that are to be there

_BLOCK = 1 << 16  # bytes; what is asked for begins and ends with one
_ask: ContextVar[Ask | None] = ContextVar("ask", default=None)


@contextmanager
def partly_there(ask: Ask) -> Iterator[None]:
    """Within the block, media files are read through `ask`."""
    token = _ask.set(ask)
    try:
        yield
    finally:
        _ask.reset(token)


def open_media(path: str | Path) -> io.BufferedReader:
    """A media file, open for reading."""
    ask = _ask.get()
    return open(path, "rb") if ask is None else io.BufferedReader(PartFile(path, ask), _BLOCK)


def for_libav(path: str | Path) -> str | PartFile:
    """What libav may open: the file, or one that asks."""
    ask = _ask.get()
    # "file:" keeps a name such as "pipe:0.mp4" a file.
    return f"file:{path}" if ask is None else PartFile(path, ask)


def have_all(path: str | Path) -> None:
    """Have all of a media file there, for programs that open it themselves."""
    ask = _ask.get()
    if ask is not None:
        ask(0, os.path.getsize(path))


class PartFile(io.FileIO):
    """A file that asks for what is read of it, unless it was asked for before."""

    def __init__(self, path: str | Path, ask: Ask) -> None:
        super().__init__(str(path), "rb")
        self._ask = ask
        self._size = os.path.getsize(path)
        self._there: set[int] = set()

    def readinto(self, buffer: Buffer, /) -> int | None:
        """As any file's."""
        self._have(len(memoryview(buffer).cast("B")))
        return super().readinto(buffer)

    def read(self, size: int | None = -1, /) -> bytes:
        """As any file's."""
        self._have(self._size if size is None or size < 0 else size)
        return super().read(-1 if size is None else size)

    def _have(self, count: int) -> None:
        begin = self.tell()
        end = min(begin + count, self._size)
        missing = set(range(begin // _BLOCK, -(-end // _BLOCK))) - self._there
        if missing:
            first, last = min(missing), max(missing)
            self._ask(first * _BLOCK, (last + 1 - first) * _BLOCK)
            self._there |= missing
