"""What lies in a tar, compressed or not, or a zip: listed from its headers, nothing is kept."""

from __future__ import annotations

import contextlib
import os
import re
import zipfile
import zlib
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import PurePosixPath
from typing import IO

from avprep.errors import Unreadable, UserError
from avprep.storage.members import (
    FOLDER,
    Front,
    NoRanges,
    needing_ranges,
    tar_members,
    zip_fault,
)
from avprep.storage.places import is_chained, is_url, join, list_files, open_to_read

ARCHIVE_SUFFIXES = (
    *(".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tbz", ".tbz2", ".tar.xz", ".txz"),
    ".zip",
)
_OTHERS = re.compile(r".+\.(tar\.\w+|7z|rar)", re.IGNORECASE | re.DOTALL)
_LARGEST_TEXT = 16 << 20  # bytes; more would be an attack on our memory


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

    def add(self, name: str, fault: Unreadable | None) -> bool:
        """Note a member, with the reason if it cannot be used; returns whether it can."""
        if fault is FOLDER:
            return False
        reason = fault.detail if fault else _fault_of(name)
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
    except NoRanges:
        if is_zip:
            raise UserError(
                f"{place}: is a zip on a server that does not support range requests, and a zip's "
                "index is at its end. Download it first."
            ) from None
        with open_to_read(place, block_size=0) as file:  # from front to back
            listing = list_tar(file, keep)
    listing.names = list(dict.fromkeys(listing.names))
    return listing


def present(places: Iterable[str]) -> set[str]:
    """Those of some paths and URLs where a file is; folders and archives are listed once each.

    Files on web servers, which would take a request each, are not looked for but believed.

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
        if is_chained(inside[0]):
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
        with needing_ranges():
            archive = zipfile.ZipFile(file)
    except (zipfile.BadZipFile, NotImplementedError, EOFError) as error:
        listing.damage = f"is not a whole zip ({error})"
        return listing
    for member in archive.infolist():
        name = member.filename
        if listing.add(name, zip_fault(member)) and _is_kept(name, keep):
            try:
                with archive.open(member) as text:
                    listing.texts[name] = text.read(_LARGEST_TEXT)
            except (zipfile.BadZipFile, zlib.error, EOFError, OSError) as error:
                listing.lost.append((name, f"cannot be read ({error})"))
    return listing


def list_tar(file: IO[bytes], keep: str) -> Listing:
    """Every file in a tar, compressed or not, that is open at its beginning."""
    listing, last, front = Listing(), None, None
    try:
        front = Front(file)
        for member in tar_members(front.read_at):
            last = member
            if listing.add(member.name, member.fault) and _is_kept(member.name, keep):
                size = min(member.size, _LARGEST_TEXT)
                listing.texts[member.name] = front.read_at(member.start, size)
            front.skip_to(member.end)
    except (EOFError, ValueError) as error:
        is_cut = isinstance(error, EOFError)
        if front is None or last is None:
            listing.damage = f"is not a tar ({error})"
        elif front.position >= last.end:
            listing.damage = "has no end mark, so it may have been cut"
            if not is_cut:
                listing.damage = f"is damaged ({error})"
        else:
            listing.damage = f"was cut within {last.name}"
            if not is_cut:
                listing.damage = f"is damaged within {last.name} ({error})"
            if last.name in listing.names:
                listing.names.remove(last.name)
                listing.lost.append((last.name, "is cut" if is_cut else "is damaged"))
    return listing
