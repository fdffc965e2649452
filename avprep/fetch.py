"""Downloads of data sets' official CSVs: whole, checked, or not at all."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from http.client import HTTPException, IncompleteRead, InvalidURL
from pathlib import Path
from typing import Literal
from urllib.error import HTTPError, URLError
from urllib.request import Request, urlopen

from avprep import storage
from avprep.errors import UserError, WorkFailed
from avprep.labels import read_label_csv
from avprep.options import FetchOptions
from avprep.progress import OnProgress, Progress, ignore
from avprep.retries import attempts

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
    """A file that exists now."""

    path: Path
    size: int  # bytes
    sha256: str
    found: bool  # rather than downloaded


def fetch_labels(
    data_set: Literal["audioset", "vggsound"],
    out: str | Path,
    options: FetchOptions = FetchOptions(),
    on_progress: OnProgress = ignore,
) -> Iterator[Fetched]:
    """Download a data set's official CSVs into a folder, and yield each when it is complete.

    A file gets its name when it is complete. An existing file is kept.

    Args:
        data_set: whose.
        out: folder.
        options: the files, where they are, their digests, and how patiently they are fetched.
        on_progress: called with progress: bytes, file by file.

    Raises:
        UserError: no such file, or an existing one has another digest.
        WorkFailed: the server cannot be reached, or sends something else.
    """
    sources = SOURCES[data_set]
    wanted = options.files or tuple(sources)
    expected = _digests_by_file(options)
    for name in (*wanted, *expected):
        if name not in sources:
            raise UserError(f"{name!r}: {data_set} has no such file; it has {', '.join(sources)}.")
    for name in wanted:
        url = f"{options.base_url.rstrip('/')}/{name}" if options.base_url else sources[name]
        show = partial(_show_bytes, name, on_progress)
        fetched = fetch_file(url, Path(out) / name, expected.get(name), options, show)
        if name.startswith("class_labels"):
            _check_fetched(fetched, url)
        yield fetched


def _show_bytes(name: str, on_progress: OnProgress, done: int, total: int | None) -> None:
    on_progress(Progress("B", done, total, stage=name))


def _digests_by_file(options: FetchOptions) -> dict[str, str]:
    expected: dict[str, str] = {}
    for digest in options.digests:
        known = expected.setdefault(digest.file, digest.sha256)
        if known != digest.sha256:
            raise UserError(
                f"--sha256: {digest.file} has two digests, {known} and {digest.sha256}."
            )
    return expected


def _check_fetched(fetched: Fetched, url: str) -> None:
    """Raises UserError or WorkFailed where a file that was fetched is not a class CSV."""
    try:
        read_label_csv(fetched.path)
    except UserError as error:
        if fetched.found:
            raise UserError(f"{error} Delete it to fetch it again.") from error
        fetched.path.unlink()
        raise WorkFailed(f"{url}: sent no class CSV: {error}") from error


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
        UserError: not a URL, the server refuses or does not have the file, or the existing file
            has another digest.
        WorkFailed: the server cannot be reached, stalls, sends less than it announced, or sends
            something else.
    """
    options = options or FetchOptions()
    if not url.startswith(("http://", "https://")):
        raise UserError(f"{url!r}: not an http or https URL.")
    try:
        request = Request(url, headers={"User-Agent": "avprep"})  # some refuse urllib's own
    except ValueError as error:
        raise UserError(f"{url!r}: not a URL ({error}).") from error
    if sha256 is not None and not re.fullmatch("[0-9a-fA-F]{64}", sha256):
        raise UserError(f"{sha256!r}: not a sha256, which has 64 hex digits.")
    if path.exists():
        data = path.read_bytes()
        digest = hashlib.sha256(data).hexdigest()
        if sha256 is not None and digest != sha256.lower():
            raise UserError(
                f"{path}: exists and has sha256 {digest}, not {sha256}. Delete it to fetch it "
                "again, or choose another --out."
            )
        return Fetched(path, len(data), digest, found=True)
    storage.make_folder(path.parent)
    for _ in attempts(options.retries, options.wait):
        try:
            return _attempt(request, path, sha256, options.timeout, on_bytes)
        except (InvalidURL, UnicodeError) as error:
            raise UserError(f"{url!r}: not a URL ({error}).") from error
        except HTTPError as error:
            reason = f"the server answers {error.code} {error.reason}"
            if error.code not in _RETRIED:
                raise UserError(
                    f"{url}: {reason}. If the file has moved, give its folder with --base-url."
                ) from error
        except (HTTPException, OSError) as error:
            reason = _reason(error, options.timeout)
    tried = f"tried {options.retries + 1} times"
    raise WorkFailed(f"{url}: {reason}; {tried}. Run the command again later.")


def _attempt(
    request: Request,
    path: Path,
    sha256: str | None,
    timeout: float,
    on_bytes: Callable[[int, int | None], None],
) -> Fetched:
    digest = hashlib.sha256()
    size = 0
    with urlopen(request, timeout=timeout) as answer, storage.replacing(path) as file:
        announced = answer.headers.get("Content-Length", "")
        length = int(announced) if announced.isdecimal() else None
        while chunk := answer.read(_CHUNK):
            if not size and chunk.lstrip().startswith(b"<"):
                raise WorkFailed(
                    f"{request.full_url}: sent a web page, not a CSV: perhaps that of a proxy "
                    "or a login."
                )
            file.write(chunk)
            digest.update(chunk)
            size += len(chunk)
            on_bytes(size, length)
        if length is not None and size < length:
            raise IncompleteRead(b"", length - size)
        if not size:
            raise HTTPException("the server sends an empty file")
        if sha256 is not None and digest.hexdigest() != sha256.lower():
            raise WorkFailed(
                f"{request.full_url}: has sha256 {digest.hexdigest()}, not {sha256}. Nothing is "
                "written."
            )
    return Fetched(path, size, digest.hexdigest(), found=False)


def _reason(error: Exception, timeout: float) -> str:
    """Why an attempt failed, where the next may succeed."""
    cause = error.reason if isinstance(error, URLError) else error
    if isinstance(cause, TimeoutError):
        return f"no byte for {timeout:g} s"
    if isinstance(cause, IncompleteRead):
        return "the connection ended before the whole file had arrived"
    return str(cause) or type(cause).__name__
