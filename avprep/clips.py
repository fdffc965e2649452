"""A clip: one video file, or one segment of it; it becomes one sample of a shard set."""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePath, PurePosixPath
from typing import Any, NamedTuple, TypeAlias

from avprep import storage
from avprep.errors import UserError
from avprep.kinds import PLURALS, SUFFIXES, FileKind
from avprep.wording import counted, first_of

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
# Lie beside the unfinished file until it is whole.
_CONTROL = (".aria2", ".st", ".lftp-pget-status")
_FRAGMENT = re.compile(r".+\.(?:part-)?frag\d+", re.IGNORECASE)
_PATTERN = re.compile(r"[*\[]|^(?!.*://).*\?")  # of the shell; a URL may have a query
_ONE_STREAM = re.compile(r"(.+)\.f(?:\d+(?:-\w+)?|(?:hls|dash|http)[\w=\-]*)", re.ASCII)


# Folders, archives, prefixes of object stores, or patterns of these.
Places: TypeAlias = "str | Path | Sequence[str | Path]"


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


class VideoFile(NamedTuple):
    """A file that a scan found."""

    below: str  # its path below the folder, archive or prefix that it was found in
    video: str  # its path or URL

    @property
    def folders(self) -> tuple[str, ...]:
        """The folders around it, from the outermost on."""
        return PurePosixPath(self.below).parts[:-1]


@dataclass
class Scan:
    """What a scan looks for, and what it met apart from that.

    Attributes:
        kinds: of files that are clips; () for videos, or else audio files, or else pictures. After
            a scan, those that were taken.
        passed_over: files that look like clips but are not; see `scan_files`.
        lost: (file, reason) of what cannot be used: files of an archive, and whole archives.
        keep: suffix of small files in archives that are read on the way; "" for none.
        read: makes of their content what is kept of it.
        kept: that, by their URL.
        listings: of archives and stores, by their root, each of which is listed once.
    """

    kinds: tuple[FileKind, ...] = ()
    passed_over: list[str] = field(default_factory=list)
    lost: list[tuple[str, str]] = field(default_factory=list)
    keep: str = ""
    read: Callable[[bytes], Any] = bytes
    kept: dict[str, Any] = field(default_factory=dict)
    listings: dict[str, storage.Listing] = field(default_factory=dict)


def discover_clips(
    root: Places,
    passed_over: list[str] | None = None,
    on_files: Callable[[int], object] = lambda count: None,
    kinds: tuple[FileKind, ...] = (),
) -> list[Clip]:
    """Every video under a folder, sorted by path, each with its `video_id`; see `ids_of`.

    Args:
        root: folder, archive, or prefix of an object store; or several.
        passed_over: list to which files are added that look like clips but are not; see
            `scan_files`.
        on_files: called with the number of files found in each folder.
        kinds: of files that are taken, see `Scan`.

    Raises:
        UserError: nothing is there, or it has no video.
    """
    scan = Scan(kinds, [] if passed_over is None else passed_over)
    return clips_of(discover_files(expanded(root), scan, on_files))


def clips_of(files: Sequence[VideoFile]) -> list[Clip]:
    """Each file as a clip, with its `video_id`; see `ids_of`."""
    return [
        Clip(video_id, video=file.video)
        for video_id, file in zip(ids_of(files), files, strict=True)
    ]


def discover_files(
    roots: Sequence[str], scan: Scan, on_files: Callable[[int], object] = lambda count: None
) -> list[VideoFile]:
    """Every video under some roots, each once, sorted by its path below its root.

    Args:
        roots: see `expanded`.
        scan: gets what is met apart from them.
        on_files: called with the number of files found in each folder.

    Raises:
        UserError: nothing is there, or it has no video.
    """
    found = find_files(roots, scan, on_files)
    if not found:
        kinds = scan.kinds or tuple(SUFFIXES)
        suffixes = " ".join(sorted(suffix for kind in kinds for suffix in SUFFIXES[kind]))
        rest = [f"{file} {reason}" for file, reason in scan.lost[:3]]
        rest += described_passed_over(scan.passed_over)
        if archives := [one for root in roots if os.path.isdir(root) for one in _archives_in(root)]:
            rest.append(f"It has archives, such as {archives[0]}; give these, or a pattern of them")
        raise UserError(
            f"{', '.join(roots)}: has no {' or '.join(PLURALS[kind] for kind in kinds)}. "
            f"Looked in all sub-folders for {suffixes}." + "".join(f" {text}." for text in rest)
        )
    return sorted(found)


