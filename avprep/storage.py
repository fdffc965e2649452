"""Where shard sets live: a local folder, or any URL that fsspec knows (`s3://`, `gs://`, …).

Two promises: what has its final name is whole, and every failure names the place.
"""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

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
    target = Path(path)
    descriptor, temporary = tempfile.mkstemp(dir=target.parent, prefix=f".{target.name[:80]}.")
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        publish(temporary, target)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise


def publish(temporary: str | Path, target: str | Path) -> None:
    """Give a finished local file its final name and make the name itself durable."""
    os.chmod(temporary, 0o666 & ~_umask())
    os.replace(temporary, target)
    directory = os.open(Path(target).parent, os.O_RDONLY)
    try:
        os.fsync(directory)
    finally:
        os.close(directory)


def upload(local: str | Path, url: str) -> None:
    """Copy a finished local file to a URL."""
    filesystem, key = _filesystem(url)
    filesystem.put_file(str(local), key)


def _umask() -> int:
    """The process's umask (only settable, so set and restored)."""
    value = os.umask(0)
    os.umask(value)
    return value
