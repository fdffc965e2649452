"""A clip: one video file, or one segment of it; it becomes one sample of a shard set."""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePath

from avprep.errors import UserError

VIDEO_SUFFIXES = frozenset(
    (
        *(".3gp", ".avi", ".flv", ".m2ts", ".m4v", ".mkv", ".mov", ".mp4", ".mpeg", ".mpg"),
        *(".mts", ".mxf", ".ogv", ".ts", ".vob", ".webm", ".wmv"),
    )
)
# What systems and programs keep beside people's files; folders that begin with a dot are hidden.
_NO_CLIPS_IN = re.compile(
    r"\$recycle\.bin.*|recycle[rd]|recycle bin|(?:network )?trash(?: folder)?|deleted items|"
    r"system volume information|found\.\d+|config\.msi|lost\+found|temporary items|__macosx|"
    r"@eadir|@recycle|@sharebin|@recently-snapshot|@tmp|#recycle|#snapshot|~snapshot|rsync~tmp|"
    r"_gsdata_|__pycache__|.*\.(?:download|part)"
)
# Suffixes of unfinished downloads, as in `a.mp4.part`; some come before the video's suffix.
_UNFINISHED = frozenset(
    (
        *("part", "partial", "crdownload", "opdownload", "ytdl", "aria2", "!ut", "!qb", "bc!"),
        *("filepart", "fdmdownload", "xltd", "incomplete", "unfinished", "gstmp"),
        "lftp-pget-status",
    )
)
_UNFINISHED_VIDEO = frozenset(("download", "tmp", "temp", "td", "st"))  # if of a video
_BEFORE_SUFFIX = frozenset(("part", "partial", "crdownload", "incomplete", "tmp", "temp"))
_CONTROL = (
    ".aria2",
    ".st",
    ".lftp-pget-status",
)  # lie beside the unfinished file until it is whole
_FRAGMENT = re.compile(r".+\.(?:part-)?frag\d+", re.IGNORECASE)
_ONE_STREAM = re.compile(r"(.+)\.f(?:\d+(?:-\w+)?|(?:hls|dash|http)[\w=\-]*)", re.ASCII)


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

    @property
    def file(self) -> str:
        """The file that messages name."""
        return self.video or self.wav


def discover_clips(
    root: Path,
    passed_over: list[str] | None = None,
    on_file: Callable[[], object] = lambda: None,
) -> list[Clip]:
    """Every video file under a folder, sorted by path, each with its `video_id`.

    The id is the file's stem. Where two files share a stem, both get their path below `root`
    without the suffix, `/` written as `__`; where that is shared too, the suffix stays. Where even
    that is shared, `_` and `=` in the path are written as `=5F` and `=3D`.

    Args:
        root: folder.
        passed_over: gets the files that look like clips but are not; see
            `scan_files`.
        on_file: called after each file found.

    Raises:
        UserError: no such folder, or no video in it.
    """
    passed_over = [] if passed_over is None else passed_over
    files = scan_files(root, VIDEO_SUFFIXES, passed_over, on_file)
    paths = sorted(os.path.relpath(os.path.join(folder, name), root) for folder, name in files)
    if not paths:
        suffixes = " ".join(sorted(VIDEO_SUFFIXES))
        rest = "".join(f" {text}." for text in described_passed_over(passed_over))
        raise UserError(f"{root}: has no videos. Looked in all sub-folders for {suffixes}.{rest}")
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
    """Possible ids of a file, from the shortest to one that no other file has."""
    name = PurePath(path)
    route = "__".join(name.parts[1:] if name.is_absolute() else name.parts)
    escaped = path.replace("=", "=3D").replace("_", "=5F").replace("/", "__")
    return name.stem, route.removesuffix(name.suffix), route, escaped


