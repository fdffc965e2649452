"""Bytes of shards: from local files, or over the network with retries and an optional cache."""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import hashlib
import math
import os
from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple, Protocol

from avprep import storage
from avprep.errors import Unreadable, UserError
from avprep.retries import attempts
from cavmae.data.plan import SHUFFLE_WINDOW
from cavmae.options import ReadOptions

_OPEN_FILES = 128  # kept open by a process: more than the shards that are shuffled together
_REQUESTS_AT_ONCE = 32  # of one loading process
_PART = 16 * 2**20  # bytes of a shard fetched at a time for the cache


class Range(NamedTuple):
    """Some bytes of a shard."""

    shard: str
    offset: int
    size: int


class Reader(Protocol):
    """Reads byte ranges of shards. May be used by several processes after a fork."""

    def read_many(
        self, ranges: Sequence[Range], scattered: bool = False
    ) -> Iterator[bytes | Unreadable]:
        """The bytes of each range, in order; fewer where a shard ends before; or why not.

        Args:
            ranges: what to read.
            scattered: little else of these shards will be read soon, so that fetching whole
                shards does not pay.
        """
        ...


def open_reader(location: str, options: ReadOptions, shard_bytes: dict[str, int]) -> Reader:
    """The reader for a shard set.

    Args:
        location: folder or URL prefix.
        options: for URLs.
        shard_bytes: size of each shard by name.
    """
    if not storage.is_url(location):
        return LocalReader(location)
    if options.cache is None:
        return RemoteReader(location, options)
    return CachingReader(location, options, shard_bytes)


class LocalReader:
    """Reads from local files; keeps the most recently used ones open."""

    def __init__(self, location: str) -> None:
        self._location = location
        self._files: OrderedDict[str, int] = OrderedDict()

    def read_many(
        self, ranges: Sequence[Range], scattered: bool = False
    ) -> Iterator[bytes | Unreadable]:
        """See `Reader`. Reads only as far as the iterator is used."""
        for wanted in ranges:
            try:
                yield os.pread(self._file(wanted.shard), wanted.size, wanted.offset)
            except OSError as error:
                yield Unreadable.of(error)

    def _file(self, shard: str) -> int:
        if shard not in self._files:
            self._files[shard] = os.open(storage.join(self._location, shard), os.O_RDONLY)
            if len(self._files) > _OPEN_FILES:
                os.close(self._files.popitem(last=False)[1])
        self._files.move_to_end(shard)
        return self._files[shard]

    def __del__(self) -> None:
        while self._files:
            os.close(self._files.popitem()[1])


class RemoteReader:
    """Reads ranges from a URL, many at a time; a request that fails is tried again."""

    def __init__(self, location: str, options: ReadOptions) -> None:
        self._location = location
        self._options = options

    def read_many(
        self, ranges: Sequence[Range], scattered: bool = False
    ) -> Iterator[bytes | Unreadable]:
        """See `Reader`."""
        found: list[bytes | BaseException | None] = [None] * len(ranges)
        missing = list(range(len(ranges)))
        for _ in attempts(self._options.retries):
            for place, result in zip(
                missing, self._request([ranges[place] for place in missing]), strict=True
            ):
                found[place] = result
            missing = [place for place in missing if _is_worth_a_retry(found[place])]
            if not missing:
                break
        for wanted, outcome in zip(ranges, found, strict=True):
            if isinstance(outcome, bytes):
                # A server that knows no ranges sends the whole file.
                ignored = len(outcome) > wanted.size
                refusal = Unreadable("unreadable", "the server does not answer range requests")
                yield refusal if ignored else outcome
            else:
                yield Unreadable("unreadable", f"{type(outcome).__name__}: {outcome}")

    def _request(self, ranges: Sequence[Range]) -> list[bytes | BaseException]:
        # Neither fsspec nor its back ends have one exception type for "the network failed".
        import fsspec  # a local run never pays for it

        filesystem, prefix = fsspec.core.url_to_fs(self._location)
        if not filesystem.async_impl:
            return [_outcome(_read_plainly, filesystem, prefix, wanted) for wanted in ranges]
        return fsspec.asyn.sync(
            filesystem.loop, _request_all, filesystem, prefix, ranges, self._options.timeout
        )


async def _request_all(
    filesystem: Any, prefix: str, ranges: Sequence[Range], timeout: float
) -> list[bytes | BaseException]:
    gate = asyncio.Semaphore(_REQUESTS_AT_ONCE)

    async def request(wanted: Range) -> bytes:
        async with gate:
            # fsspec documents its coroutines by their names with an underscore; the plain form
            # cannot be given a time limit.
            reading = filesystem._cat_file(
                storage.join(prefix, wanted.shard),
                start=wanted.offset,
                end=wanted.offset + wanted.size,
            )
            return await asyncio.wait_for(reading, timeout)

    return await asyncio.gather(*map(request, ranges), return_exceptions=True)


