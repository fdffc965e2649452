"""A file behind a URL, read by position; where the line is cut, reading resumes at that byte."""

from __future__ import annotations

import contextlib
import io
import re
from collections.abc import Callable
from http.client import HTTPException, HTTPResponse, InvalidURL
from typing import TYPE_CHECKING, Any, Protocol, TypeVar
from urllib.error import HTTPError
from urllib.parse import quote
from urllib.request import Request, urlopen

from avprep import storage
from avprep.errors import DecodeError, Unreadable, UserError
from avprep.processes import check_stop
from avprep.retries import attempts

if TYPE_CHECKING:
    from typing_extensions import Buffer

Result = TypeVar("Result")

_RETRIES = 3
_TIMEOUT = 30.0  # seconds without a byte after which an attempt is given up
_CHUNK = 1 << 20
_GONE, _REFUSED, _NO_SUCH_RANGE = (404, 410), (401, 403), 416
_PASSING = frozenset((408, 425, 429))  # of the 400s: a server that may do better later


class _Source(Protocol):
    """A way to read a file from any position.

    Attributes:
        size: bytes; None where the server does not say.
        seeks: whether a position can be reached without reading all that lies before it.
    """

    size: int | None
    seeks: bool

    def read_at(self, position: int, count: int) -> bytes:
        """Up to `count` bytes, and at least one unless the file ends there."""

    def read_part(self, position: int, count: int) -> bytes:
        """`count` bytes, asked for by themselves; fewer at the file's end."""

    def disconnect(self) -> None:
        """Close the connection; `read_at` opens another."""


class RemoteFile(io.RawIOBase):
    """A file behind a URL, for reading.

    Args:
        url: of the file.
        first: bytes that are asked for at first, of a file that may not be read in order; None for
            all of it.

    Raises:
        DecodeError: missing, unreadable, or unreachable: the network or the server failed at each
            of several attempts. Reading raises it, too. The detail continues the file's name.
    """

    def __init__(self, url: str, first: int | None = None) -> None:
        self._position = 0
        self._source: _Source | None = None
        is_http = url.startswith(("http://", "https://"))
        self._source = self._patiently(lambda: _Http(url, first) if is_http else _Stored(url))

    @property
    def size(self) -> int | None:
        """Bytes; None where the server does not say."""
        return self._opened().size

    def readable(self) -> bool:
        """It is for reading."""
        return True

    def seekable(self) -> bool:
        """Whether a position can be reached without reading all that lies before it."""
        return self._opened().seeks

    def tell(self) -> int:
        """The position of the next byte."""
        return self._position

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        """Go to a position; the server is asked when something is read there."""
        base = {io.SEEK_SET: 0, io.SEEK_CUR: self._position, io.SEEK_END: self.size or 0}[whence]
        self._position = max(base + offset, 0)
        return self._position

    def readinto(self, buffer: Buffer, /) -> int:
        """Read up to as much as fits; nothing at the file's end."""
        view = memoryview(buffer).cast("B")
        data = self._patiently(lambda: self._opened().read_at(self._position, len(view)))
        view[: len(data)] = data
        self._position += len(data)
        return len(data)

    def read_part(self, position: int, count: int) -> bytes:
        """`count` bytes, asked for by themselves; fewer at the file's end."""
        return self._patiently(lambda: self._opened().read_part(position, count))

    def close(self) -> None:
        """Close the connection."""
        if not self.closed and self._source is not None:
            self._source.disconnect()
        super().close()

    def _opened(self) -> _Source:
        assert self._source is not None
        return self._source

    def _patiently(self, work: Callable[[], Result]) -> Result:
        """What some work with the network returns, after several attempts if need be."""
        failure: Exception | None = None
        for _ in attempts(_RETRIES):
            check_stop()
            try:
                return work()
            except UserError:
                raise
            except Exception as error:  # fsspec's stores have no one type for "the network failed"
                outcome = _permanent(error)
                if outcome is not None:
                    raise DecodeError(outcome.cause, outcome.detail) from error
                failure = error
                if self._source is not None:
                    self._source.disconnect()
        detail = f"cannot be reached ({_named(failure)}), tried {_RETRIES + 1} times"
        raise DecodeError("unreachable", detail) from failure


