"""A manifest from a folder of videos: its sub-folders are the classes."""

from __future__ import annotations

import itertools
import os
import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from avprep.clips import (
    Clip,
    Places,
    Scan,
    VideoFile,
    discover_files,
    expanded,
    ids_of,
    is_writable,
    remarks_on_kinds,
)
from avprep.errors import UserError
from avprep.kinds import FileKind
from avprep.labels import LabelSet, label_set_for
from avprep.manifest.sources.match import UNNAMEABLE, Matches, extracted_audio
from avprep.manifest.sources.matched import DataSet, Matched
from avprep.manifest.sources.rows import Row, Segments
from avprep.manifest.sources.side_files import LabelReader, labels_beside, numbered_classes
from avprep.options import LabelSource
from avprep.storage import is_archive

_NO_LABELS = "unlabell?ed|unsupervised|nolabels?"
_UNLABELLED = re.compile(_NO_LABELS, re.IGNORECASE)
_SPLIT_NAMES = (
    "train|training|trainval|test|testing|val|valid|validation|dev|devel|eval|evaluation|holdout"
)
_SPLIT = re.compile(
    f"(?:(?:{_SPLIT_NAMES})(?:[ _-]?(?:set|split|data|videos|clips))?[ _-]?[0-9]*|{_NO_LABELS})",
    re.IGNORECASE,
)
_MAYBE_SPLIT = re.compile(  # `my_train`, `train-clean`, `fold1`
    rf"(?:.*[\W\d_])?(?:{_SPLIT_NAMES})(?:[\W\d_].*)?|(?:fold|split|subset)[ _-]?\d+",
    re.IGNORECASE,
)


def folder_manifest(root: Places, extracted: Path | None = None) -> tuple[list[Clip], LabelSet]:
    """The clips of a folder and their classes; for arguments and errors see `match_folder`."""
    matched = match_folder(root, extracted)
    return list(matched.clips()), matched.data_set.labels


def match_folder(
    root: Places,
    extracted: Path | None = None,
    labels: LabelSet | None = None,
    label_file: object = "the class CSV",
    split: str = "",
    on_files: Callable[[int], object] = lambda count: None,
    label_from: LabelSource | None = None,
    kinds: tuple[FileKind, ...] = (),
) -> Matched:
    """The videos of a folder, each labelled with the sub-folder that it lies in; see `places_of`.

    Videos in no sub-folder stay unlabelled, which is enough to pretrain on. Several folders,
    archives or prefixes of object stores count as one folder with everything in it.

    Args:
        root: the folder, or what else it may be.
        extracted: what `avprep extract` wrote for the same folder.
        labels: the label set to use; None to number the sorted names of the classes.
        label_file: where that label set is, for the message.
        split: the split that is wanted; "" for all.
        on_files: called with the number of files found in each folder.
        label_from: the file beside each video that has its classes, instead of the sub-folder.
        kinds: of files that are taken, see `Scan`.

    Raises:
        UserError: nothing is there, no video in it, no such split, a class is not in the label set,
            or folders may be splits or classes.
    """
    roots, scan = expanded(root), Scan(kinds)
    reader = None if label_from is None else LabelReader(label_from)
    if reader is not None:
        scan.keep, scan.read = reader.source.suffix, reader
    where = ", ".join(roots)
    files, ids, extras = _nameable(discover_files(roots, scan, on_files))
    folders, remarks = [file.folders for file in files], remarks_on_kinds(scan) * (not kinds)
    if all(map(is_archive, roots)) and (around := _packed_in(folders)):
        remarks.append(f"everything is in {'/'.join(around)}/, which is not taken for a class")
        folders = [parts[len(around) :] for parts in folders]
    places = places_of(folders, where, labels)
    if reader is None:
        classes = [[place.label] if place.label else [] for place in places]
        names = itertools.chain.from_iterable(classes)
        label_set, mids = label_set_for(names, labels, label_file)
    else:
        classes, unread = labels_beside(files, reader, scan)
        label_set, mids = numbered_classes(classes, labels, label_file)
        remarks += unread
    segments = Segments(
        Row(None, file.video, None, None, tuple(mids[name] for name in named), place.split)
        for file, named, place in zip(files, classes, places, strict=True)
    )
    data_set = DataSet(segments, label_set, named_by="path").only(split, where)
    if len(roots) == 1:
        remarks += _about_splits(data_set, Path(where), labels is None)
    if labels is None and reader is None:
        remarks += _doubtful_classes(data_set, folders)
    videos = Matches.named([file.video for file in files], extras)
    return Matched(
        data_set,
        ids,
        videos,
        extracted_audio(videos, ids, extracted),
        extracted,
        is_cut=False,
        scan=scan,
        looked_in=where,
        looked_for="",
        remarks=remarks,
    )


