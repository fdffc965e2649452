"""The videos of some clips, one after another, each as a local file for as long as it is needed."""

from __future__ import annotations

import io
import re
import tempfile
import threading
import weakref
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from avprep import storage
from avprep.clips import Clip
from avprep.errors import DecodeError, Unreadable
from avprep.origins.archives import read_tar, read_zip
from avprep.origins.place import Place, place_of
from avprep.origins.remote import RemoteFile
from avprep.processes import check_stop

_CHUNK = 1 << 20
_LOOK_SECONDS = 0.25  # how often a thread that waits looks whether it should go on waiting


class LocalVideo:
    """A video that a decoder can open, until each clip of it was released.

    Args:
        path: of the file.
        scratch: the file, where it is one of ours.
        reserved: bytes of scratch space that it takes.
        clips: how often it will be released.
    """

    def __init__(
        self,
        path: str,
        scratch: storage.ScratchFile | None = None,
        reserved: int = 0,
        clips: int = 1,
    ) -> None:
        self.path = path
        self._clips, self._lock = clips, threading.Lock()
        # At the latest when nobody knows of it any more, because the work was given up.
        self.discard = weakref.finalize(self, _discard, scratch, reserved)

    def release(self) -> None:
        """One clip of the video is done."""
        with self._lock:
            self._clips -= 1
            if not self._clips:
                self.discard()


def _discard(scratch: storage.ScratchFile | None, reserved: int) -> None:
    if scratch is not None:
        scratch.discard()
        _space.give_back(reserved)


class _Space:
    """How much scratch space the videos of this process take together."""

    def __init__(self) -> None:
        self._taken = 0
        self._change = threading.Condition()

    def take(self, size: int, limit: int) -> None:
        """Wait until there is room; one video may take all of it."""
        with self._change:
            while self._taken and self._taken + size > limit:
                self._change.wait(_LOOK_SECONDS)
                check_stop()
            self._taken += size

    def give_back(self, size: int) -> None:
        """Let others have it."""
        with self._change:
            self._taken -= size
            self._change.notify_all()


_space = _Space()
_READERS = {"tar": read_tar, "zip": read_zip}


def fetch_videos(
    clips: Iterable[Clip], limit: int
) -> Iterator[tuple[Clip, LocalVideo | Unreadable]]:
    """Each clip with its video as a local file, or with why there is none.

    Local videos come first, in order. Archives follow in the order of their first clips and are
    read once from front to back, so their clips come in the order in which their members lie there.

    Args:
        clips: to be decoded from `video`, or packed from extracted files.
        limit: bytes of scratch space that videos may take at a time; a larger one is not fetched.
    """
    by_file: dict[Place, dict[str, list[Clip]]] = {}
    for clip in clips:
        place = place_of(clip.video)
        if clip.wav or place.is_local_video:
            yield clip, LocalVideo(place.file)
        else:
            by_member = by_file.setdefault(replace(place, member=""), {})
            by_member.setdefault(place.member, []).append(clip)
    for place, by_member in by_file.items():
        if place.kind == "video":
            yield from _fetch_file(place.file, by_member[""], limit)
        else:
            yield from _fetch_members(place, by_member, limit)


def _fetch_file(
    url: str, clips: Sequence[Clip], limit: int
) -> Iterator[tuple[Clip, LocalVideo | Unreadable]]:
    outcome: LocalVideo | Unreadable
    try:
        with RemoteFile(url) as file:
            pieces = iter(lambda: file.read(_CHUNK) or b"", b"")
            outcome = _spooled(pieces, file.size, clips, limit)
    except DecodeError as error:
        outcome = error.outcome
    yield from _dealt(clips, outcome)


def _fetch_members(
    archive: Place, waiting: dict[str, list[Clip]], limit: int
) -> Iterator[tuple[Clip, LocalVideo | Unreadable]]:
    rest = Unreadable("missing", "its archive has no such member")
    try:
        with _opened(archive.file) as file:
            for member in _READERS[archive.kind](file, list(waiting)):
                clips = waiting.pop(member.name)
                outcome: LocalVideo | Unreadable
                try:
                    outcome = (
                        member.content
                        if isinstance(member.content, Unreadable)
                        else _spooled(member.content, member.size, clips, limit)
                    )
                except DecodeError as error:
                    outcome = error.outcome
                yield from _dealt(clips, outcome)
    except DecodeError as error:
        rest = Unreadable(error.cause, f"its archive {error.detail}")
    for clips in waiting.values():
        yield from _dealt(clips, rest)


def _dealt(
    clips: Sequence[Clip], outcome: LocalVideo | Unreadable
) -> Iterator[tuple[Clip, LocalVideo | Unreadable]]:
    for clip in clips:
        if isinstance(outcome, Unreadable):
            yield clip, Unreadable(outcome.cause, f"{clip.video}: {outcome.detail}")
        else:
            yield clip, outcome


def _spooled(
    content: Iterator[bytes], size: int | None, clips: Sequence[Clip], limit: int
) -> LocalVideo | Unreadable:
    """A scratch file with the content of a video, unless that is too large.

    Raises:
        DecodeError: the content cannot be read to its end.
    """
    too_large = Unreadable(
        "too-large",
        f"takes {'more than' if size is None else f'{size} of'} {limit} bytes of scratch space; "
        "raise --scratch-size, or unpack it",
    )
    if size is not None and size > limit:
        return too_large
    reserved = limit if size is None else size
    _space.take(reserved, limit)
    scratch = storage.ScratchFile(Path(tempfile.gettempdir()), _suffix(place_of(clips[0].video)))
    video = LocalVideo(str(scratch.path), scratch, reserved, len(clips))
    written = 0
    try:
        for piece in content:
            written += len(piece)
            if written > limit:
                break
            scratch.write(piece)
        scratch.flush()
    except BaseException:
        video.discard()
        raise
    if written > limit:
        video.discard()
        return too_large
    return video


def _suffix(place: Place) -> str:
    """The end of a video's name, by which ffmpeg knows formats that have no beginning of theirs."""
    name = place.member or urlsplit(place.file).path
    match = re.search(r"\.[A-Za-z0-9]{1,8}\Z", name)
    return match[0] if match else ""


@contextmanager
def _opened(archive: str) -> Iterator[Any]:
    """An archive, as a buffered reader.

    Raises:
        DecodeError: it cannot be opened; the detail goes on from its name.
    """
    if storage.is_url(archive):
        with RemoteFile(archive) as remote, io.BufferedReader(remote, _CHUNK) as file:
            yield file
        return
    try:
        if not Path(archive).is_file() and Path(archive).exists():
            raise DecodeError("unreadable", "is not an ordinary file")  # a pipe would never end
        opened = open(archive, "rb")  # noqa: SIM115 - closed below
    except ValueError:
        raise DecodeError("bad-name", "has a name that no file can have") from None
    except OSError as error:
        outcome = Unreadable.of(error)
        raise DecodeError(outcome.cause, f"cannot be opened ({outcome.detail})") from error
    with opened:
        yield opened