def find_files(
    roots: Sequence[str], scan: Scan, on_files: Callable[[int], object] = lambda count: None
) -> list[VideoFile]:
    """The same in no order, and none where there is none.

    What lies beside videos belongs to them: audio files and pictures are looked for where there
    are none, or `scan.kinds` asks for them.
    """
    found = _scanned(roots, scan.kinds or ("video",), scan, on_files)
    if not found and not scan.kinds:
        scan.passed_over.clear()
        scan.lost.clear()
        found = _scanned(roots, tuple(SUFFIXES), scan, on_files)
        if found:
            ending = {file: os.path.splitext(file.below)[1].lower() for file in found}
            there = {kind for kind in SUFFIXES if SUFFIXES[kind] & set(ending.values())}
            scan.kinds = ("audio",) if "audio" in there else ("image",)
            found = [file for file in found if ending[file] in SUFFIXES[scan.kinds[0]]]
    return found


def _scanned(
    roots: Sequence[str],
    kinds: Collection[FileKind],
    scan: Scan,
    on_files: Callable[[int], object],
) -> list[VideoFile]:
    suffixes = frozenset(suffix for kind in kinds for suffix in SUFFIXES[kind])
    files = (file for root in roots for file in _scanned_root(root, suffixes, scan, on_files))
    return list({file.video: file for file in files}.values())


def remarks_on_kinds(scan: Scan) -> list[str]:
    """A line for a person, if clips are not videos because there are no videos."""
    words = {
        ("audio",): "its audio files are the clips; shard them with --missing-video omit",
        ("image",): "its pictures are the clips; shard them with --missing-audio omit",
    }
    return [f"there are no videos, so {words[scan.kinds]}"] if scan.kinds in words else []


def _scanned_root(
    root: str, suffixes: Collection[str], scan: Scan, on_files: Callable[[int], object]
) -> Iterator[VideoFile]:
    """The files below a root, in no order; see `scan_files`."""
    for folder, name in scan_files(root, suffixes, scan, on_files):
        video = storage.join(folder, name).removeprefix("./")  # of the current folder
        yield VideoFile(path_below(video, root), video)


def expanded(places: Places) -> list[str]:
    """Places as people give them, each once: patterns of the shell become what they match.

    Raises:
        UserError: a pattern matches nothing.
    """
    found: list[str] = []
    for given in (places,) if isinstance(places, str | Path) else places:
        place = str(given).removeprefix("file://")
        if not storage.is_url(place):
            place = str(Path(place))
        is_pattern = _PATTERN.search(place) is not None
        if not is_pattern or (not storage.is_url(place) and os.path.exists(place)):
            found.append(place)
        elif matches := storage.matching(place):
            found += matches
        else:
            raise UserError(f"{place}: nothing matches this pattern.")
    return list(dict.fromkeys(found))


def ids_of(files: Sequence[VideoFile]) -> list[str]:
    """An id for each file, no two the same.

    The id is the file's stem. Where two files share a stem, both get their path without the suffix,
    `/` written as `__`; where that is shared too, the suffix stays. Where even that is shared, `_`
    and `=` in the path are written as `=5F` and `=3D`. For the path see `distinct_paths`.
    """
    return video_ids(distinct_paths(files))


def distinct_paths(files: Sequence[VideoFile]) -> list[str]:
    """The path of each file below its root; it begins with the root's name where paths are shared.

    If even that leaves two the same, because roots in several folders have one name, it is what the
    URLs say.
    """
    paths = [file.below for file in files]
    counts = Counter(paths)
    if len(counts) < len(paths):
        paths = [
            f"{_name_of_root(file)}/{path}" if counts[path] > 1 else path
            for path, file in zip(paths, files, strict=True)
        ]
    if len(set(paths)) < len(paths):
        paths = [file.video for file in files]
    return paths


def _name_of_root(file: VideoFile) -> str:
    """`vgg_08` of `tar://v/a.mp4::parts/vgg_08.tar.gz`."""
    if storage.is_chained(file.video):
        return PurePosixPath(file.video.rpartition("::")[2]).name.partition(".")[0]
    return PurePosixPath(file.video.removesuffix(file.below)).name


def path_below(video: str, root: str) -> str:
    """The path of a file below the root that it was found in."""
    if storage.is_chained(video):
        return os.path.normpath(video.partition("::")[0].partition("://")[2])
    top = f"{root.rstrip('/')}/"
    return video.removeprefix(top) if video.startswith(top) else os.path.relpath(video, root)


