"""Where files lie: in a local folder, or under any URL that fsspec knows (`s3://`, `gs://`, …)."""

from __future__ import annotations

import contextlib
import errno
import glob
import os
import re
from collections.abc import Iterable, Iterator, Mapping
from datetime import datetime
from pathlib import Path
from typing import IO, Any

from avprep.errors import Unreadable, UserError, WorkFailed

# Object stores: an upload is visible when it is complete, and not before.
_WHOLE_UPLOADS = frozenset(
    ("s3", "s3a", "gs", "gcs", "az", "abfs", "abfss", "adl", "oci", "oss", "r2", "memory")
)
_FILES_AT_ONCE = 64
_SMALL_BLOCK = 1 << 16  # bytes that are read ahead, where a reader jumps from header to header
_EXTRAS = {"s3": "s3", "s3a": "s3", "gs": "gcs", "gcs": "gcs"}  # what installs the library
_SCHEME = re.compile(r"(?:\w+::)*([A-Za-z][A-Za-z0-9+.-]*)://")


def is_url(location: str | Path) -> bool:
    """Whether `location` is a URL (`scheme://…`) rather than a local path."""
    return bool(_SCHEME.match(str(location)))


def join(location: str | Path, name: str) -> str:
    """The path of `name` inside the folder or URL prefix `location`.

    A folder within an archive is a chained URL: `tar://v::x.tar` and `a.mp4` make
    `tar://v/a.mp4::x.tar`.
    """
    if not is_chained(location):
        return f"{str(location).rstrip('/')}/{name}"
    folder, _, archive = str(location).partition("::")
    return f"{folder if folder.endswith('://') else folder.rstrip('/') + '/'}{name}::{archive}"


def beside(path: str, suffix: str) -> str:
    """The file that has another suffix than `path`, and is otherwise called the same."""
    name, chain, archive = path.partition("::") if is_chained(path) else (path, "", "")
    return f"{os.path.splitext(name)[0]}{suffix}{chain}{archive}"


def is_chained(location: str | Path) -> bool:
    """Whether `location` is a place within an archive: `tar://v/a.mp4::x.tar`."""
    return "::" in str(location) and is_url(location)


def _filesystem(url: str | Path) -> tuple[Any, str]:
    """The fsspec file system of a URL, and the path in it.

    Listings are not cached: other machines write to the same place.

    Raises:
        UserError: fsspec does not know such URLs, or lacks a library for them.
    """
    import fsspec  # a local run never pays for it

    check_scheme(url)
    try:
        return fsspec.core.url_to_fs(str(url), use_listings_cache=False)
    except (ImportError, ValueError) as error:
        raise UserError(f"{url}: cannot be opened ({error}). Check the address.") from error


def check_scheme(url: str | Path) -> None:
    """Refuse a URL that no installed library can open; nothing is connected.

    Raises:
        UserError: fsspec does not know such URLs, or lacks a library for them.
    """
    import fsspec

    match = _SCHEME.match(str(url))
    scheme = match[1] if match else ""
    try:
        fsspec.get_filesystem_class(scheme)
    except ImportError as error:
        extra = _EXTRAS.get(scheme)
        install = f"Run `pip install 'avprep-cavmae[{extra}]'`." if extra else f"{error}."
        raise UserError(
            f"{url}: {scheme}:// needs a library that is not installed. {install}"
        ) from error
    except ValueError as error:
        raise UserError(
            f"{url}: {scheme}:// is not a kind of URL that can be read. Give a local path, or a "
            "URL such as s3://bucket/name, gs://bucket/name or https://host/name."
        ) from error


def open_remote(url: str | Path) -> Any:
    """A file behind a URL, open for reading from any position; each reading is a request.

    Raises: as the store does; see `avprep.origins.remote`, which gives its errors a cause.
    """
    filesystem, key = _filesystem(url)
    return filesystem.open(key, "rb", cache_type="none")


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
            "show a file only when it is complete. Give a local folder, and copy it."
        )


def exists(path: str | Path) -> bool:
    """Whether a file of that name is there."""
    if not is_url(path):
        return Path(path).is_file()
    with _store(path) as (filesystem, key):
        return filesystem.isfile(key)


