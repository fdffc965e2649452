"""A clip: one video file, or one segment of it; it becomes one sample of a shard set."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

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


def discover_clips(root: Path) -> list[Clip]:
    """Every video file under a folder, sorted by path, each with its `video_id`.

    The id is the file's stem. Where two files share a stem, both get their path below `root`
    without the suffix, `/` written as `__`; where that is shared too, the suffix stays.

    Raises:
        UserError: no such folder, or not one video in it.
    """
    if not root.exists():
        raise UserError(f"{root}: no such folder.")
    if not root.is_dir():
        raise UserError(f"{root}: is a file; give the folder that holds the videos.")
    paths = sorted(_video_paths(root))
    if not paths:
        suffixes = " ".join(sorted(VIDEO_SUFFIXES))
        raise UserError(f"{root}: holds no video. Looked in all sub-folders for {suffixes}.")
    names = [Path(path) for path in paths]
    stems = Counter(name.stem for name in names)
    routes = Counter(_route(name.with_suffix("")) for name in names)

    def video_id(name: Path) -> str:
        if stems[name.stem] == 1:
            return name.stem
        route = _route(name.with_suffix(""))
        return route if routes[route] == 1 else _route(name)

    return [Clip(video_id(name), video=str(root / name)) for name in names]


def _route(name: Path) -> str:
    return "__".join(name.parts)


def _video_paths(root: Path) -> Iterator[str]:
    """Paths relative to `root` of what has a video's suffix; symbolic links are not descended."""
    for folder, _, files in os.walk(root):
        for file in files:
            if os.path.splitext(file)[1].lower() in VIDEO_SUFFIXES:
                yield os.path.relpath(os.path.join(folder, file), root)
