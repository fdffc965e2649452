"""A clip: one video file, or one segment of it; it becomes one sample of a shard set."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePath

from avprep.errors import UserError

VIDEO_SUFFIXES = frozenset(
    (
        *(".3gp", ".avi", ".flv", ".m2ts", ".m4v", ".mkv", ".mov", ".mp4", ".mpeg", ".mpg"),
        *(".mts", ".mxf", ".ogv", ".ts", ".vob", ".webm", ".wmv"),
    )
)


@dataclass(frozen=True, slots=True)
class Clip:
    """One entry of a manifest.

    `video` names the raw file (decoded when the clip is sharded); `wav` and `video_path` name
    files already extracted in the published layout (`wav` = `<audio>/ID.wav`, frames at
    `<video_path>/frame_{0..9}/ID.jpg`). At least one of the two sources is set.
    """

    video_id: str
    labels: tuple[str, ...] = ()  # mids of the label set
    video: str = ""
    start: float | None = None  # seconds into `video`; the segment is [start, end)
    end: float | None = None
    wav: str = ""
    video_path: str = ""
    split: str = ""


def discover_clips(root: Path, on_file: Callable[[], object] = lambda: None) -> list[Clip]:
    """Every video file under a folder, sorted by path, each with its `video_id`.

    The id is the file's stem. Where two files share a stem, both get their path below `root`
    without the suffix, `/` written as `__`; where that is shared too, the suffix stays. Where even
    that is shared, `_` and `=` in the path are written as `=5F` and `=3D`.

    Args:
        root: folder.
        on_file: called after each file found.

    Raises:
        UserError: no such folder, or not one video in it.
    """
    paths = sorted(_video_paths(root, on_file))
    if not paths:
        suffixes = " ".join(sorted(VIDEO_SUFFIXES))
        raise UserError(f"{root}: holds no video. Looked in all sub-folders for {suffixes}.")
    ids = video_ids(paths)
    return [
        Clip(video_id, video=str(root / path)) for video_id, path in zip(ids, paths, strict=True)
    ]


def video_ids(paths: Sequence[str]) -> list[str]:
    """An id for each of some different paths, no two the same; see `discover_clips`."""
    forms = [_forms(path) for path in paths]
    stems, routes = (Counter(form[place] for form in forms) for place in (0, 1))
    chosen = [
        0 if stems[stem] == 1 else 1 if routes[route] == 1 else 2 for stem, route, _, _ in forms
    ]
    while True:
        # One file's path can be another's stem; both then take a longer form. The longest differs
        # for different paths, so this ends.
        ids = [form[place] for form, place in zip(forms, chosen, strict=True)]
        counts = Counter(ids)
        shared = [n for n, name in enumerate(ids) if counts[name] > 1 and chosen[n] < 3]
        if not shared:
            return ids
        for number in shared:
            chosen[number] += 1


def _forms(path: str) -> tuple[str, str, str, str]:
    """What a file may be called, from the short to the unmistakable."""
    name = PurePath(path)
    route = "__".join(name.parts[1:] if name.is_absolute() else name.parts)
    escaped = path.replace("=", "=3D").replace("_", "=5F").replace("/", "__")
    return name.stem, route.removesuffix(name.suffix), route, escaped


def is_writable(text: str) -> bool:
    """Whether a file's name can stand in a manifest: it is UTF-8."""
    if text.isascii():
        return True
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _video_paths(root: Path, on_file: Callable[[], object]) -> Iterator[str]:
    """Paths relative to `root` of what has a video's suffix."""
    for folder, name in scan_files(root, VIDEO_SUFFIXES):
        on_file()
        yield os.path.relpath(os.path.join(folder, name), root)


def scan_files(root: Path, suffixes: Collection[str]) -> Iterator[tuple[str, str]]:
    """Every file below `root` that has one of the suffixes, in one pass and no order.

    Symbolic links to folders are followed, each folder once, so a link to a parent is no loop.
    Files whose name begins with a dot are passed over: half-written ones, and what macOS puts
    beside each file on foreign disks.

    Args:
        root: folder.
        suffixes: lower-case, with their dot; files match whatever their case.

    Yields:
        (folder, file name); the folder begins with `root` as given.

    Raises:
        UserError: no such folder, or one of the folders cannot be listed.
    """
    if not root.exists():
        raise UserError(f"{root}: no such folder.")
    if not root.is_dir():
        raise UserError(f"{root}: is a file; give the folder that holds the files.")
    seen: set[tuple[int, int]] = set()
    folders = [str(root)]
    while folders:
        folder = folders.pop()
        try:
            status = os.stat(folder)
            if (status.st_dev, status.st_ino) in seen:
                continue
            seen.add((status.st_dev, status.st_ino))
            with os.scandir(folder) as entries:
                for entry in entries:
                    name = entry.name
                    if entry.is_dir():
                        folders.append(entry.path)
                    elif name[0] != "." and name[name.rfind(".") :].lower() in suffixes:
                        yield folder, name
        except OSError as error:
            raise UserError(
                f"{folder}: this folder cannot be listed ({error.strerror}). Make it readable, "
                "or give a folder without it."
            ) from error
