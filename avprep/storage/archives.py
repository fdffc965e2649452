"""What lies in a tar, plain or gzipped, or a zip: listed from its headers, nothing is unpacked."""

from __future__ import annotations

import contextlib
import os
import re
import stat
import tarfile
import zipfile
import zlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import PurePosixPath
from typing import IO, cast

from avprep.errors import UserError
from avprep.storage.places import is_chained, is_url, join, list_files, open_to_read

ARCHIVE_SUFFIXES = (".tar", ".tar.gz", ".tgz", ".zip")
_OTHERS = re.compile(r".+\.(tar\.\w+|tbz2?|txz|7z|rar)", re.IGNORECASE | re.DOTALL)
_GZIP = b"\x1f\x8b"
_GZIP_FORMAT = 31  # of zlib
_PIECE = 4 << 20  # bytes read at a time
_LARGEST_READ = 16 << 20  # bytes of a header or a kept text; more would be an attack on our memory
# Videos hardly compress; a file that unpacks to far more is made to keep us busy.
_MOST_UNPACKED = 1 << 30  # bytes
_MOST_TIMES = 100
_METHODS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA)


@dataclass
class Listing:
    """What an archive holds.

    Attributes:
        names: of its files, in its order, as it spells them.
        lost: (name, reason) of the members that cannot be used.
        damage: why there may have been more; empty for a whole archive.
        texts: content of the small files that were asked for, by name.
    """

    names: list[str] = field(default_factory=list)
    lost: list[tuple[str, str]] = field(default_factory=list)
    damage: str = ""
    texts: dict[str, bytes] = field(default_factory=dict)

    def add(self, name: str, reason: str) -> bool:
        """Note a member, with the reason if it cannot be used; returns whether it can."""
        reason = reason or _fault_of(name)
        if reason:
            self.lost.append((name, reason))
        else:
            self.names.append(name)
        return not reason


def archive_scheme(place: str) -> str:
    """The scheme of URLs of files in an archive, by its name: `tar` or `zip`; "" for others.

    Raises:
        UserError: an archive of another kind, or one whose name cannot be part of such a URL.
    """
    name = place.lower()
    if not name.endswith(ARCHIVE_SUFFIXES):
        if _OTHERS.fullmatch(place):
            raise UserError(
                f"{place}: is an archive of a kind that is not read. Unpack it, or pack it again "
                f"as one of {', '.join(ARCHIVE_SUFFIXES)}."
            )
        return ""
    if "::" in place:
        raise UserError(
            f"{place}: the name of an archive must not contain '::', which separates the parts of "
            "a URL. Rename it."
        )
    return "zip" if name.endswith(".zip") else "tar"


def is_archive(place: str) -> bool:
    """Whether a path or URL is of an archive."""
    return not os.path.isdir(place) and bool(archive_scheme(place))


def list_archive(place: str, keep: str = "") -> Listing:
    """Every file in an archive; of a damaged one, the files before the damage.

    A name that an archive has twice counts once, since the later file replaces the earlier one.

    Args:
        place: path or URL of the archive.
        keep: suffix of the small files whose content is wanted, too; "" for none.

    Raises:
        FileNotFoundError: there is no such file.
        UserError, WorkFailed: it cannot be opened.
    """
    is_zip = archive_scheme(place) == "zip"
    try:
        with open_to_read(place) as file:
            listing = (_list_zip if is_zip else list_tar)(file, keep)
    except _NoRanges:
        if is_zip:
            raise UserError(
                f"{place}: is a zip, whose list is at its end, on a server that gives no ranges of "
                "bytes. Download it first."
            ) from None
        with open_to_read(place, block_size=0) as file:  # from front to back
            listing = list_tar(file, keep)
    listing.names = list(dict.fromkeys(listing.names))
    return listing


class _NoRanges(UserError):
    """The server of a file sends it from its beginning only."""


@contextlib.contextmanager
def _needing_ranges() -> Iterator[None]:
    try:
        yield
    except ValueError as error:  # so says fsspec
        raise _NoRanges from error