def video_ids(paths: Sequence[str]) -> list[str]:
    """An id for each of some different paths, no two the same; see `ids_of`."""
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
    root: str | Path,
    suffixes: Collection[str],
    scan: Scan | None = None,
    on_files: Callable[[int], object] = lambda count: None,
) -> Iterator[tuple[str, str]]:
    """Every file below a root that has one of the suffixes, in one pass and no order.

    Symbolic links to folders are followed, each folder once, so a link to a parent does not loop.
    Hidden files (macOS writes one beside each file on foreign disks), everything in hidden, trash
    and system folders, unfinished downloads, and single streams beside their whole video are
    passed over.

    Args:
        root: a folder, which may be hidden itself; an archive, or a prefix of an object store.
        suffixes: lower-case, with their dot; the case of files does not matter.
        scan: gets what is passed over or cannot be used.
        on_files: called with their number before the files of each folder are given.

    Yields:
        (folder, file name) for `storage.join`; the folder begins with `root` as given, or is the
        URL of a folder in the archive.

    Raises:
        UserError: nothing is there, or a folder cannot be listed.
    """
    scan = scan or Scan()
    for folder, has_clips, names in _folders(str(root), suffixes, scan):
        finished, others = _sorted_out(names, suffixes)
        if not has_clips:
            finished, others = [], finished + others
        scan.passed_over += (storage.join(folder, name) for name in others)
        on_files(len(finished))
        for name in finished:
            yield folder, name


Folder = tuple[str, bool, list[str]]  # its path or URL, whether clips may be in it, files in it


def _folders(root: str, suffixes: Collection[str], scan: Scan) -> Iterator[Folder]:
    """Every folder below a root, with the files directly in it."""
    if not storage.is_url(root) and os.path.isdir(root):
        yield from _local_folders(root)
        return
    if not storage.is_archive(root) and not storage.is_url(root):
        if os.path.exists(root):
            raise UserError(
                f"{root}: is a file; give the folder that contains the files, or an archive "
                f"({', '.join(storage.ARCHIVE_SUFFIXES)})."
            )
        raise UserError(f"{root}: no such folder.")
    if root not in scan.listings:
        scan.listings[root] = _listing_of(root, scan)
    listing = scan.listings[root]
    scheme = storage.archive_scheme(root)
    top = f"{scheme}://::{root}" if scheme else root
    if listing.damage:
        files = counted(len(listing.names), "file")
        scan.lost.append((root, f"{listing.damage}; {files} before that can be used"))
    scan.lost += (
        (storage.join(top, name), reason)
        for name, reason in listing.lost
        if os.path.splitext(name)[1].lower() in suffixes
    )
    yield from _grouped(top, listing.names)


def _listing_of(root: str, scan: Scan) -> storage.Listing:
    if not storage.archive_scheme(root):
        return storage.Listing(storage.list_below(root))
    try:
        listing = storage.list_archive(root, scan.keep)
    except FileNotFoundError:
        raise UserError(f"{root}: no such archive.") from None
    top = f"{storage.archive_scheme(root)}://::{root}"
    for name, text in listing.texts.items():
        scan.kept[storage.join(top, name)] = scan.read(text)
    listing.texts.clear()
    return listing


def _archives_in(folder: str) -> list[str]:
    """The archives directly in a folder."""
    names = (
        name
        for name in sorted(os.listdir(folder))
        if name.lower().endswith(storage.ARCHIVE_SUFFIXES)
    )
    return [os.path.join(folder, name) for name in names]


def _grouped(top: str, paths: Iterable[str]) -> Iterator[Folder]:
    """Files that are listed all at once, by the folders that they are in."""
    names: dict[str, list[str]] = {}
    for path in paths:
        folder, _, name = path.rpartition("/")
        names.setdefault(folder, []).append(name)
    for folder, inside in names.items():
        has_clips = all(map(_may_hold_clips, PurePosixPath(folder).parts))
        yield storage.join(top, folder) if folder else top, has_clips, inside


def _local_folders(root: str) -> Iterator[Folder]:
    seen: set[tuple[int, int]] = set()
    folders = [(root, True)]
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
        yield folder, has_clips, names


def described_passed_over(paths: Sequence[str]) -> list[str]:
    """A line for a person about the files that a scan passed over, if any."""
    if not paths:
        return []
    files = f"{counted(len(paths), 'file')} {'is' if len(paths) == 1 else 'are'}"
    shown = first_of(sorted(paths), 3)
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
