"""What a video's URL says, in fsspec's chained notation: `tar://MEMBER::ARCHIVE`."""

from __future__ import annotations

import posixpath
import re
from dataclasses import dataclass
from typing import Literal

from avprep import storage
from avprep.errors import UserError

_MEMBER = re.compile(r"(tar|zip)://(.*)::(.*)", re.DOTALL)
_INNER_ARCHIVE = re.compile(r"::(?:tar|zip)://")


@dataclass(frozen=True)
class Place:
    """Where a video lies.

    Attributes:
        file: path or URL of the archive, or of the video where it is not in one.
        kind: of the archive; a video that is not in one is its own.
        member: its name in the archive, as `member_name` gives it.
    """

    file: str
    kind: Literal["tar", "zip", "video"] = "video"
    member: str = ""

    @property
    def is_local_video(self) -> bool:
        """Whether a decoder can open it where it is."""
        return self.kind == "video" and not storage.is_url(self.file)


def place_of(video: str) -> Place:
    """Where a video lies, by its path or URL in a manifest."""
    match = _MEMBER.fullmatch(video)
    if match is None:
        return Place(_local(video))
    kind: Literal["tar", "zip"] = "tar" if match[1] == "tar" else "zip"
    return Place(_local(match[3]), kind, member_name(match[2]))


def _local(location: str) -> str:
    """A path where a URL is of a local file."""
    for scheme in ("file://", "local://"):
        location = location.removeprefix(scheme)
    return location


def member_name(name: str) -> str:
    """The one name of a member that archives may call `./a`, `/a` or `a`."""
    return posixpath.normpath(name).lstrip("/")


def readable_place(video: str) -> Place:
    """Where a video lies, if its URL is of a kind that can be read; nothing is opened.

    Raises:
        UserError: an unknown scheme, one whose library is not there, or an archive in an archive.
    """
    place = place_of(video)
    if place.kind == "video" and video.startswith(("tar://", "zip://")):
        raise UserError(
            f"{video}: does not say in which archive. Write MEMBER::ARCHIVE, for example "
            "tar://v/a.mp4::parts/x.tar."
        )
    if place.kind != "video" and _INNER_ARCHIVE.search(video):
        raise UserError(
            f"{video}: lies in an archive within an archive, which cannot be read. Unpack the "
            "outer one."
        )
    if storage.is_url(place.file):
        storage.check_scheme(place.file)
    return place
