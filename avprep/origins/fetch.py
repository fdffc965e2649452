"""The videos of some clips, one after another, each as a local file for as long as it is needed."""

from __future__ import annotations

import io
import itertools
import os
import re
import tempfile
import threading
import weakref
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, Protocol
from urllib.parse import urlsplit

from avprep import storage
from avprep.clips import Clip
from avprep.errors import DecodeError, Unreadable
from avprep.origins.archives import Member, read_tar, read_zip
from avprep.origins.place import Place, place_of
from avprep.origins.remote import RemoteFile
from avprep.processes import check_stop

_CHUNK = 4 << 20  # bytes read at a time
_BLOCK = 1 << 16  # bytes; parts of a remote file begin and end with one
_MOST_AHEAD = 32  # blocks fetched with one that is asked for, if as many before it were
_LOOK_SECONDS = 0.25  # how often a thread that waits looks whether it should go on waiting


class LocalVideo:
    """A video that a decoder can open, until each clip of it was released.

    Args:
        path: of the file.
        scratch: the file, where it is one of ours.
        reserved: bytes of scratch space that it takes.
        clips: how often it will be released.
        parts: the rest of the file, where not all of it is there.
    """

    def __init__(
        self,
        path: str,
        scratch: storage.ScratchFile | None = None,
        reserved: int = 0,
        clips: int = 1,
        parts: Parts | None = None,
    ) -> None:
        self.path = path
        self.fill = None if parts is None else parts.fill
        self._clips, self._lock = clips, threading.Lock()
        # At the latest when nobody knows of it any more, because the work was given up.
        self.discard = weakref.finalize(self, _discard, scratch, reserved, parts)

    def release(self) -> None:
        """One clip of the video is done."""
        with self._lock:
            self._clips -= 1
            if not self._clips:
                self.discard()


def _discard(scratch: storage.ScratchFile | None, reserved: int, parts: Parts | None) -> None:
    if scratch is not None:
        scratch.discard()
        _space.give_back(reserved)
    if parts is not None:
        parts.close()


class _Whole(Protocol):
    """A file of which parts can be read."""

    def read_part(self, position: int, count: int) -> bytes:
        """`count` bytes; fewer at the file's end."""

    def close(self) -> None:
        """Nothing more is read."""


class _Slice:
    """A member of a local tar, as a file."""

    def __init__(self, archive: str, begin: int, size: int) -> None:
        self._file = open(archive, "rb")  # noqa: SIM115 - closed by `close`
        self._begin, self._size = begin, size
        self.close = self._file.close

    def read_part(self, position: int, count: int) -> bytes:
        self._file.seek(self._begin + position)
        return self._file.read(min(count, self._size - position))