def _nameable(
    found: Sequence[VideoFile],
) -> tuple[list[VideoFile], list[str], list[tuple[str, str]]]:
    """The files that a manifest can name and their ids; and the others, with the reason."""
    files, ids, extras = [], [], []
    for file, video_id in zip(found, ids_of(found), strict=True):
        if is_writable(file.video):
            files.append(file)
            ids.append(video_id)
        else:
            extras.append((file.video, UNNAMEABLE))
    return files, ids, extras


def _packed_in(folders: Sequence[tuple[str, ...]]) -> tuple[str, ...]:
    """The folders around all others in archives, as around `videos/dog` and `videos/cat`."""
    ends = zip(min(folders, default=()), max(folders, default=()), strict=False)
    around = tuple(pair[0] for pair in itertools.takewhile(lambda pair: pair[0] == pair[1], ends))
    depth = min(map(len, folders), default=0)
    return around if depth > len(around) else ()


class Place(NamedTuple):
    """What a video's folders say of it."""

    label: str = ""  # name of its class; "" for none
    split: str = ""


def places_of(
    folders: Sequence[tuple[str, ...]], root: object, labels: LabelSet | None = None
) -> list[Place]:
    """Class and split of each video, by the first two folders that it lies in.

    First-level folders are classes. If all of them are named as splits are, they are splits, and
    the folders below are classes; where all second-level folders are, it is the other way round.
    Folders whose names contain a split's name, or a number, are splits if classes recur in them.
    Folders around the folder of splits are ignored. A folder `unlabelled` is not a class.

    Args:
        folders: of each video, from the outermost on.
        root: where they are, for messages.
        labels: a label set. Where all folders are named as its classes and have none below, they
            are classes, even one called `train`.

    Raises:
        UserError: some first-level folders look like splits and others do not.
    """
    folders = _unwrapped(folders, labels)
    level = _split_level(folders, root, labels)
    places = []
    for parts in folders:
        classes = parts[1:] if level == 0 else parts
        is_unlabelled = any(map(_UNLABELLED.fullmatch, (*parts[:1], *classes[:1])))
        label = classes[0] if classes and not is_unlabelled else ""
        places.append(Place(label, parts[level] if parts and level is not None else ""))
    return places


def _split_level(
    folders: Sequence[tuple[str, ...]], root: object, labels: LabelSet | None
) -> int | None:
    """Which of a video's folders is its split, from 0; None where no folder is a split."""
    tops = {parts[0] for parts in folders if parts}
    splits = {name for name in tops if _SPLIT.fullmatch(name)}
    if _classes_recur(folders):
        splits = tops
    if labels and all(map(labels.resolve, tops)) and all(len(parts) < 2 for parts in folders):
        splits = set()
    if splits and splits == tops:
        return 0
    _refuse_mixture(root, folders, splits)
    if tops and all(len(parts) > 1 and _SPLIT.fullmatch(parts[1]) for parts in folders):
        return 1
    return None


