"""Where files lie: in a local folder, or under any URL that fsspec knows (`s3://`, `gs://`, …)."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from avprep.errors import Unreadable, UserError
from avprep.storage.faults import reading_from, writing_to

# Object stores: an upload is visible when it is complete, and not before.
_WHOLE_UPLOADS = frozenset(
    ("s3", "s3a", "gs", "gcs", "az", "abfs", "abfss", "adl", "oci", "oss", "r2", "memory")
)
_FILES_AT_ONCE = 64


def is_url(location: str | Path) -> bool:
    """Whether `location` is a URL (`scheme://…`) rather than a local path."""
    return "://" in str(location)


def join(location: str | Path, name: str) -> str:
    """The path of `name` inside the folder or URL prefix `location`."""
    return f"{str(location).rstrip('/')}/{name}"


def _filesystem(url: str | Path) -> tuple[Any, str]:
    """The fsspec file system of a URL, and the path in it.

    Listings are not cached: other machines write to the same place.

    Raises:
        UserError: fsspec does not know such URLs, or lacks a library for them.
    """
    import fsspec  # a local run never pays for it

    try:
        return fsspec.core.url_to_fs(str(url), use_listings_cache=False)
    except (ImportError, ValueError) as error:
        raise UserError(
            f"{url}: cannot be opened ({error}). Install the extra for it, "
            "for example `pip install 'avprep-cavmae[s3]'`."
        ) from error


@contextlib.contextmanager
def _store(url: str | Path) -> Iterator[tuple[Any, str]]:
    """The same for a block that reads; its errors name the URL."""
    with reading_from(url):
        yield _filesystem(url)


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
        with _store(location) as (filesystem, key):
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
    with _store(path) as (filesystem, key):
        return filesystem.cat_file(key)


def read_if_there(path: str | Path) -> bytes | None:
    """The whole file; None where nothing, or no file, is there."""
    try:
        return read_bytes(path)
    except (FileNotFoundError, IsADirectoryError):
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


def put(url: str | Path, content: bytes | Path) -> None:
    """Upload bytes or a local file; object stores show it when it is complete."""
    with writing_to(url):
        filesystem, key = _filesystem(url)
        if isinstance(content, bytes):
            filesystem.pipe_file(key, content)
        else:
            filesystem.put_file(str(content), key)


def delete(path: str | Path) -> None:
    """Delete a file; nothing happens where there is none."""
    with writing_to(path):
        if not is_url(path):
            Path(path).unlink(missing_ok=True)
        elif exists(path):
            filesystem, key = _filesystem(path)
            filesystem.rm_file(key)
