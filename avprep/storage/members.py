"""What the headers of a tar or a zip say of its members; listing, reading and indexing ask here."""

from __future__ import annotations

import bz2
import contextlib
import gzip
import io
import lzma
import stat
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterator
from typing import IO, Any, NamedTuple, cast

from avprep.errors import Unreadable, UserError
from avprep.processes import check_stop

BLOCK = tarfile.BLOCKSIZE
FOLDER = Unreadable("unreadable", "is a folder, not an ordinary file")
_ZEROS = bytes(BLOCK)
_CHUNK = 1 << 20  # bytes read at a time
_LARGEST_RECORD = 1 << 20  # bytes; a longer name would be an attack on our memory
# Videos hardly compress; a file that unpacks to far more is made to keep us busy.
_MOST_UNPACKED = 1 << 30  # bytes
_MOST_TIMES = 100

# Types of members.
_FILES = frozenset((tarfile.REGTYPE, tarfile.AREGTYPE, tarfile.CONTTYPE))
_PAX = frozenset((tarfile.XHDTYPE, tarfile.SOLARIS_XHDTYPE))
_RECORDS = _PAX | {tarfile.XGLTYPE, tarfile.GNUTYPE_LONGNAME, tarfile.GNUTYPE_LONGLINK}
_LINKS = frozenset((tarfile.LNKTYPE, tarfile.SYMTYPE))
_DEVICES = frozenset((tarfile.CHRTYPE, tarfile.BLKTYPE, tarfile.FIFOTYPE))
_WITHOUT_CONTENT = _LINKS | _DEVICES | {tarfile.DIRTYPE}
_ZIP_METHODS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA)


class Compression(NamedTuple):
    """How a compressed file begins, by which it is known; its name does not always say."""

    magic: bytes
    unpacker: str  # the program that unpacks it
    opened: Callable[[Any], Any] | None  # None: it cannot be read here


COMPRESSIONS = (
    Compression(b"\x1f\x8b", "gunzip", lambda file: gzip.GzipFile(fileobj=file)),
    Compression(b"BZh", "bunzip2", bz2.BZ2File),
    Compression(b"\xfd7zXZ\0", "unxz", lzma.LZMAFile),
    Compression(b"\x28\xb5\x2f\xfd", "unzstd", None),
)


def compression_of(head: bytes) -> Compression | None:
    """How a file is compressed that begins with some bytes; None if it is not."""
    return next((found for found in COMPRESSIONS if head.startswith(found.magic)), None)


class TarMember(NamedTuple):  # made for every member of millions, for which a dataclass is slow
    """A member of a tar."""

    name: str  # as the tar spells it
    begin: int  # first byte of its headers
    start: int  # of its content
    size: int  # of its content; 0 where there is none
    fault: Unreadable | None  # why it is not an ordinary file

    @property
    def end(self) -> int:
        """The byte after its content."""
        return self.start + self.size


def tar_members(read_at: Callable[[int, int], bytes]) -> Iterator[TarMember]:
    """The members of a tar, in order; of tars put together, those of all.

    Args:
        read_at: gives exactly the bytes that are asked for by position and count, or raises
            EOFError. Positions never decrease.

    Raises:
        EOFError: the tar ends without an end mark.
        ValueError: there is no valid header where one should be.
    """
    at = 0
    while True:
        block, begin = read_at(at, BLOCK), at
        if block == _ZEROS:
            if (found := _behind_zeros(read_at, at + BLOCK)) is None:
                return
            block, begin = found
        at = begin
        said: dict[bytes, bytes] = {}
        while True:
            name, kind, size, target = _parsed(block, at)
            at += BLOCK
            if kind not in _RECORDS:
                break
            if not 0 <= size <= _LARGEST_RECORD:
                raise ValueError(f"a header of {size} bytes at byte {at}")
            record = read_at(at, size)
            at += padded(size)
            if kind == tarfile.GNUTYPE_LONGNAME:
                said[b"path"] = record.rstrip(b"\0")
            elif kind in _PAX:
                said |= _pax_keys(record)
            block = read_at(at, BLOCK)
        has_more = kind == tarfile.GNUTYPE_SPARSE and block[482]
        while has_more:  # blocks that continue the list of holes
            has_more, at = read_at(at, BLOCK)[504], at + BLOCK
        fault = None
        if said:
            if b"path" in said:
                name = said[b"path"].decode("utf-8", "surrogateescape")
            size = int(said.get(b"size", size))
            if any(key.startswith(b"GNU.sparse.") for key in said):
                kind = tarfile.GNUTYPE_SPARSE
        if kind not in _FILES:
            fault = _fault_of(kind, target)
            size *= kind not in _WITHOUT_CONTENT  # what else their headers may say
        if size < 0:
            raise ValueError(f"a member of {size} bytes at byte {begin}")
        yield TarMember(name, begin, at, size, fault)
        at += padded(size)


def _behind_zeros(read_at: Callable[[int, int], bytes], at: int) -> tuple[bytes, int] | None:
    """The next block that has more than zeros, and its place; None if they end the tar.

    More may follow an end mark where tars were put together, and where a file has a hole.
    """
    while True:
        try:
            block = read_at(at, BLOCK)
        except EOFError:
            return None
        if block != _ZEROS:
            return block, at
        at += BLOCK