def is_writable(text: str) -> bool:
    """Whether a file's name can be written into a manifest, that is, is UTF-8."""
    if text.isascii():
        return True
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def scan_files(
    root: Path,
    suffixes: Collection[str],
    passed_over: list[str] | None = None,
    on_file: Callable[[], object] = lambda: None,
) -> Iterator[tuple[str, str]]:
    """Every file below `root` that has one of the suffixes, in one pass and no order.

    Symbolic links to folders are followed, each folder once, so a link to a parent does not loop.
    Hidden files (macOS writes one beside each file on foreign disks), everything in hidden, trash
    and system folders, unfinished downloads, and single streams beside their whole video are
    passed over.

    Args:
        root: folder; it may be hidden itself.
        suffixes: lower-case, with their dot; the case of files does not matter.
        passed_over: gets the paths of these.
        on_file: called before each file that is given.

    Yields:
        (folder, file name); the folder begins with `root` as given.

    Raises:
        UserError: no such folder, or one of the folders cannot be listed.
    """
    if not root.exists():
        raise UserError(f"{root}: no such folder.")
    if not root.is_dir():
        raise UserError(f"{root}: is a file; give the folder that contains the files.")
    passed_over = [] if passed_over is None else passed_over
    seen: set[tuple[int, int]] = set()
    folders = [(str(root), True)]
    while folders:
        folder, has_clips = folders.pop()
        names = []
        try:
            status = os.stat(folder)
            if (status.st_dev, status.st_ino) in seen:
                continue
            seen.add((status.st_dev, status.st_ino))
            with os.scandir(folder) as entries:
                for entry in entries:
                    if _is_folder(entry):
                        folders.append((entry.path, has_clips and _may_hold_clips(entry.name)))
                    else:
                        names.append(entry.name)
        except OSError as error:
            if not has_clips:
                continue
            raise UserError(
                f"{folder}: this folder cannot be listed ({error.strerror}). Make it readable, "
                "or give a folder without it."
            ) from error
        finished, others = _sorted_out(names, suffixes)
        if not has_clips:
            finished, others = [], finished + others
        passed_over += (os.path.join(folder, name) for name in others)
        for name in finished:
            on_file()
            yield folder, name


def described_passed_over(paths: Sequence[str]) -> list[str]:
    """A line for a person about the files that a scan passed over, if any."""
    if not paths:
        return []
    first = sorted(paths)
    shown = ", ".join(first[:3]) + (", …" if first[3:] else "")
    files = "1 file is" if len(paths) == 1 else f"{len(paths)} files are"
    return [f"{files} passed over (hidden, in the trash or unfinished downloads): {shown}"]


def without_stream(stem: str) -> str:
    """`a` of `a.f137`, as yt-dlp calls a single stream before it joins them; empty for others."""
    match = _ONE_STREAM.fullmatch(stem) if ".f" in stem else None
    return match[1] if match else ""


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a link to itself, which costs itself only
        return False


def _may_hold_clips(folder: str) -> bool:
    return folder[0] != "." and not _NO_CLIPS_IN.fullmatch(folder.lower())


def _sorted_out(names: Iterable[str], suffixes: Collection[str]) -> tuple[list[str], list[str]]:
    """The finished files of a folder that have one of the suffixes; and what was passed over."""
    finished: list[str] = []
    others: list[str] = []
    for name in names:
        dot = name.rfind(".")
        suffix = name[dot:].lower()
        if suffix in suffixes:
            inner = name.rfind(".", 0, dot)
            is_whole = name[0] != "." and (
                inner < 1 or name[inner + 1 : dot].lower() not in _BEFORE_SUFFIX
            )
            (finished if is_whole else others).append(name)
        elif dot > 0 and _is_unfinished(name[:dot], suffix[1:], suffixes):
            others.append(name)
    begun = {name[: name.rfind(".")] for name in others if name.endswith(_CONTROL)}
    streams = {name for name in finished if ".f" in name}
    stems = {name[: name.rfind(".")] for name in finished} if streams else set()
    left = {name for name in streams if without_stream(name[: name.rfind(".")]) in stems}
    left |= begun.intersection(finished) if begun else set()
    if left:
        finished = [name for name in finished if name not in left]
    return finished, [*others, *left]


def _is_unfinished(stem: str, ending: str, suffixes: Collection[str]) -> bool:
    if ending in _UNFINISHED or _FRAGMENT.fullmatch(f"{stem}.{ending}"):
        return True
    return ending in _UNFINISHED_VIDEO and os.path.splitext(stem)[1].lower() in suffixes