def _read_plainly(filesystem: Any, prefix: str, wanted: Range) -> bytes:
    path = storage.join(prefix, wanted.shard)
    return filesystem.cat_file(path, start=wanted.offset, end=wanted.offset + wanted.size)


def _outcome(function: Callable[..., bytes], *args: Any) -> bytes | Exception:
    try:
        return function(*args)
    except Exception as error:  # see RemoteReader._request
        return error


def _is_worth_a_retry(result: bytes | BaseException | None) -> bool:
    return not isinstance(result, bytes | FileNotFoundError | PermissionError)


def check_cache(options: ReadOptions, location: str, sets: Iterable[Iterable[int]]) -> None:
    """Refuse a cache that cannot hold what is read at a time.

    Args:
        options: with a cache.
        location: of what is read, for the message.
        sets: bytes of the shards of each set that it keeps.

    Raises:
        UserError: it cannot.
    """
    together = sum(sum(sorted(sizes)[-SHUFFLE_WINDOW:]) for sizes in sets)
    if options.cache_gb * 1e9 < together:
        raise UserError(
            f"a cache of {options.cache_gb:g} GB cannot hold the {SHUFFLE_WINDOW} shards of "
            f"{location} that are shuffled together. Give --cache-gb "
            f"{math.ceil(together / 1e8) / 10:g} or more, or use no cache."
        )


class CachingReader:
    """Copies a shard into a local folder when it is first needed, and reads it there.

    Any number of processes and shard sets may share the folder. When it grows beyond its limit,
    the shards that were not used for longest are deleted.

    Raises:
        UserError: the cache is smaller than what is shuffled together, so that every read would
            fetch a whole shard again.
    """

    def __init__(self, location: str, options: ReadOptions, shard_bytes: dict[str, int]) -> None:
        assert options.cache is not None
        self._remote = RemoteReader(location, options)
        self._root = Path(options.cache)
        # Every shard set has a shard-000000.tar.
        digest = hashlib.sha256(repr((location, sorted(shard_bytes.items()))).encode())
        self._folder = self._root / digest.hexdigest()[:24]
        self._limit = int(options.cache_gb * 1e9)
        self._shard_bytes = shard_bytes
        self._holds_all = sum(shard_bytes.values()) <= self._limit
        check_cache(options, location, [shard_bytes.values()])
        storage.make_folder(self._folder)

    def read_many(
        self, ranges: Sequence[Range], scattered: bool = False
    ) -> Iterator[bytes | Unreadable]:
        """See `Reader`."""
        if scattered and not self._holds_all:
            is_kept = [(self._folder / wanted.shard).exists() for wanted in ranges]
            remote = (r for r, kept in zip(ranges, is_kept, strict=True) if not kept)
            fetched = iter(self._remote.read_many(tuple(remote)))
            for wanted, kept in zip(ranges, is_kept, strict=True):
                yield self._read(wanted) if kept else next(fetched)
            return
        for wanted in ranges:
            yield self._read(wanted)

    def _read(self, wanted: Range) -> bytes | Unreadable:
        try:
            file = self._open(wanted.shard)
            try:
                os.utime(file)
                return os.pread(file, wanted.size, wanted.offset)
            finally:
                os.close(file)  # a shard that stays open would keep its space when deleted
        except OSError as error:
            return Unreadable.of(error)

    def _open(self, shard: str) -> int:
        path = self._folder / shard
        try:
            return os.open(path, os.O_RDONLY)
        except FileNotFoundError:
            pass
        with self._locked(self._folder / f".{shard}.lock"):
            if not path.exists():  # another process may have been quicker
                self._fetch(shard, path)
            file = os.open(path, os.O_RDONLY)
        with self._locked(self._root / ".lock"):
            self._make_room()
        return file

    def _fetch(self, shard: str, path: Path) -> None:
        size = self._shard_bytes[shard]
        with storage.replacing(path) as file:
            for start in range(0, size, _PART):
                part = Range(shard, start, min(_PART, size - start))
                (data,) = self._remote.read_many([part])
                if isinstance(data, Unreadable):
                    raise OSError(data.detail)
                if len(data) != part.size:
                    raise OSError(f"has {start + len(data)} bytes instead of {size}")
                file.write(data)

    def _make_room(self) -> None:
        kept = [(path.stat(), path) for path in self._root.glob("*/*.tar")]
        total = sum(status.st_size for status, _ in kept)
        for status, path in sorted(kept, key=lambda pair: pair[0].st_mtime_ns):
            if total <= self._limit:
                break
            path.unlink(missing_ok=True)
            total -= status.st_size
        for folder in filter(Path.is_dir, self._root.iterdir()):
            storage.remove_abandoned(folder)

    @contextlib.contextmanager
    def _locked(self, path: Path) -> Iterator[None]:
        with path.open("w") as file:
            fcntl.flock(file, fcntl.LOCK_EX)  # given back on close, also when the process dies
            yield
