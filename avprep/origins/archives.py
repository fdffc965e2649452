"""Tar and zip files, read from front to back: each byte about once; no name becomes a path."""

from __future__ import annotations

import io
import lzma
import struct
import zipfile
import zlib
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from avprep.errors import DecodeError, Unreadable
from avprep.origins.place import member_name
from avprep.processes import check_stop
from avprep.storage.members import Front, tar_members, zip_fault

_CHUNK = 1 << 20  # bytes read at a time
_DAMAGE = (zlib.error, lzma.LZMAError, zipfile.BadZipFile, ValueError)


@dataclass(frozen=True)
class Member:
    """Something in an archive.

    Attributes:
        name: as `member_name` gives it.
        size: bytes, as the archive declares them.
        content: these bytes, to be taken before the next member is asked for; taking them raises
            DecodeError where the archive is damaged. Or why there are none: this is not a file.
        begin: the first of these bytes in the archive, if the archive stores them uncompressed.
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


def read_tar(file: io.BufferedReader, wanted: Collection[str]) -> Iterator[Member]:
    """The wanted members of a tar, compressed or not, in the order in which they lie in it.

    Args:
        file: at its beginning.
        wanted: names of members. When all were seen, the rest is not read; of several members with
            one name the first counts.

    Raises:
        DecodeError: the archive is cut or damaged, at a place after the members so far. The detail
            continues the archive's name.
    """
    with _causes():
        front, left = Front(file), set(wanted)
        for header in tar_members(front.read_at):
            name = member_name(header.name)
            if name in left:
                left.discard(name)
                content = header.fault or _taken(front, header.size)
                yield Member(name, header.size, content, header.start if front.seeks else None)
            if not left:
                return


def _taken(front: Front, size: int) -> Iterator[bytes]:
    with _causes():
        yield from front.chunks(size)


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
            yield from _read_zip_without_index(Front(file), set(wanted))
        return
    with _causes(), archive:
        found = {member_name(info.filename): info for info in archive.infolist()}
        named = [(name, found[name]) for name in wanted if name in found]
        for name, info in sorted(named, key=lambda pair: pair[1].header_offset):
            yield Member(name, info.file_size, zip_fault(info) or _unzipped(archive, info))


# Signature, version, flags, method, time, checksum, two sizes, lengths of the name and of the rest.
_ZIP_HEADER = struct.Struct("<4s3H4x3I2H")
_ZIP64 = 0xFFFFFFFF  # a size that stands in the extra field


def _read_zip_without_index(front: Front, wanted: set[str]) -> Iterator[Member]:
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


def _inflated(front: Front, method: int, packed: int, size: int, checksum: int) -> Iterator[bytes]:
    """The content of a member, which may be stored uncompressed."""
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


def _unzipped(archive: zipfile.ZipFile, info: zipfile.ZipInfo) -> Iterator[bytes]:
    with _causes(), archive.open(info) as file:
        while piece := file.read(_CHUNK):
            check_stop()
            yield piece