def present(places: Iterable[str]) -> set[str]:
    """Those of some paths and URLs where a file is; folders and archives are listed once each.

    What is not looked at is believed: files on web servers, which would take a request each, and
    files in archives of a kind that is not listed.

    Raises:
        UserError, WorkFailed: a place cannot be read.
    """
    asked: dict[str, list[str]] = {}  # by folder or archive
    found: set[str] = set()
    for place in places:
        if is_chained(place):
            asked.setdefault(place.rpartition("::")[2], []).append(place)
        elif place.startswith(("http://", "https://")):
            found.add(place)
        elif is_url(place):
            asked.setdefault(place.rpartition("/")[0], []).append(place)
        elif os.path.isfile(place):
            found.add(place)
    for top, inside in asked.items():
        if is_chained(inside[0]) and _OTHERS.fullmatch(top):
            found.update(inside)
        elif is_chained(inside[0]):
            with contextlib.suppress(FileNotFoundError):
                names = {os.path.normpath(name) for name in list_archive(top).names}
                found.update(place for place in inside if _member_of(place) in names)
        else:
            sizes = list_files(top)
            found.update(join(top, name) for name in sizes if sizes[name] >= 0)
    return found


def _member_of(place: str) -> str:
    """`v/a.mp4` of `tar://./v/a.mp4::x.tar`."""
    return os.path.normpath(place.partition("://")[2].rpartition("::")[0])


def _fault_of(name: str) -> str:
    """Why a file of this name cannot be used; "" if it can."""
    if name.startswith("/") or ".." in PurePosixPath(name).parts:
        return "its name leads out of the archive"
    return "its name contains '::', which separates the parts of a URL" if "::" in name else ""


def _is_kept(name: str, suffix: str) -> bool:
    return bool(suffix) and name.lower().endswith(suffix)


def _list_zip(file: IO[bytes], keep: str) -> Listing:
    listing = Listing()
    try:
        with _needing_ranges():
            archive = zipfile.ZipFile(file)
    except (zipfile.BadZipFile, NotImplementedError, EOFError) as error:
        listing.damage = f"is not a whole zip ({error})"
        return listing
    for member in archive.infolist():
        if member.is_dir():
            continue
        kind = stat.S_IFMT(member.external_attr >> 16)
        reason = "is a link or a device" if kind not in (0, stat.S_IFREG) else ""
        if member.flag_bits & 1:
            reason = "is encrypted"
        elif member.compress_type not in _METHODS:
            reason = "is compressed in a way that Python's zipfile cannot read"
        if not (listing.add(member.filename, reason) and _is_kept(member.filename, keep)):
            continue
        try:
            with archive.open(member) as text:
                listing.texts[member.filename] = text.read(_LARGEST_READ)
        except (zipfile.BadZipFile, zlib.error, EOFError, OSError) as error:
            listing.lost.append((member.filename, f"cannot be read ({error})"))
    return listing


def list_tar(file: IO[bytes], keep: str) -> Listing:
    """Every file in a tar that is open at its beginning."""
    listing, content, last = Listing(), _TarBytes(file), None
    try:
        with tarfile.open(fileobj=cast("IO[bytes]", content), mode="r:") as archive:
            for member in archive:
                last = member
                if member.isdir():
                    continue
                reason = "" if member.isreg() else "is a link or a device"
                if member.issparse():
                    reason = "is a sparse file"
                if listing.add(member.name, reason) and _is_kept(member.name, keep):
                    text = archive.extractfile(member)
                    listing.texts[member.name] = text.read(_LARGEST_READ) if text else b""
        listing.damage = content.fault or content.fault_of_end(last is None)
    except (tarfile.TarError, EOFError, ValueError, OverflowError) as error:
        listing.damage = content.fault or (f"is damaged ({error})" if last else "is not a tar")
    if last is not None and listing.damage and content.ends_before(last):
        listing.damage = f"was cut within {last.name}"
        if last.name in listing.names:
            listing.names.remove(last.name)
            listing.lost.append((last.name, "is cut"))
            listing.texts.pop(last.name, None)
    return listing