def _permanent(error: Exception) -> Unreadable | None:
    """What to say of an error that another attempt will not mend; None for others."""
    if isinstance(error, HTTPError):
        if error.code in _GONE:
            return Unreadable("missing", f"is not on its server ({_named(error)})")
        if error.code in _REFUSED:
            return Unreadable("unreadable", f"may not be read ({_named(error)})")
        is_ours = 400 <= error.code < 500 and error.code not in _PASSING
        return (
            Unreadable("unreadable", f"is refused by its server ({_named(error)})")
            if is_ours
            else None
        )
    if isinstance(error, FileNotFoundError):
        return Unreadable("missing", "is not in its store")
    if isinstance(error, IsADirectoryError):
        return Unreadable("unreadable", "is a folder")
    if isinstance(error, PermissionError):
        return Unreadable("unreadable", f"may not be read ({error})")
    if isinstance(error, InvalidURL | UnicodeError | _Changed):
        return Unreadable("unreadable", str(error))
    return None


def _named(error: Exception | None) -> str:
    """An error in one line."""
    if isinstance(error, HTTPError):
        return f"HTTP {error.code} {error.reason}"
    return " ".join(f"{type(error).__name__}: {error}".split())


class _Changed(Exception):
    """The file is another one than when reading it began."""


class _Http:
    """A file on a web server: one request for all that is read in order."""

    def __init__(self, url: str, first: int | None) -> None:
        self._url = quote(url, safe="%/:=&?~#+!$,;'@()*[]")
        self._response: HTTPResponse | None = None
        self._position = 0  # of the next byte of the response
        self._end: int | None = None  # of the response
        self.size: int | None = None
        self.seeks = True
        self._tag = ""
        self._connect(0, first)

    def read_at(self, position: int, count: int) -> bytes:
        self._go_to(position, None)
        return self._read(count)

    def read_part(self, position: int, count: int) -> bytes:
        self._go_to(position, count)
        data = b""
        while len(data) < count and (piece := self._read(count - len(data))):
            data += piece
        return data

    def disconnect(self) -> None:
        if self._response is not None:
            self._response.close()
            self._response = None

    def _go_to(self, position: int, count: int | None) -> None:
        """Have a response of which the next byte is at a position."""
        is_near = 0 <= position - self._position < _CHUNK
        is_in = self._end in (None, self.size) or position + (count or 1) <= (self._end or 0)
        if self._response is None or not (is_near and is_in):
            self.disconnect()
            self._connect(position, count)
        while self._position < position and self._read(min(position - self._position, _CHUNK)):
            pass

    def _read(self, count: int) -> bytes:
        check_stop()
        if self._response is None:  # past the end
            return b""
        data = self._response.read(count)
        self._position += len(data)
        if count and not data and self._position < (self._end or 0):
            raise HTTPException(f"the answer ended at byte {self._position} of {self._end}")
        return data

    def _connect(self, position: int, count: int | None) -> None:
        """Ask for some bytes, or all from a position; a server without ranges sends the file."""
        last = "" if count is None else position + count - 1
        headers = {"Range": f"bytes={position}-{last}", "Accept-Encoding": "identity"}
        try:
            response = urlopen(Request(self._url, headers=headers), timeout=_TIMEOUT)
        except HTTPError as error:
            if error.code != _NO_SUCH_RANGE:
                raise
            self._position = position  # the file ends before; there is nothing to read
            self.size = self.size or 0
            return
        content_range = response.headers.get("Content-Range", "")
        match = re.fullmatch(r"bytes (\d+)-(\d+)/(\d+|\*)", content_range)
        length = match[3] if match else response.headers.get("Content-Length", "")
        size = int(length) if length.isdigit() else None
        tag = response.headers.get("ETag", "")
        if position and (size, tag) != (self.size, self._tag):
            response.close()
            raise _Changed("has changed since reading it began")
        self.size, self._tag, self.seeks = size, tag, match is not None
        self._response, self._position = response, int(match[1]) if match else 0
        self._end = int(match[2]) + 1 if match else size


class _Stored:
    """A file in any other store that fsspec knows."""

    def __init__(self, url: str) -> None:
        self._url = url
        self._file: Any = storage.open_remote(url)
        self.size: int | None = getattr(self._file, "size", None)
        self.seeks = bool(self._file.seekable())

    def read_at(self, position: int, count: int) -> bytes:
        if self._file is None:
            self._file = storage.open_remote(self._url)
        self._file.seek(position)
        data: bytes = self._file.read(count)
        return data

    read_part = read_at

    def disconnect(self) -> None:
        if self._file is not None:
            with contextlib.suppress(Exception):  # nothing was written that could be lost
                self._file.close()
            self._file = None