class Parts:
    """Puts parts of a file into a scratch file of its size, each once.

    Args:
        whole: the file.
        size: bytes of it.
        scratch: gets its size; what was not asked for takes no space in it.
        limit: bytes of all parts together.
    """

    def __init__(self, whole: _Whole, size: int, scratch: storage.ScratchFile, limit: int) -> None:
        self._whole, self._size, self._scratch, self._limit = whole, size, scratch, limit
        self._there: set[int] = set()  # blocks
        self._lock = threading.Lock()
        scratch.truncate(self._size)

    def fill(self, begin: int, count: int) -> None:
        """Have some bytes of the file there.

        Raises:
            DecodeError: they cannot be fetched, or take too much space.
        """
        end = min(begin + count, self._size)
        with self._lock:
            wanted = range(max(begin, 0) // _BLOCK, -(-end // _BLOCK))
            missing = [block for block in wanted if block not in self._there]
            for _, run in itertools.groupby(enumerate(missing), lambda pair: pair[1] - pair[0]):
                self._fetch([block for _, block in run])

    def _fetch(self, blocks: Sequence[int]) -> None:
        """Some blocks, one after another, and more where the file is read in order."""
        begin, last = blocks[0], blocks[-1]
        follows = 0
        while follows < _MOST_AHEAD and begin - 1 - follows in self._there:
            follows += 1
        furthest = min(last + follows, (self._size - 1) // _BLOCK)
        while last < furthest and last + 1 not in self._there:
            last += 1
        if (len(self._there) + last + 1 - begin) * _BLOCK > max(self._limit, _BLOCK):
            raise DecodeError("too-large", _too_large(None, self._limit))
        data = self._whole.read_part(begin * _BLOCK, (last + 1 - begin) * _BLOCK)
        self._scratch.seek(begin * _BLOCK)
        self._scratch.write(data)
        self._scratch.flush()
        self._there.update(range(begin, last + 1))

    def close(self) -> None:
        """Close the connection."""
        self._whole.close()


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
    read once from front to back, so their clips come in the order of their members.

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
        remote = RemoteFile(url, _BLOCK if _are_segments(clips) else None)
        size = remote.size
        if size is not None and remote.seekable() and _is_read_in_parts(clips, size, _BLOCK, limit):
            outcome = _in_parts(remote, size, clips, limit)
        else:
            with remote:
                pieces = iter(lambda: remote.read(_CHUNK) or b"", b"")
                outcome = _spooled(pieces, size, clips, limit)
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
                    outcome = _video_of(member, archive.file, clips, limit)
                except DecodeError as error:
                    outcome = error.outcome
                yield from _dealt(clips, outcome)
    except DecodeError as error:
        rest = Unreadable(error.cause, f"its archive {error.detail}")
    for clips in waiting.values():
        yield from _dealt(clips, rest)


def _video_of(
    member: Member, archive: str, clips: Sequence[Clip], limit: int
) -> LocalVideo | Unreadable:
    if isinstance(member.content, Unreadable):
        return member.content
    begin, size = member.begin, member.size
    if (
        begin is not None
        and not storage.is_url(archive)
        and _is_read_in_parts(clips, size, _CHUNK, limit)
        and begin + size <= os.path.getsize(archive)
    ):
        return _in_parts(_Slice(archive, begin, size), size, clips, limit)
    return _spooled(member.content, size, clips, limit)


def _is_read_in_parts(clips: Sequence[Clip], size: int, least: int, limit: int) -> bool:
    """Whether a file that can be read anywhere is not to be copied as a whole."""
    return size > limit or (size > least and _are_segments(clips))


def _are_segments(clips: Sequence[Clip]) -> bool:
    return all(clip.start is not None or clip.end is not None for clip in clips)


def _in_parts(whole: _Whole, size: int, clips: Sequence[Clip], limit: int) -> LocalVideo:
    scratch = _scratch_for(clips)
    parts = Parts(whole, size, scratch, limit)
    return LocalVideo(str(scratch.path), scratch, clips=len(clips), parts=parts)


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
    too_large = Unreadable("too-large", _too_large(size, limit))
    if size is not None and size > limit:
        return too_large
    reserved = limit if size is None else size
    _space.take(reserved, limit)
    scratch = _scratch_for(clips)
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


def _too_large(size: int | None, limit: int) -> str:
    needed = "more than" if size is None else f"{size} bytes, more than"
    return f"takes {needed} the {limit} bytes of --scratch-size; raise that, or unpack the video"


def _scratch_for(clips: Sequence[Clip]) -> storage.ScratchFile:
    """A file for the video of some clips.

    It ends as the video's name does, by which ffmpeg knows formats without a typical beginning.
    """
    place = place_of(clips[0].video)
    name = place.member or urlsplit(place.file).path
    match = re.search(r"\.[A-Za-z0-9]{1,8}\Z", name)
    return storage.ScratchFile(Path(tempfile.gettempdir()), match[0] if match else "")


@contextmanager
def _opened(archive: str) -> Iterator[Any]:
    """An archive, as a buffered reader.

    Raises:
        DecodeError: it cannot be opened; the detail continues its name.
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