def padded(size: int) -> int:
    """The bytes that a member's content takes in a tar."""
    return -(-size // BLOCK) * BLOCK


def _parsed(block: bytes, at: int) -> tuple[str, bytes, int, str]:
    """Name, type, size and link target by a header.

    The ordinary header of an ordinary file is read here, ten times as fast as by tarfile, which
    knows all others.
    """
    size, promised = block[124:135], block[148:154]
    if block[156:157] == tarfile.REGTYPE and size.isdigit() and promised.isdigit():
        # Adler-32's lower half is the sum of the bytes (modulo 65521) and 1.
        total = zlib.adler32(block[:148] + b"        " + block[156:]) & 0xFFFF
        if total == (int(promised, 8) + 1) % 65521:
            name = block[:100].partition(b"\0")[0]
            if block[345] and block[257:263] == b"ustar\0":
                name = block[345:500].partition(b"\0")[0] + b"/" + name
            return name.decode("utf-8", "surrogateescape"), tarfile.REGTYPE, int(size, 8), ""
    try:
        header = tarfile.TarInfo.frombuf(block, "utf-8", "surrogateescape")
    except tarfile.HeaderError as error:
        raise ValueError(f"no valid header at byte {at}: {error}") from error
    return header.name, header.type, header.size, header.linkname


def _fault_of(kind: bytes, target: str) -> Unreadable:
    """Why a member of some type is not a file."""
    if kind == tarfile.DIRTYPE:
        return FOLDER
    what = "a device" if kind in _DEVICES else "a sparse file"
    if kind in _LINKS:
        what = f"a link to {target!r}"
    return Unreadable("unreadable", f"is {what}, not an ordinary file")


def _pax_keys(record: bytes) -> dict[bytes, bytes]:
    """The keys of a pax header: lines of `LENGTH KEY=VALUE`, where values may hold line breaks."""
    keys: dict[bytes, bytes] = {}
    while record:
        length, _, _ = record.partition(b" ")
        line, record = record[: int(length)], record[int(length) :]
        if not line:
            raise ValueError("a pax header with an empty line")
        key, _, value = line[len(length) + 1 : -1].partition(b"=")
        keys[key] = value
    return keys


def zip_fault(info: zipfile.ZipInfo) -> Unreadable | None:
    """Why a member of a zip cannot be used."""
    mode = stat.S_IFMT(info.external_attr >> 16)
    if info.is_dir():
        return FOLDER
    if info.flag_bits & 1:
        return Unreadable("protected", "is encrypted with a password")
    if info.compress_type not in _ZIP_METHODS:
        return Unreadable("unreadable", "is compressed in a way that Python's zipfile cannot read")
    if mode not in (0, stat.S_IFREG):
        kind = "a link" if mode == stat.S_IFLNK else "a device"
        return Unreadable("unreadable", f"is {kind}, not an ordinary file")
    return None


class NoRanges(UserError):
    """The server of a file sends it from its beginning only."""


@contextlib.contextmanager
def needing_ranges() -> Iterator[None]:
    """Raises NoRanges where fsspec says it."""
    try:
        yield
    except ValueError as error:
        raise NoRanges from error


class Front:
    """A file that is read forward only, and unpacked on the way where it is compressed.

    Once reading has failed, it fails in the same way ever after.

    Args:
        file: at its beginning.

    Attributes:
        position: of the next byte of the unpacked content.
        seeks: whether content that is passed over need not be read.
    """

    def __init__(self, file: IO[bytes]) -> None:
        try:
            file.seek(1)  # a stream of fsspec's allows 0
            file.seek(0)
            self.seeks = True
        except (OSError, ValueError):  # ValueError: so says fsspec
            self.seeks = False
        if not isinstance(file, io.BufferedReader):
            file = io.BufferedReader(cast("io.RawIOBase", file), 2 * BLOCK)
        self._packed = file
        with needing_ranges():
            compression = compression_of(file.peek(8))
        self._file: IO[bytes] = self._packed
        if compression is not None:
            self.seeks = False
            if compression.opened is None:
                raise ValueError(f"compressed; unpack it with {compression.unpacker}")
            self._file = compression.opened(self._packed)
        self.position = 0
        self._fault: Exception | None = None

    def read(self, count: int) -> bytes:
        """Exactly `count` bytes.

        Raises:
            EOFError: there are fewer.
            ValueError: compressed content is damaged, or unpacks to far too much.
        """
        check_stop()
        if self._fault is not None:
            raise self._fault
        try:
            data = self._take(count)
            self.position += len(data)
            if len(data) < count:
                raise EOFError(f"is cut short: it ends after {self.position} bytes of its content")
            if self.position > _MOST_UNPACKED and self._unpacks_to_too_much():
                raise ValueError(
                    f"unpacks to over {_MOST_TIMES} times its size, which no video does"
                )
        except Exception as error:
            self._fault = error
            raise
        return data

    def _unpacks_to_too_much(self) -> bool:
        is_packed = self._file is not self._packed
        return is_packed and self.position > _MOST_TIMES * self._packed.tell()

    def _take(self, count: int) -> bytes:
        try:
            with needing_ranges():
                return self._file.read(count)
        except EOFError:  # compressed content without an end
            return b""
        except (zlib.error, lzma.LZMAError) as error:
            raise ValueError(str(error)) from error
        except OSError as error:
            if type(error) in (OSError, gzip.BadGzipFile) and error.errno is None:  # bz2, gzip
                raise ValueError(str(error)) from error
            raise

    def read_at(self, position: int, count: int) -> bytes:
        """As `read`, from a position that is not before the present one."""
        self.skip_to(position)
        return self.read(count)

    def chunks(self, count: int) -> Iterator[bytes]:
        """Exactly `count` bytes, in pieces."""
        while count:
            piece = self.read(min(count, _CHUNK))
            count -= len(piece)
            yield piece

    def skip_to(self, position: int) -> None:
        """Go forward."""
        if self.seeks and position > self.position:
            self._file.seek(position - 1)  # a byte before: a seek past the end would not be noticed
            self.position = position - 1
        for _ in self.chunks(position - self.position):
            pass
