"""A local file is written under a temporary name in its own folder and renamed.

Its writer holds a lock on it, which the system drops when the writer is gone, however it went; so
the files of dead writers can be told from those of living ones and deleted.
"""

from __future__ import annotations

import contextlib
import fcntl
import functools
import io
import json
import os
import re
import secrets
import shutil
import tempfile
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from avprep.errors import UserError, WorkFailed
from avprep.storage.places import exists, is_url, upload, writing_to

if TYPE_CHECKING:
    from typing_extensions import Buffer

_TEMPORARY = re.compile(r"\.tmp-([0-9a-f]{8})-[0-9a-f]{16}(?:\.[A-Za-z0-9]{1,8})?")
_FOLDER = ".folder"
_ABANDONED_SECONDS = 7 * 24 * 3600  # for files of other machines, whose locks cannot be trusted


class ScratchFile(io.BufferedWriter):
    """A file that is being written, under a temporary name, locked by its writer."""

    def __init__(self, folder: Path, suffix: str = "") -> None:
        with writing_to(folder):
            self.path, descriptor = _create_locked(folder, suffix)
        super().__init__(io.FileIO(descriptor, "wb"))

    def write(self, data: Buffer, /) -> int:
        """Append.

        Raises:
            WorkFailed: the disk is full, or the like.
        """
        with writing_to(self.path.parent):
            return super().write(data)

    def flush(self) -> None:
        """Hand what was written to the system, so that other programs see it in the file."""
        with writing_to(self.path.parent):
            super().flush()

    def sync(self) -> None:
        """Have everything on the disk, as far as the system can tell."""
        self.flush()
        with writing_to(self.path.parent):
            os.fsync(self.fileno())

    def rename(self, target: str | Path) -> None:
        """Give the file its final name. A power cut can still lose it; a killed process cannot."""
        self.flush()
        with writing_to(target):
            os.replace(self.path, target)

    def publish(self, target: str | Path) -> None:
        """Give the file its final name, and make content and name durable.

        A target that is a URL gets a copy: object stores show an upload only when it is complete.
        """
        self.sync()
        if is_url(target):
            upload(target, self.path)
            return
        self.rename(target)
        with writing_to(target):
            _sync_folder(Path(target).parent)

    def discard(self) -> None:
        """Drop the lock, and the file if it still has its temporary name."""
        self.path.unlink(missing_ok=True)
        # What is buffered is for a file that was given up, or has been flushed.
        with contextlib.suppress(UserError, WorkFailed):
            self.close()


def _folder_for(location: str | Path) -> Path:
    """Where files for a place are written: the folder itself, if it is local."""
    return Path(tempfile.gettempdir()) if is_url(location) else Path(location)


@contextlib.contextmanager
def scratch_file(location: str | Path) -> Iterator[ScratchFile]:
    """A temporary file for a place; gone at the end of the block unless it was published."""
    file = ScratchFile(_folder_for(location))
    try:
        yield file
    finally:
        file.discard()


@contextlib.contextmanager
def scratch_folder() -> Iterator[Path]:
    """A folder among the machine's temporary files; gone at the end of the block.

    Each is there with a locked file beside it, by which those that dead processes left behind are
    found, and deleted.
    """
    top = Path(tempfile.gettempdir())
    remove_abandoned(top)
    for old in top.glob(f".tmp-*{_FOLDER}"):
        if is_temporary(old.name) and not old.with_suffix("").exists():
            shutil.rmtree(old, ignore_errors=True)
    with scratch_file(top) as lock:
        folder = lock.path.with_suffix(_FOLDER)
        folder.mkdir(mode=0o700)
        try:
            yield folder
        finally:
            shutil.rmtree(folder, ignore_errors=True)


@contextlib.contextmanager
def replacing(path: str | Path) -> Iterator[ScratchFile]:
    """A file to write that gets the name `path` when the block ends without an exception."""
    with scratch_file(path if is_url(path) else Path(path).parent) as file:
        yield file
        file.publish(path)


def write_atomic(path: str | Path, data: bytes) -> None:
    """Write a file that is either absent (or the old one) or whole, also after a power cut.

    Raises:
        UserError: the place cannot be written to at all.
        WorkFailed: the disk is full, or the like.
    """
    if is_url(path):
        upload(path, data)
        return
    with replacing(path) as file:
        file.write(data)


def write_json(path: str | Path, content: Any) -> None:
    """Write indented JSON as `write_atomic` does."""
    write_atomic(path, json_bytes(content))


def json_bytes(content: Any) -> bytes:
    """Indented JSON, as it is written into files."""
    return (json.dumps(content, indent=1) + "\n").encode()


def write_new(path: str | Path, data: bytes) -> None:
    """Write a file unless there is one; of several writers to a folder at once, one wins.

    An object store has no such writing: there the last one does.

    Raises: as `write_atomic`.
    """
    if is_url(path):
        if not exists(path):
            write_atomic(path, data)
        return
    with scratch_file(Path(path).parent) as file:
        file.write(data)
        file.sync()
        try:
            os.link(file.path, path)
        except FileExistsError:
            return
        except OSError:  # a file system without hard links
            if not exists(path):
                file.publish(path)


def temporary_in(folder: Path) -> Path:
    """A hidden name in a folder that no other process uses."""
    return folder / f".tmp-{_this_machine()}-{secrets.token_hex(8)}"


def is_temporary(name: str) -> bool:
    """Whether a name is that of a file being written, or left unfinished."""
    return bool(_TEMPORARY.fullmatch(name))


def remove_abandoned(location: str | Path) -> int:
    """Delete the temporary files for a place whose writers are gone.

    A file of this machine is abandoned when nobody holds its lock. For one of another machine, or
    from before a restart, locks prove nothing on some network file systems: it is abandoned when
    it has not been written to for a week, by the clock of the file server.

    Returns:
        The number of files deleted.
    """
    removed = 0
    with contextlib.suppress(FileNotFoundError):
        for entry in os.scandir(_folder_for(location)):
            match = _TEMPORARY.fullmatch(entry.name)
            if match and _remove_if_abandoned(Path(entry.path), match[1] == _this_machine()):
                removed += 1
    return removed


def _remove_if_abandoned(path: Path, is_ours: bool) -> bool:
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_NOFOLLOW)
    except OSError:
        return False
    try:
        if not is_ours and _server_time(path.parent) - os.fstat(descriptor).st_mtime < (
            _ABANDONED_SECONDS
        ):
            return False
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        path.unlink(missing_ok=True)
    except OSError:  # the lock is held, or this file system has none
        return False
    finally:
        os.close(descriptor)
    return True


def _server_time(folder: Path) -> float:
    """Now, by the clock that gives the files of a folder their times."""
    with scratch_file(folder) as file:
        return file.path.stat().st_mtime


def _create_locked(folder: Path, suffix: str) -> tuple[Path, int]:
    while True:
        path = temporary_in(folder).with_suffix(suffix)
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o666)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:  # somebody who cleans up was quicker
            os.close(descriptor)
            continue
        except OSError:  # this file system has no locks; nobody will clean up either
            return path, descriptor
        if os.fstat(descriptor).st_nlink:
            return path, descriptor
        os.close(descriptor)


@functools.cache
def _this_machine() -> str:
    """Eight hex digits that stand for this boot of this machine."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text()
    except OSError:  # not Linux
        boot = os.uname().nodename
    return f"{zlib.crc32(boot.encode()):08x}"


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
