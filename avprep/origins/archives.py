"""Tar and zip files, read from front to back: each byte about once; no name becomes a path."""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import stat
import struct
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import IO, Any

from avprep.errors import DecodeError, Unreadable
from avprep.origins.place import member_name
from avprep.processes import check_stop

_BLOCK = tarfile.BLOCKSIZE
_CHUNK = 1 << 20  # bytes read at a time
_FAR = 1 << 20  # bytes; less than that is read rather than sought over
_LONGEST_NAME = 1 << 20  # bytes of the records that hold long names
_DAMAGE = (zlib.error, lzma.LZMAError, tarfile.HeaderError, zipfile.BadZipFile, ValueError)
# How compressed tars begin; their names do not always say.
_COMPRESSED: dict[bytes, Callable[[Any], Any]] = {
    b"\x1f\x8b": lambda file: gzip.GzipFile(fileobj=file),
    b"BZh": bz2.BZ2File,
    b"\xfd7zXZ\0": lzma.LZMAFile,
}
_FILES = (tarfile.REGTYPE, tarfile.AREGTYPE, tarfile.CONTTYPE)
_PAX = (tarfile.XHDTYPE, tarfile.XGLTYPE, tarfile.SOLARIS_XHDTYPE)
_NAMES = (tarfile.GNUTYPE_LONGNAME, tarfile.GNUTYPE_LONGLINK)


@dataclass(frozen=True)
class Member:
    """Something in an archive.

    Attributes:
        name: as `member_name` gives it.
        size: bytes, as the archive declares them.
        content: these bytes, to be taken before the next member is asked for; taking them raises
            DecodeError where the archive is damaged. Or why there are none: this is not a file.
        begin: the first of these bytes in the archive, where they lie there as they are.
    """

    name: str
    size: int
    content: Iterator[bytes] | Unreadable
    begin: int | None = None


@contextmanager
def _causes() -> Iterator[None]:
    """Give what goes wrong in reading an archive its cause."""
    try:
        yield
    except EOFError as error:
        raise DecodeError("truncated", str(error) or "is cut short") from error
    except (NotImplementedError, RuntimeError) as error:  # zip's ways to compress or encrypt
        raise DecodeError("unreadable", f"cannot be unpacked ({error})") from error
    except _DAMAGE as error:
        raise DecodeError("garbage", f"is damaged ({error})") from error
    except OSError as error:
        if error.errno is None:  # of a decompressor
            raise DecodeError("garbage", f"is damaged ({error})") from error
        raise DecodeError("unreadable", error.strerror or str(error)) from error


class _Front:
    """A file whose reader only goes forward; a file that ends too early is an error."""

    def __init__(self, file: io.BufferedReader) -> None:
        head = file.peek(8)
        opener = next(
            (found for start, found in _COMPRESSED.items() if head.startswith(start)), None
        )
        self._file: IO[bytes] = file if opener is None else opener(file)
        self.seeks = opener is None and file.seekable()
        self.position = 0
        self._fault: DecodeError | None = None

    def read(self, count: int) -> bytes:
        """Exactly `count` bytes.

        Raises:
            DecodeError: they are not there; nor is anything after them.
        """
        check_stop()
        if self._fault is not None:
            raise self._fault
        try:
            with _causes():
                data = self._read(count)
                self.position += len(data)
                if len(data) < count:
                    end = self.position
                    raise EOFError(f"is cut short: it ends after {end} bytes of its content")
        except DecodeError as error:
            self._fault = error
            raise
        return data

    def _read(self, count: int) -> bytes:
        try:
            return self._file.read(count)
        except EOFError:  # compressed data without an end
            return b""

    def chunks(self, count: int) -> Iterator[bytes]:
        """Exactly `count` bytes, in pieces."""
        while count:
            piece = self.read(min(count, _CHUNK))
            count -= len(piece)
            yield piece

    def skip_to(self, position: int) -> None:
        """Go forward."""
        if self.seeks and position - self.position > _FAR:
            self._file.seek(position - 1)  # a byte before: a seek past the end would not be noticed
            self.position = position - 1
        for _ in self.chunks(position - self.position):
            pass


def read_tar(file: io.BufferedReader, wanted: Collection[str]) -> Iterator[Member]:
    """The wanted members of a tar, compressed or not, in the order in which they lie in it.

    Args:
        file: at its beginning.
        wanted: names of members. When all were seen, the rest is not read; of several members with
            one name the first counts.

    Raises:
        DecodeError: the archive is cut or damaged, at a place after the members so far. The detail
            goes on from the archive's name.
    """
    with _causes():
        front, left = _Front(file), set(wanted)
        while left:
            header = _next_header(front)
            if header is None:
                return
            begin = front.position
            name = member_name(header.name)
            if name in left:
                left.discard(name)
                content = _content_of(header, front)
                yield Member(name, header.size, content, begin if front.seeks else None)
            if left:
                front.skip_to(begin + _padded(header.size if _has_content(header) else 0))


def _content_of(header: tarfile.TarInfo, front: _Front) -> Iterator[bytes] | Unreadable:
    if header.type in _FILES:
        return front.chunks(header.size)
    if header.islnk() or header.issym():
        return Unreadable("unreadable", f"is a link to {header.linkname!r}, not a file")
    kind = "a folder" if header.isdir() else "a device" if header.isdev() else "a sparse file"
    return Unreadable("unreadable", f"is {kind}, not an ordinary file")


