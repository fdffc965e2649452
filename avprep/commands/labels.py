"""Class CSVs are made, checked and downloaded."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Literal

from avprep.clips import discover_clips, is_writable
from avprep.errors import UserError, WorkFailed
from avprep.fetch import SOURCES, Fetched, fetch_file
from avprep.labels import (
    LabelSet,
    label_set_from_names,
    read_label_csv,
    vggsound_labels,
    write_label_csv,
)
from avprep.manifest.sources.folder import places_of
from avprep.manifest.sources.vggsound import read_vggsound
from avprep.options import FetchOptions
from avprep.progress import OnProgress, Progress, each, ignore


def write_folder_labels(
    root: str | Path, out: str | Path, on_progress: OnProgress = ignore
) -> LabelSet:
    """Write a class CSV of the classes that a folder's sub-folders are, sorted by name.

    Args:
        root: folder of videos.
        out: class CSV to write.
        on_progress: hears of files found.

    Raises:
        UserError: no video there, or none in a sub-folder; a name that is not UTF-8; or `out`
            holds other classes.
    """
    root = Path(root)
    clips = discover_clips(root, on_file=each("file", on_progress))
    names = {place.label for place in places_of(clips, root)} - {""}
    if not names:
        raise UserError(f"{root}: its videos are in no sub-folder, so there are no classes.")
    for name in names:
        if not is_writable(name):
            raise UserError(f"{root / name}: a name that is not UTF-8; rename the folder.")
    labels = label_set_from_names(names)
    _write_new(Path(out), labels)
    return labels


def write_vggsound_labels(
    out: str | Path, csv: str | Path | None = None
) -> tuple[LabelSet, list[str]]:
    """Write VGGSound's 309 classes in their published order.

    Args:
        out: class CSV to write.
        csv: VGGSound's CSV, which is checked to name no other class.

    Returns:
        The label set, and what was put right in the CSV.

    Raises:
        UserError: the CSV has a bad row, or `out` holds other classes.
    """
    labels, notes = vggsound_labels(), list[str]()
    if csv is not None:
        found = read_vggsound(Path(csv), labels).notes
        found.refuse_bad_rows(csv)
        notes = found.lines(csv)
    _write_new(Path(out), labels)
    return labels, notes


@dataclass(frozen=True)
class LabelCheck:
    """What was found in a class CSV."""

    classes: int
    shared_names: dict[str, int]  # display names of several classes, and of how many


def check_labels(csv: str | Path) -> LabelCheck:
    """Check a class CSV: header, numbering, and every mid once.

    Raises:
        UserError: it is wrong; with the line.
    """
    names = read_label_csv(Path(csv)).names
    shared = sorted({name for name in names if names.count(name) > 1})
    return LabelCheck(len(names), {name: names.count(name) for name in shared})


def fetch_labels(
    data_set: Literal["audioset", "vggsound"],
    out: str | Path,
    options: FetchOptions = FetchOptions(),
    on_progress: OnProgress = ignore,
) -> Iterator[Fetched]:
    """Download a data set's official CSVs into a folder, and yield each when it is there.

    A file gets its name when all of it has arrived. One that is there is kept.

    Args:
        data_set: whose.
        out: folder.
        options: the files, where they are, their digests, and how patiently they are fetched.
        on_progress: hears of bytes, file by file.

    Raises:
        UserError: no such file, or one that is there has another digest.
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
        raise WorkFailed(f"{url}: sends no class CSV: {error}") from error


def _write_new(path: Path, labels: LabelSet) -> None:
    """Raises:
    UserError: the file exists and has other classes, which manifests may rely on.
    """
    if path.exists() and read_label_csv(path) != labels:
        raise UserError(f"{path}: has other classes. Delete it, or choose another --out.")
    write_label_csv(path, labels)
