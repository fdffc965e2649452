"""Where shard sets live: a local folder, or any URL that fsspec knows (`s3://`, `gs://`, …).

Two promises: what has its final name is whole, and every failure names the place.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import IO

from avprep.errors import UserError


def is_url(location: str | Path) -> bool:
    """Whether `location` is a URL (`scheme://…`) rather than a local path."""
    return "://" in str(location)


def join(location: str | Path, name: str) -> str:
    """The path of `name` inside the folder or URL prefix `location`."""
    return f"{str(location).rstrip('/')}/{name}"


def _filesystem(url: str):  # noqa: ANN202 (fsspec's type, imported only when a URL is used)
    import fsspec  # a local run never pays for it

    try:
        return fsspec.core.url_to_fs(url)
    except (ImportError, ValueError) as error:
        raise UserError(
            f"{url}: cannot be opened ({error}). Install the extra for it, "
            "for example `pip install 'avprep-cavmae[s3]'`."
        ) from error


def exists(path: str | Path) -> bool:
    """Whether a file of that name is there."""
    if not is_url(path):
        return Path(path).is_file()
    filesystem, key = _filesystem(str(path))
    return filesystem.isfile(key)


def size(path: str | Path) -> int | None:
    """Bytes of a file; None where it does not exist."""
    try:
        if not is_url(path):
            return Path(path).stat().st_size
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
    """Sorted names of the files directly in `location`; empty where it does not exist."""
    if not is_url(location):
        folder = Path(location)
        return sorted(p.name for p in folder.iterdir()) if folder.is_dir() else []
    filesystem, key = _filesystem(str(location))
    filesystem.invalidate_cache()
    try:
        return sorted(path.rsplit("/", 1)[-1] for path in filesystem.ls(key, detail=False))
    except FileNotFoundError:
        return []


def read_bytes(path: str | Path) -> bytes:
    """The whole file.

    Raises:
        FileNotFoundError: nothing is there.
    """
    if not is_url(path):
        return Path(path).read_bytes()
    filesystem, key = _filesystem(str(path))
    return filesystem.cat_file(key)


def write_atomic(path: str | Path, data: bytes) -> None:
    """Write a file that is either absent (or the old one) or whole, also after a power cut."""
    if is_url(path):
        filesystem, key = _filesystem(str(path))
        filesystem.pipe_file(key, data)  # object stores make a finished upload visible at once
        return
    with replacing(path) as file:
        file.write(data)


@contextlib.contextmanager
def replacing(path: str | Path) -> Iterator[IO[bytes]]:
    """A file to write that gets the name `path` when the block ends without an exception."""
    temporary = temporary_beside(path)
    try:
        with temporary.open("xb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        publish(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def temporary_beside(path: str | Path) -> Path:
    """A hidden name in the same folder that no other process uses."""
    target = Path(path)
    return target.with_name(f".tmp-{secrets.token_hex(8)}")


@contextlib.contextmanager
def workspace(location: str | Path) -> Iterator[Path]:
    """A local folder to build a file for `location` in: the folder itself, if it is local."""
    if not is_url(location):
        yield Path(location)
        return
    with tempfile.TemporaryDirectory(prefix="avprep-") as folder:
        yield Path(folder)


def publish(temporary: str | Path, target: str | Path) -> None:
    """Give a finished local file its final name, and make the name itself durable.

    A target that is a URL gets a copy: object stores show an upload only when it is complete.
    """
    if is_url(target):
        filesystem, key = _filesystem(str(target))
        filesystem.put_file(str(temporary), key)
        return
    os.replace(temporary, target)
    directory = os.open(Path(target).parent, os.O_RDONLY)
    try:
        os.fsync(directory)
    finally:
        os.close(directory)


def read_range(url: str, offset: int, size: int) -> bytes:
    """Some bytes of a file behind a URL; fewer where it ends before."""
    filesystem, key = _filesystem(url)
    return filesystem.cat_file(key, start=offset, end=offset + size)