def size(path: str | Path) -> int | None:
    """Bytes of a file; None where it does not exist."""
    try:
        if not is_url(path):
            return Path(path).stat().st_size
        with _store(path) as (filesystem, key):
            return filesystem.size(key)
    except FileNotFoundError:
        return None


def make_folder(location: str | Path) -> None:
    """Make a local folder with its parents; object stores need none."""
    if is_url(location):
        return
    try:
        Path(location).mkdir(parents=True, exist_ok=True)
    except FileExistsError:
        raise UserError(
            f"{location}: is a file, where a folder is needed. Choose another name."
        ) from None
    except OSError as error:
        raise UserError(f"{location}: cannot make this folder ({error.strerror}).") from error


def list_names(location: str | Path) -> list[str]:
    """Sorted names of what is directly in `location`; empty where it does not exist."""
    return sorted(list_files(location))


def list_files(location: str | Path) -> dict[str, int]:
    """Name → bytes of everything directly in `location`, with one listing; a folder has -1."""
    return {name: size for name, size, _ in _entries(location)}


def list_times(location: str | Path) -> dict[str, float]:
    """Name → when it was last written, in seconds of Unix time; without what is not known."""
    return {name: time for name, _, time in _entries(location) if time is not None}


def _entries(location: str | Path) -> Iterator[tuple[str, int, float | None]]:
    """Name, bytes and time of everything directly in a place."""
    if not is_url(location):
        folder = Path(location)
        if not folder.is_dir():
            return
        with os.scandir(folder) as entries:
            for entry in entries:
                try:
                    status = entry.stat()
                    size = status.st_size if entry.is_file() else -1
                except OSError as error:  # renamed or deleted meanwhile; a link to itself
                    if error.errno not in (errno.ENOENT, errno.ELOOP):
                        raise
                    continue
                yield entry.name, size, status.st_mtime
        return
    try:
        with _store(location) as (filesystem, key):
            found = filesystem.ls(key, detail=True)
    except FileNotFoundError:
        return
    for entry in found:
        # Asked for what is empty, s3fs looks once more and may find the place itself, now begun.
        if entry["name"].strip("/") != key.strip("/"):
            name = entry["name"].rstrip("/").rsplit("/", 1)[-1]
            yield name, entry["size"] if entry["type"] == "file" else -1, _time_of(entry)


def _time_of(entry: Mapping[str, Any]) -> float | None:
    """When an object was written; stores call it this or that."""
    for key in ("LastModified", "last_modified", "updated", "mtime", "created"):
        value = entry.get(key)
        if isinstance(value, str):
            with contextlib.suppress(ValueError):
                value = datetime.fromisoformat(value.replace("Z", "+00:00"))
        if isinstance(value, datetime):
            return value.timestamp()
        if isinstance(value, int | float):
            return float(value)
    return None


def list_below(location: str) -> list[str]:
    """The paths, below a URL prefix, of all files there; empty where it does not exist."""
    try:
        with _store(location) as (filesystem, key):
            found = filesystem.find(key)
    except FileNotFoundError:
        return []
    top = f"{key.rstrip('/')}/"
    return [name[len(top) :] for name in found if name.startswith(top) and not name.endswith("/")]


def matching(pattern: str) -> list[str]:
    """The files and folders, sorted, whose path or URL fits a pattern of the shell."""
    if not is_url(pattern):
        return sorted(glob.glob(pattern))
    with _store(pattern) as (filesystem, key):
        return sorted(map(filesystem.unstrip_protocol, filesystem.glob(key)))


@contextlib.contextmanager
def open_to_read(path: str, block_size: int = _SMALL_BLOCK) -> Iterator[IO[bytes]]:
    """A file, to be read by someone who jumps in it; of a URL only what is read is fetched.

    Args:
        path: path or URL.
        block_size: bytes fetched at a time; 0 to read from front to back.

    Raises:
        FileNotFoundError, UserError, WorkFailed: see `_store`.
    """
    if is_url(path):
        with (
            _store(path) as (filesystem, key),
            filesystem.open(key, "rb", block_size=block_size) as file,
        ):
            yield file
        return
    try:
        file = open(path, "rb")  # noqa: SIM115 - what fails later is not this file's fault
    except FileNotFoundError:
        raise
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror}).") from error
    with file:
        yield file