class _TarBytes:
    """The bytes of a tar from front to back, unpacked on the way where it is gzipped.

    All that tarfile needs of a file, but it ends where a damaged gzip file does and says so in
    `fault`, and it refuses to hold a header of any size in memory.
    """

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file
        self._place = 0
        self._ahead = file.read(len(_GZIP))  # read, and not taken yet
        self._unpacker = zlib.decompressobj(_GZIP_FORMAT) if self._ahead == _GZIP else None
        self._packed = self._ahead if self._unpacker else b""  # read, and not unpacked yet
        self._packed_size = 0
        self._last_block = b""
        self.fault = ""
        self._seeks = False
        if self._unpacker:
            self._ahead = b""
        else:
            with contextlib.suppress(OSError, ValueError):  # a server that gives no ranges
                file.seek(0)
                self._ahead, self._seeks = b"", True

    def tell(self) -> int:
        return self._place

    def seek(self, place: int) -> int:
        """Go forward, as far as there are bytes."""
        if self._seeks:
            self._place = self._file.seek(place)
        while self._place < place and self._take(min(place - self._place, _PIECE)):
            pass
        return self._place

    def read(self, size: int) -> bytes:
        """That many bytes; fewer at the end.

        Raises:
            tarfile.ReadError: more than any header has.
        """
        if size > _LARGEST_READ:
            raise tarfile.ReadError(f"a header of {size} bytes, so nothing behind it is read")
        read = b""
        while len(read) < size and (piece := self._take(size - len(read))):
            read += piece
        if size == tarfile.BLOCKSIZE:
            self._last_block = read
        return read

    def fault_of_end(self, is_empty: bool) -> str:
        """What is wrong with the end of a tar, of which a header was the last thing read."""
        if len(self._last_block) == tarfile.BLOCKSIZE and not any(self._last_block):
            return ""
        if is_empty:
            return "is not a tar"
        if len(self._last_block) < tarfile.BLOCKSIZE:
            return "has no end mark, so it may have been cut"
        return f"has no valid header at byte {self._place - tarfile.BLOCKSIZE}"

    def ends_before(self, member: tarfile.TarInfo) -> bool:
        """Whether the data of a member is not whole."""
        end = member.offset_data + (0 if member.issparse() else member.size)
        if self._seeks:
            return self._file.seek(0, os.SEEK_END) < end
        return self.seek(end) < end

    def _take(self, size: int) -> bytes:
        """Some bytes; empty at the end."""
        if not self._ahead:
            self._ahead = self._unpacked() if self._unpacker else self._read(size)
        taken, self._ahead = self._ahead[:size], self._ahead[size:]
        self._place += len(taken)
        return taken

    def _read(self, size: int) -> bytes:
        with _needing_ranges():
            return self._file.read(size)

    def _unpacked(self) -> bytes:
        """Some bytes of a gzip file, which may be several streams behind one another."""
        assert self._unpacker is not None
        while not self.fault:
            if self._unpacker.eof:
                self._packed = self._packed.lstrip(b"\0") or self._read(_PIECE)
                if not self._packed.startswith(_GZIP[:1]):
                    return b""  # the end, or what gzip ignores
                self._unpacker = zlib.decompressobj(_GZIP_FORMAT)
            elif not self._packed:
                self._packed = self._read(_PIECE)
                self._packed_size += len(self._packed)
                if not self._packed:
                    self.fault = "is a gzip file that was cut"
                    return self._unpacker.flush()
            try:
                piece = self._unpacker.decompress(self._packed, _PIECE)
            except zlib.error as error:
                self.fault = f"is a damaged gzip file ({error})"
                return b""
            self._packed = self._unpacker.unconsumed_tail or self._unpacker.unused_data
            if self._place > max(_MOST_UNPACKED, _MOST_TIMES * self._packed_size):
                self.fault = f"unpacks to over {_MOST_TIMES} times its size, which no videos do"
            elif piece:
                return piece
        return b""
