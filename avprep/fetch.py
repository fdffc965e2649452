"""Downloads of data sets' official CSVs: whole, checked, or not at all."""

from __future__ import annotations

import asyncio
import hashlib
import random
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import aiohttp

from avprep import storage
from avprep.errors import UserError, WorkFailed
from avprep.options import FetchOptions

# Of each data set: file → where its authors publish it.
SOURCES: Mapping[str, Mapping[str, str]] = {
    "audioset": {
        name: f"https://storage.googleapis.com/us_audioset/youtube_corpus/v1/csv/{name}"
        for name in (
            "class_labels_indices.csv",
            "balanced_train_segments.csv",
            "eval_segments.csv",
            "unbalanced_train_segments.csv",
        )
    },
    "vggsound": {
        "vggsound.csv": "https://www.robots.ox.ac.uk/~vgg/data/vggsound/vggsound.csv",
    },
}
_RETRIED = frozenset((408, 425, 429, 500, 502, 503, 504))  # a server that may do better later
_CHUNK = 1 << 18


@dataclass(frozen=True)
class Fetched:
    """A file that is there now."""

    path: Path
    size: int  # bytes
    sha256: str
    found: bool  # it was there before


class _TryAgain(Exception):
    """An attempt that failed in a way that may pass."""


def fetch_file(
    url: str,
    path: Path,
    sha256: str | None = None,
    options: FetchOptions | None = None,
    on_bytes: Callable[[int, int | None], None] = lambda done, total: None,
) -> Fetched:
    """Download a file unless it is there.

    Args:
        url: http or https.
        path: its final name, given to it when all of it has arrived and is what it should be.
        sha256: hex digest that the file must have; None to take any.
        options: timeout and retries.
        on_bytes: called with (bytes so far, bytes in all if known).

    Raises:
        UserError: the URL is none, the server says the file is not there, or the file that is
            there has another digest.
        WorkFailed: the server cannot be reached, stalls, sends less than it announced, or sends
            something else.
    """
    options = options or FetchOptions()
    if not url.startswith(("http://", "https://")):
        raise UserError(f"{url!r}: not an http or https URL.")
    if sha256 is not None and not _is_digest(sha256):
        raise UserError(f"{sha256!r}: not a sha256, which has 64 hex digits.")
    if path.exists():
        data = path.read_bytes()
        digest = hashlib.sha256(data).hexdigest()
        if sha256 is not None and digest != sha256.lower():
            raise UserError(
                f"{path}: is there and has sha256 {digest}, not {sha256}. Delete it to fetch it "
                "again, or choose another --out."
            )
        return Fetched(path, len(data), digest, found=True)
    storage.make_folder(path.parent)
    return asyncio.run(_fetch(url, path, sha256, options, on_bytes))


async def _fetch(
    url: str,
    path: Path,
    sha256: str | None,
    options: FetchOptions,
    on_bytes: Callable[[int, int | None], None],
) -> Fetched:
    timeout = aiohttp.ClientTimeout(
        total=None, sock_connect=options.timeout, sock_read=options.timeout
    )
    async with aiohttp.ClientSession(timeout=timeout, trust_env=True) as session:
        for attempt in range(options.retries + 1):
            if attempt:
                delay = options.wait * 2 ** (attempt - 1)
                await asyncio.sleep(delay * random.uniform(0.75, 1.25))
            try:
                return await _attempt(session, url, path, sha256, on_bytes)
            except _TryAgain as error:
                reason = str(error)
            except asyncio.TimeoutError:
                reason = f"no byte for {options.timeout:g} s"
            except aiohttp.ClientPayloadError:
                reason = "the connection ended before the whole file had arrived"
            except aiohttp.InvalidURL as error:
                raise UserError(f"{url!r}: not a URL.") from error
            except aiohttp.ClientError as error:
                reason = str(error) or type(error).__name__
            except OSError as error:
                raise WorkFailed(f"{path}: cannot be written ({error.strerror}).") from error
    attempts = options.retries + 1
    raise WorkFailed(f"{url}: {reason}; tried {attempts} times. Run the command again later.")


async def _attempt(
    session: aiohttp.ClientSession,
    url: str,
    path: Path,
    sha256: str | None,
    on_bytes: Callable[[int, int | None], None],
) -> Fetched:
    digest = hashlib.sha256()
    size = 0
    async with session.get(url) as response:
        if response.status in _RETRIED:
            raise _TryAgain(f"the server answers {response.status} {response.reason}")
        if response.status != 200:
            raise UserError(
                f"{url}: the server answers {response.status} {response.reason}. If the file has "
                "moved, give its folder with --base-url."
            )
        with storage.replacing(path) as file:
            async for chunk in response.content.iter_chunked(_CHUNK):
                if not size:
                    _refuse_web_page(url, chunk)
                file.write(chunk)
                digest.update(chunk)
                size += len(chunk)
                on_bytes(size, response.content_length)
            if not size:
                raise _TryAgain("the server sends an empty file")
            if sha256 is not None and digest.hexdigest() != sha256.lower():
                raise WorkFailed(
                    f"{url}: has sha256 {digest.hexdigest()}, not {sha256}. Nothing is written."
                )
    return Fetched(path, size, digest.hexdigest(), found=False)


def _refuse_web_page(url: str, head: bytes) -> None:
    if head.lstrip()[:1] == b"<":
        raise WorkFailed(
            f"{url}: sends a web page, not a CSV; a proxy or a login may stand between."
        )


def _is_digest(text: str) -> bool:
    return len(text) == 64 and all(digit in "0123456789abcdefABCDEF" for digit in text)
