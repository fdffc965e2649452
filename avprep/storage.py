"""Where shard sets live: a local folder, or any URL that fsspec knows (`s3://`, `gs://`, …).

Two promises: what has its final name is whole, and every failure names the place.

A local file is written under a temporary name in its own folder and renamed. Its writer holds a
lock on it, which the system drops when the writer is gone, however it went; so the files of dead
writers can be told from those of living ones and deleted.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import functools
import io
import json
import os
import re
import secrets
import tempfile
import zlib
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from avprep.errors import UserError, WorkFailed

if TYPE_CHECKING:
    from typing_extensions import Buffer

# Object stores: an upload is visible when it is complete, and not before.
_WHOLE_UPLOADS = frozenset(
    ("s3", "s3a", "gs", "gcs", "az", "abfs", "abfss", "adl", "oci", "oss", "r2", "memory")
)
_TEMPORARY = re.compile(r"\.tmp-([0-9a-f]{8})-[0-9a-f]{16}")
_ABANDONED_SECONDS = 7 * 24 * 3600  # for files of other machines, whose locks cannot be trusted
_FILES_AT_ONCE = 64


def is_url(location: str | Path) -> bool:
    """Whether `location` is a URL (`scheme://…`) rather than a local path."""
    return "://" in str(location)


def join(location: str | Path, name: str) -> str:
    """The path of `name` inside the folder or URL prefix `location`."""
    return f"{str(location).rstrip('/')}/{name}"


def _filesystem(url: str) -> tuple[Any, str]:
    """The fsspec file system of a URL, and the path in it.

    Listings are not cached: other machines write to the same place.
    """
    import fsspec  # a local run never pays for it

    try:
        return fsspec.core.url_to_fs(url, use_listings_cache=False)
    except (ImportError, ValueError) as error:
        raise UserError(
            f"{url}: cannot be opened ({error}). Install the extra for it, "
            "for example `pip install 'avprep-cavmae[s3]'`."
        ) from error


def check_writable(location: str | Path) -> None:
    """Refuse URLs whose stores may show a file before it is whole.

    Raises:
        UserError: not a local path, nor an object store.
    """
    scheme = str(location).partition("://")[0]
    if is_url(location) and scheme not in _WHOLE_UPLOADS:
        known = ", ".join(sorted(_WHOLE_UPLOADS - {"memory"}))
        raise UserError(
            f"{location}: cannot be written to: only local folders and object stores ({known}) "
            "show a file when it is whole and not before. Give a local folder, and copy it."
        )


def exists(path: str | Path) -> bool:
    """Whether a file of that name is there."""
    if not is_url(path):
        return Path(path).is_file()
    with _reaching(path):
        filesystem, key = _filesystem(str(path))
        return filesystem.isfile(key)


def size(path: str | Path) -> int | None:
    """Bytes of a file; None where it does not exist."""
    try:
        if not is_url(path):
            return Path(path).stat().st_size
        with _reaching(path):
            filesystem, key = _filesystem(str(path))
            return filesystem.size(key)
    except FileNotFoundError:
        return None


def make_folder(location: str | Path) -> None:
    """Make a local folder with its parents; object stores need none."""
    if is_url(location):
        return
    try:
        Path(location).mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"{location}: cannot make this folder ({error.strerror}).") from error


def list_names(location: str | Path) -> list[str]:
    """Sorted names of what is directly in `location`; empty where it does not exist."""
    return sorted(list_files(location))


def list_files(location: str | Path) -> dict[str, int]:
    """Name → bytes of everything directly in `location`, with one listing; a folder has -1."""
    if not is_url(location):
        folder = Path(location)
        if not folder.is_dir():
            return {}
        found = {}
        with os.scandir(folder) as entries:
            for entry in entries:
                with contextlib.suppress(FileNotFoundError):  # renamed or deleted meanwhile
                    found[entry.name] = entry.stat().st_size if entry.is_file() else -1
        return found
    try:
        with _reaching(location):
            filesystem, key = _filesystem(str(location))
            entries = filesystem.ls(key, detail=True)
    except FileNotFoundError:
        return {}
    return {
        entry["name"].rstrip("/").rsplit("/", 1)[-1]: entry["size"]
        if entry["type"] == "file"
        else -1
        for entry in entries
        # Asked for what is empty, s3fs looks once more and may find the place itself, now begun.
        if entry["name"].strip("/") != key.strip("/")
    }


def read_bytes(path: str | Path) -> bytes:
    """The whole file.

    Raises:
        FileNotFoundError: nothing is there.
    """
    if not is_url(path):
        return Path(path).read_bytes()
    with _reaching(path):
        filesystem, key = _filesystem(str(path))
        return filesystem.cat_file(key)


def read_if_there(path: str | Path) -> bytes | None:
    """The whole file; None where nothing, or no file, is there."""
    try:
        return read_bytes(path)
    except (FileNotFoundError, IsADirectoryError):
        return None


def read_files(location: str | Path, names: Iterable[str]) -> Iterator[tuple[str, bytes | OSError]]:
    """Whole files of one folder, in order; many requests at a time where it is a URL."""
    if not is_url(location):
        for name in names:
            try:
                yield name, Path(location, name).read_bytes()
            except OSError as error:
                yield name, error
        return
    filesystem, key = _filesystem(str(location))
    waiting = list(names)
    for start in range(0, len(waiting), _FILES_AT_ONCE):
        keys = {f"{key.rstrip('/')}/{name}": name for name in waiting[start:][:_FILES_AT_ONCE]}
        with _reaching(location):
            found = filesystem.cat(list(keys), on_error="return")
            for content in found.values():
                if isinstance(content, Exception) and not isinstance(content, FileNotFoundError):
                    raise content
        for path, name in keys.items():
            yield name, found[path]


def read_range(url: str, offset: int, size: int) -> bytes:
    """Some bytes of a file behind a URL; fewer where it ends before."""
    filesystem, key = _filesystem(url)
    with _reaching(url):
        return filesystem.cat_file(key, start=offset, end=offset + size)


def write_atomic(path: str | Path, data: bytes) -> None:
    """Write a file that is either absent (or the old one) or whole, also after a power cut.

    Raises:
        UserError: the place cannot be written to at all.
        WorkFailed: the disk is full, or the like.
    """
    if is_url(path):
        with _naming(path):
            filesystem, key = _filesystem(str(path))
            filesystem.pipe_file(key, data)  # object stores show an upload when it is complete
        return
    with replacing(path) as file:
        file.write(data)


def write_json(path: str | Path, content: Any) -> None:
    """Write indented JSON as `write_atomic` does."""
    write_atomic(path, (json.dumps(content, indent=1) + "\n").encode())


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


def delete(path: str | Path) -> None:
    """Delete a file; nothing happens where there is none."""
    with _naming(path):
        if not is_url(path):
            Path(path).unlink(missing_ok=True)
        elif exists(path):
            filesystem, key = _filesystem(str(path))
            filesystem.rm_file(key)


class ScratchFile(io.BufferedWriter):
    """A file that is being written, under a temporary name, locked by its writer."""

    def __init__(self, folder: Path) -> None:
        with _naming(folder):
            self.path, descriptor = _create_locked(folder)
        super().__init__(io.FileIO(descriptor, "wb"))

    def write(self, data: Buffer, /) -> int:
        """Append.

        Raises:
            WorkFailed: the disk is full, or the like.
        """
        with _naming(self.path.parent):
            return super().write(data)

    def flush(self) -> None:
        """Hand what was written to the system, so that other programs see it in the file."""
        with _naming(self.path.parent):
            super().flush()

    def sync(self) -> None:
        """Have everything on the disk, as far as the system can tell."""
        with _naming(self.path.parent):
            super().flush()
            os.fsync(self.fileno())

    def rename(self, target: str | Path) -> None:
        """Give the file its final name. A power cut can still lose it; a killed process cannot."""
        self.flush()
        with _naming(target):
            os.replace(self.path, target)

    def publish(self, target: str | Path) -> None:
        """Give the file its final name, and make content and name durable.

        A target that is a URL gets a copy: object stores show an upload only when it is complete.
        """
        self.sync()
        if is_url(target):
            with _naming(target):
                filesystem, key = _filesystem(str(target))
                filesystem.put_file(str(self.path), key)
            return
        self.rename(target)
        with _naming(target):
            _sync_folder(Path(target).parent)

    def discard(self) -> None:
        """Drop the lock, and the file if it still has its temporary name."""
        self.path.unlink(missing_ok=True)
        # What is buffered is for a file that was given up, or has been flushed.
        with contextlib.suppress(UserError, WorkFailed):
            self.close()


@contextlib.contextmanager
def scratch_file(folder: str | Path) -> Iterator[ScratchFile]:
    """A temporary file in `folder`; gone at the end of the block unless it was published."""
    file = ScratchFile(Path(folder))
    try:
        yield file
    finally:
        file.discard()


@contextlib.contextmanager
def replacing(path: str | Path) -> Iterator[ScratchFile]:
    """A file to write that gets the name `path` when the block ends without an exception."""
    with scratch_file(Path(path).parent) as file:
        yield file
        file.publish(path)


def scratch_folder(location: str | Path) -> Path:
    """Where to build a file for `location`: the folder itself, if it is local."""
    return Path(tempfile.gettempdir()) if is_url(location) else Path(location)


def temporary_beside(path: str | Path) -> Path:
    """A hidden name in the same folder that no other process uses."""
    return Path(path).with_name(f".tmp-{_this_machine()}-{secrets.token_hex(8)}")


def is_temporary(name: str) -> bool:
    """Whether a file of this name is one that somebody writes, or left behind."""
    return bool(_TEMPORARY.fullmatch(name))


def remove_abandoned(folder: str | Path) -> int:
    """Delete the temporary files in a local folder whose writers are gone.

    A file of this machine is abandoned when nobody holds its lock. For one of another machine, or
    from before a restart, locks prove nothing on some network file systems: it is abandoned when
    it has not been written to for a week, by the clock of the file server.

    Returns:
        The number of files deleted.
    """
    removed = 0
    with contextlib.suppress(FileNotFoundError):
        for entry in os.scandir(folder):
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


def _create_locked(folder: Path) -> tuple[Path, int]:
    while True:
        path = temporary_beside(folder / "file")
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


_NOT_WRITABLE = frozenset(
    (errno.EACCES, errno.EPERM, errno.EROFS, errno.EISDIR, errno.ENOTDIR, errno.ENOENT)
)
_FREE_SPACE = "Free some space and run the same command again; what is finished stays."
_ADVICE = {
    errno.ENOSPC: _FREE_SPACE,
    errno.EDQUOT: _FREE_SPACE,
    errno.EFBIG: "Raise the limit (`ulimit -f`) and run the same command again.",
    errno.EISDIR: "Move this folder away, or choose another place.",
}


@contextlib.contextmanager
def _naming(place: str | Path) -> Iterator[None]:
    """Errors of writing to a place say so, with what to do.

    Raises:
        UserError: it cannot be written to at all.
        WorkFailed: it could, until the disk was full or the like.
    """
    try:
        yield
    except (UserError, WorkFailed):
        raise
    except OSError as error:
        what = error.strerror or str(error) or type(error).__name__
        # fsspec's own errors have a type and no number.
        refused = isinstance(error, PermissionError | FileNotFoundError)
        number = error.errno or 0
        if refused or number in _NOT_WRITABLE:
            advice = _ADVICE.get(number, "Choose a place that you may write to.")
            raise UserError(f"{place}: cannot be written to ({what}). {advice}") from error
        advice = _ADVICE.get(number, "Run the same command again; what is finished stays.")
        raise WorkFailed(f"{place}: cannot be written to ({what}). {advice}") from error
    except Exception as error:
        raise _unreachable(place, error) from error


@contextlib.contextmanager
def _reaching(url: str | Path) -> Iterator[None]:
    """Errors of reading from a store name the place, whatever type the store gives them.

    Raises:
        FileNotFoundError, IsADirectoryError: the store was reached and has no such file.
        UserError: the store refuses access, which no later try changes.
        WorkFailed: no credentials, no such host, an outage.
    """
    try:
        yield
    except (FileNotFoundError, IsADirectoryError, UserError, WorkFailed):
        raise
    except PermissionError as error:
        raise UserError(f"{url}: access is refused ({error}). Check your credentials.") from error
    except Exception as error:
        raise _unreachable(url, error) from error


def _unreachable(place: str | Path, error: Exception) -> WorkFailed:
    """Object stores have error types of their own."""
    return WorkFailed(
        f"{place}: cannot be reached ({type(error).__name__}: {error}). Check the address and your "
        "credentials and run the same command again; what is finished stays."
    )