def _unwrapped(
    folders: Sequence[tuple[str, ...]], labels: LabelSet | None
) -> Sequence[tuple[str, ...]]:
    """Folders without the ones around all splits, as in `data/train/dog`; `dog/train` has none."""
    ends = zip(min(folders, default=()), max(folders, default=()), strict=False)
    around = sum(1 for _ in itertools.takewhile(lambda pair: pair[0] == pair[1], ends))
    is_class = around == 1 and labels is not None and labels.resolve(folders[0][0])
    if (
        around
        and not is_class
        and all(len(parts) > around + 1 and _SPLIT.fullmatch(parts[around]) for parts in folders)
    ):
        return [parts[around:] for parts in folders]
    return folders


def _classes_recur(folders: Iterable[Sequence[str]]) -> bool:
    """Whether first-level folders may be splits, and have a class in common with another one."""
    below: dict[str, set[str]] = {}
    for parts in folders:
        if parts:
            below.setdefault(parts[0], set()).add(parts[1].casefold() if len(parts) > 1 else "")
    counts = Counter(name for names in below.values() for name in names)
    return len(below) > 1 and all(
        _MAYBE_SPLIT.fullmatch(top) and "" not in names and any(counts[name] > 1 for name in names)
        for top, names in below.items()
    )


def _refuse_mixture(root: object, folders: Iterable[Sequence[str]], splits: set[str]) -> None:
    """Raises UserError where folders beside classes are probably splits of these."""
    named = sorted(name for name in splits if not _UNLABELLED.fullmatch(name))
    others = {parts[0] for parts in folders if parts} - splits
    below = {parts[1] for parts in folders if len(parts) > 1 and parts[0] in named}
    if others and (len(named) > 1 or below & others):
        raise UserError(
            f"{root}: {' and '.join(f'{name}/' for name in named)} look like splits, "
            f"{min(others)}/ like a class. Give a folder of splits only or of classes only, "
            "or a CSV of paths and labels with --csv."
        )


def _about_splits(data_set: DataSet, root: Path, is_numbered_here: bool) -> Iterator[str]:
    splits = Counter(row.split for row in data_set.segments.rows if row.split)
    if splits:
        counts = ", ".join(f"{name} ({count})" for name, count in sorted(splits.items()))
        yield f"its folders are splits: {counts}"
        if not data_set.split:
            yield f"the manifest has all splits; --split {min(splits)} selects one"
    elif is_numbered_here and (whole := _folder_of_splits(root)) is not None:
        yield (
            f"classes are numbered for this folder alone; `avprep manifest folder {whole} "
            f"--split {root.name}` numbers those of all splits together"
        )


def _doubtful_classes(data_set: DataSet, folders: Sequence[Sequence[str]]) -> Iterator[str]:
    """What may be wrong with classes that are made of the folders' names."""
    spellings: dict[str, list[str]] = {}
    for name in data_set.labels.names:
        spellings.setdefault(name.casefold(), []).append(name)
    for names in spellings.values():
        if len(names) > 1:
            yield f"the classes {' and '.join(names)} differ in case only; are they one?"
    if len(data_set.labels) == 1:
        (name,) = data_set.labels.names
        labelled = zip(data_set.segments.rows, folders, strict=True)
        if len({_behind(name, parts) for row, parts in labelled if row.labels}) > 1:
            yield (
                f"the only class is {name}, which contains folders; if those are the classes, "
                "give the folder that contains them, or a list with --csv"
            )


def _behind(name: str, folders: Sequence[str]) -> str:
    """The folder below the last one of that name; "" for none."""
    behind = {folder: folders[n : n + 1] for n, folder in enumerate(folders, start=1)}
    return "".join(behind.get(name, ()))


def _folder_of_splits(root: Path) -> Path | None:
    """The folder above, if this one and others beside it are splits."""
    if not _SPLIT.fullmatch(root.name):
        return None
    try:
        with os.scandir(root.parent) as entries:
            beside = sum(entry.is_dir() and bool(_SPLIT.fullmatch(entry.name)) for entry in entries)
    except OSError:
        return None
    return root.parent if beside > 1 else None