def _next_header(front: _Front) -> tarfile.TarInfo | None:
    """The next member's header, with what records before it say; None at the archive's end."""
    said: dict[bytes, bytes] = {}
    while True:
        begin, block = front.position, front.read(_BLOCK)
        if not block.strip(b"\0"):
            return None
        try:
            header = tarfile.TarInfo.frombuf(block, "utf-8", "surrogateescape")
        except tarfile.HeaderError as error:
            raise ValueError(f"at byte {begin} of its content: {error}") from error
        if header.type not in (*_NAMES, *_PAX):
            break
        if not 0 <= header.size <= _LONGEST_NAME:
            raise ValueError(f"at byte {begin} of its content: a name of {header.size} bytes")
        record = front.read(_padded(header.size))[: header.size]
        if header.type == tarfile.GNUTYPE_LONGNAME:
            said[b"path"] = record.rstrip(b"\0")
        elif header.type in (tarfile.XHDTYPE, tarfile.SOLARIS_XHDTYPE):
            said |= _pax_keys(record)
    if b"path" in said:
        header.name = said[b"path"].decode("utf-8", "surrogateescape")
    header.size = int(said.get(b"size", header.size))
    if header.size < 0:
        raise ValueError(f"at byte {begin} of its content: a member of {header.size} bytes")
    if any(key.startswith(b"GNU.sparse.") for key in said):
        header.type = tarfile.GNUTYPE_SPARSE
    elif header.type == tarfile.GNUTYPE_SPARSE:
        has_more = block[482]
        while has_more:  # blocks that go on with the list of holes
            has_more = front.read(_BLOCK)[504]
    return header


def _pax_keys(record: bytes) -> dict[bytes, bytes]:
    """The keys of a pax header: lines of `LENGTH KEY=VALUE`, where values may hold line breaks."""
    keys: dict[bytes, bytes] = {}
    while record:
        length, _, _ = record.partition(b" ")
        line, record = record[: int(length)], record[int(length) :]
        if not line:
            raise ValueError("a pax header with a line of no length")
        key, _, value = line[len(length) + 1 : -1].partition(b"=")
        keys[key] = value
    return keys


def _has_content(header: tarfile.TarInfo) -> bool:
    """Whether a member's size says what follows its header."""
    return not (header.islnk() or header.issym() or header.isdev() or header.isdir())


def _padded(size: int) -> int:
    return -(-size // _BLOCK) * _BLOCK


def read_zip(file: io.BufferedReader, wanted: Collection[str]) -> Iterator[Member]:
    """The same of a zip; of several members with one name the last counts."""
    if not file.seekable():
        detail = "is a zip on a server without byte ranges; download it first"
        raise DecodeError("unreadable", detail)
    try:
        archive = zipfile.ZipFile(file)
    except zipfile.BadZipFile:
        file.seek(0)
        with _causes():
            yield from _read_zip_without_index(_Front(file), set(wanted))
        return
    with _causes(), archive:
        found = {member_name(info.filename): info for info in archive.infolist()}
        named = [(name, found[name]) for name in wanted if name in found]
        for name, info in sorted(named, key=lambda pair: pair[1].header_offset):
            yield Member(name, info.file_size, _fault_of(info) or _unzipped(archive, info))


# Signature, version, flags, method, time, checksum, two sizes, lengths of the name and of the rest.
_ZIP_HEADER = struct.Struct("<4s3H4x3I2H")
_ZIP64 = 0xFFFFFFFF  # a size that stands in the extra field


def _read_zip_without_index(front: _Front, wanted: set[str]) -> Iterator[Member]:
    """The members of a zip that has lost its end, by the headers before each."""
    while wanted:
        begin, head = front.position, front.read(_ZIP_HEADER.size)
        signature, _, flags, method, checksum, packed, size, length, extra = _ZIP_HEADER.unpack(
            head
        )
        if signature != b"PK\3\4":
            raise ValueError(f"its index is lost, and nothing begins at byte {begin}")
        name = member_name(front.read(length).decode("utf-8", "surrogateescape"))
        if flags & 9 or _ZIP64 in (packed, size):  # encrypted, or the size comes later
            raise EOFError(f"has lost its index, without which {name} cannot be read")
        content = front.position + extra
        front.skip_to(content)
        if name in wanted:
            wanted.discard(name)
            yield Member(name, size, _inflated(front, method, packed, size, checksum))
        front.skip_to(content + packed)


def _inflated(front: _Front, method: int, packed: int, size: int, checksum: int) -> Iterator[bytes]:
    """The content of a member, which may lie there as it is."""
    inflate = zlib.decompressobj(-zlib.MAX_WBITS)
    count = found = 0
    with _causes():
        if method not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
            raise NotImplementedError("its zip has lost its index")
        for packed_piece in front.chunks(packed):
            rest = packed_piece
            while rest and count <= size:
                piece = rest
                if method == zipfile.ZIP_DEFLATED:
                    piece = inflate.decompress(rest, _CHUNK)
                rest = inflate.unconsumed_tail
                count, found = count + len(piece), zlib.crc32(piece, found)
                yield piece
        if (count, found) != (size, checksum):
            raise zipfile.BadZipFile("another size or checksum than it should have")


def _fault_of(info: zipfile.ZipInfo) -> Unreadable | None:
    if info.flag_bits & 1:
        return Unreadable("protected", "is encrypted with a password")
    mode = stat.S_IFMT(info.external_attr >> 16)
    if info.is_dir() or mode not in (0, stat.S_IFREG):
        kind = "a folder" if info.is_dir() else "a link" if mode == stat.S_IFLNK else "a device"
        return Unreadable("unreadable", f"is {kind}, not an ordinary file")
    return None


def _unzipped(archive: zipfile.ZipFile, info: zipfile.ZipInfo) -> Iterator[bytes]:
    with _causes(), archive.open(info) as file:
        while piece := file.read(_CHUNK):
            check_stop()
            yield piece