def read_bytes(path: str | Path) -> bytes:
    """The whole file.

    Raises:
        FileNotFoundError: nothing is there.
    """
    if not is_url(path):
        return Path(path).read_bytes()
    with _store(path) as (filesystem, key):
        return filesystem.cat_file(key)


def read_if_there(path: str | Path) -> bytes | None:
    """The whole file; None where nothing, or no file, is there."""
    try:
        return read_bytes(path)
    except (FileNotFoundError, IsADirectoryError, NotADirectoryError):
        return None


def read_files(
    location: str | Path, names: Iterable[str]
) -> Iterator[tuple[str, bytes | Unreadable]]:
    """Whole files of one folder, in order; many requests at a time where it is a URL."""
    if not is_url(location):
        for name in names:
            try:
                yield name, Path(location, name).read_bytes()
            except OSError as error:
                yield name, Unreadable.of(error)
        return
    waiting = list(names)
    for start in range(0, len(waiting), _FILES_AT_ONCE):
        with _store(location) as (filesystem, key):
            keys = {join(key, name): name for name in waiting[start:][:_FILES_AT_ONCE]}
            found = filesystem.cat(list(keys), on_error="return")
            for content in found.values():
                if isinstance(content, Exception) and not isinstance(content, FileNotFoundError):
                    raise content
        for path, name in keys.items():
            content = found[path]
            yield name, content if isinstance(content, bytes) else Unreadable.of(content)


def read_range(url: str, offset: int, size: int) -> bytes:
    """Some bytes of a file behind a URL; fewer where it ends before."""
    with _store(url) as (filesystem, key):
        return filesystem.cat_file(key, start=offset, end=offset + size)


def download(url: str, target: Path) -> None:
    """Copy a whole file behind a URL to a local one.

    Raises:
        FileNotFoundError: nothing is there.
    """
    with _store(url) as (filesystem, key):
        filesystem.get_file(key, str(target))


def upload(url: str | Path, content: bytes | Path) -> None:
    """Upload bytes or a local file; object stores show it when it is complete."""
    with writing_to(url):
        filesystem, key = _filesystem(url)
        if isinstance(content, bytes):
            filesystem.pipe_file(key, content)
        else:
            filesystem.put_file(str(content), key)


def touch(path: str | Path) -> None:
    """Give a file the present time; its content stays."""
    with writing_to(path):
        if is_url(path):
            upload(path, read_bytes(path))
        else:
            os.utime(path)


def delete(path: str | Path) -> None:
    """Delete a file; nothing happens where there is none."""
    with writing_to(path):
        if not is_url(path):
            Path(path).unlink(missing_ok=True)
        elif exists(path):
            filesystem, key = _filesystem(path)
            filesystem.rm_file(key)


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
def writing_to(place: str | Path) -> Iterator[None]:
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
def _store(url: str | Path) -> Iterator[tuple[Any, str]]:
    """As `_filesystem`, for reading: errors name the place, whatever type the store gives them.

    Raises:
        FileNotFoundError, IsADirectoryError: the store was reached and has no such file.
        UserError: the store refuses access, which no later try changes.
        WorkFailed: no credentials, no such host, an outage.
    """
    try:
        yield _filesystem(url)
    except (IsADirectoryError, UserError, WorkFailed):
        raise
    except PermissionError as error:
        raise UserError(f"{url}: access is refused ({error}). Check your credentials.") from error
    except Exception as error:
        # What a web server answers, fsspec raises as it is, or as a FileNotFoundError.
        cause = (error.__cause__ if str(url).startswith("http") else None) or error
        status = getattr(cause, "status", 0)
        if status in (401, 403):
            raise UserError(f"{url}: access is refused (HTTP {status}).") from error
        if isinstance(error, FileNotFoundError) and (cause is error or status in (404, 410)):
            raise
        raise _unreachable(url, cause) from error


def _unreachable(place: str | Path, error: BaseException) -> WorkFailed:
    """Object stores have error types of their own."""
    return WorkFailed(
        f"{place}: cannot be reached ({type(error).__name__}: {error}). Check the address and your "
        "credentials and run the same command again; what is finished stays."
    )
