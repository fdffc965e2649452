"""A manifest from a folder of videos: its sub-folders are the classes."""

from __future__ import annotations

import itertools
import os
import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple

from avprep.clips import Clip, described_passed_over, discover_clips, is_writable
from avprep.errors import UserError
from avprep.extraction import audio_path, is_extracted
from avprep.labels import LabelSet, label_set_for
from avprep.manifest.build import Finding
from avprep.wording import counted

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


def folder_manifest(root: Path, extracted: Path | None = None) -> tuple[list[Clip], LabelSet]:
    """The clips of a folder and their classes; see `label_by_folder`.

    Raises:
        UserError: no such folder, or no video in it.
    """
    return label_by_folder(discover_clips(root), root, extracted)


def label_by_folder(
    clips: Sequence[Clip],
    root: Path,
    extracted: Path | None = None,
    labels: LabelSet | None = None,
    label_file: object = "the class CSV",
) -> tuple[list[Clip], LabelSet]:
    """Label each clip with the sub-folder that it lies in; see `places_of`.

    Videos directly in `root` stay unlabelled, which is enough to pretrain on.

    Args:
        clips: of videos below `root`.
        root: folder of videos.
        extracted: what `avprep extract` wrote for the same folder; clips found there get `wav`
            and `video_path`.
        labels: the label set to use; None to number the sorted names of the classes.
        label_file: where that label set is, for the message.

    Raises:
        UserError: a class is not in the label set, or folders may be splits or classes.
    """
    places = places_of(clips, root, labels)
    names = (place.label for place in places if place.label)
    label_set, mids = label_set_for(names, labels, label_file)
    return [
        with_extracted(
            replace(clip, labels=(mids[place.label],) if place.label else (), split=place.split),
            extracted,
        )
        for clip, place in zip(clips, places, strict=True)
    ], label_set


class Place(NamedTuple):
    """What a video's folders say of it."""

    label: str = ""  # name of its class; "" for none
    split: str = ""


def places_of(clips: Sequence[Clip], root: Path, labels: LabelSet | None = None) -> list[Place]:
    """Class and split of each video, by its first two folders below `root`.

    First-level folders are classes. If all of them are named as splits are, they are splits, and
    the folders below are classes; where all second-level folders are, it is the other way round.
    Folders whose names only hold a split's name, or a number, are splits if classes recur in them.
    Folders that hold nothing but the folder of splits are looked through. A folder `unlabelled` is
    no class.

    Args:
        clips: of videos below `root`.
        root: the folder.
        labels: a label set. Where all folders are named as its classes and have none below, they
            are classes, even one called `train`.

    Raises:
        UserError: some first-level folders look like splits and others do not.
    """
    folders = _unwrapped([Path(clip.video).relative_to(root).parts[:-1] for clip in clips], labels)
    tops = {parts[0] for parts in folders if parts}
    splits = {name for name in tops if _SPLIT.fullmatch(name)}
    if _classes_recur(folders):
        splits = tops
    if labels and all(labels.resolve(name) for name in tops) and all(len(f) < 2 for f in folders):
        splits = set()
    if splits and splits == tops:
        return [
            Place(_class_name(parts[1:]) if not _is_unlabelled(parts[:1]) else "", *parts[:1])
            for parts in folders
        ]
    _refuse_mixture(root, folders, splits)
    if tops and all(len(parts) > 1 and _SPLIT.fullmatch(parts[1]) for parts in folders):
        return [Place(_class_name(parts), parts[1]) for parts in folders]
    return [Place(_class_name(parts)) for parts in folders]


def _unwrapped(folders: list[tuple[str, ...]], labels: LabelSet | None) -> list[tuple[str, ...]]:
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


def _class_name(folders: Sequence[str]) -> str:
    return "" if not folders or _is_unlabelled(folders) else folders[0]


def _is_unlabelled(folders: Sequence[str]) -> bool:
    return bool(folders) and _UNLABELLED.fullmatch(folders[0]) is not None


def _refuse_mixture(root: Path, folders: Iterable[Sequence[str]], splits: set[str]) -> None:
    """Raises UserError where folders beside classes are probably splits of these."""
    named = sorted(name for name in splits if not _UNLABELLED.fullmatch(name))
    others = {parts[0] for parts in folders if parts} - splits
    below = {parts[1] for parts in folders if len(parts) > 1 and parts[0] in named}
    if others and (len(named) > 1 or below & others):
        raise UserError(
            f"{root}: {' and '.join(f'{name}/' for name in named)} look like splits, "
            f"{min(others)}/ like a class. Give a folder that holds splits only or classes only, "
            "or a CSV of paths and labels with --csv."
        )


@dataclass(frozen=True)
class MatchedFolder:
    """The videos of a folder.

    Attributes:
        root: the folder.
        labelled: the clips, of all splits.
        labels: the label set.
        unnameable: videos whose path is not UTF-8 and cannot stand in a manifest.
        split: the clips that are wanted; "" for all.
        numbered_here: whether the folder's own names number the classes.
        passed_over: see `avprep.clips.scan_files`.
    """

    root: Path
    labelled: list[Clip]
    labels: LabelSet
    unnameable: list[Clip]
    split: str = ""
    numbered_here: bool = False
    passed_over: Sequence[str] = ()

    def clips(self) -> Iterator[Clip]:
        """The clips, by path."""
        return (clip for clip in self.labelled if self.split in ("", clip.split))

    def report(self) -> Iterator[Finding]:
        """What became of every file."""
        for clip in self.clips():
            yield Finding("matched", clip.video_id, path=clip.wav or clip.video)
        for clip in self.unnameable:
            yield Finding("extra", path=clip.video, detail="its path is not UTF-8; rename it")

    def notes(self, source: object) -> list[str]:
        """What a person should know."""
        notes = []
        splits = Counter(clip.split for clip in self.labelled if clip.split)
        if splits:
            counts = ", ".join(f"{name} ({count})" for name, count in sorted(splits.items()))
            notes.append(f"{source}: its folders are splits: {counts}")
            if not self.split:
                notes.append(
                    f"{source}: the manifest holds all splits; --split {min(splits)} takes one"
                )
        elif self.numbered_here and (whole := _folder_of_splits(self.root)) is not None:
            notes.append(
                f"{source}: classes are numbered for this folder alone; `avprep manifest folder "
                f"{whole} --split {self.root.name}` numbers those of all splits together"
            )
        notes += [f"{source}: {note}" for note in self._doubtful_classes()]
        unlabelled = sum(not clip.labels for clip in self.clips())
        if unlabelled and len(self.labels):
            notes.append(
                f"{source}: {counted(unlabelled, 'video')} in no class folder, left unlabelled"
            )
        if self.unnameable:
            notes.append(
                f"{source}: {counted(len(self.unnameable), 'path')} left out, not being UTF-8"
            )
        return notes + described_passed_over(self.passed_over)

    def _doubtful_classes(self) -> Iterator[str]:
        """What may be wrong with classes that are made of the folders' names."""
        if not self.numbered_here:
            return
        spellings: dict[str, list[str]] = {}
        for name in self.labels.names:
            spellings.setdefault(name.casefold(), []).append(name)
        for names in spellings.values():
            if len(names) > 1:
                yield f"the classes {' and '.join(names)} differ in case only; are they one?"
        if len(self.labels) == 1:
            (name,) = self.labels.names
            below = {_behind(name, Path(clip.video).parts[:-1]) for clip in self.labelled}
            if len(below) > 1:
                yield (
                    f"the only class is {name}, which holds folders; if those are the classes, "
                    "give a folder that holds them, or a list with --csv"
                )

    def why_nothing_matched(self) -> str:
        """What was there."""
        return f"not one of its {len(self.unnameable)} videos has a path that is UTF-8."


def match_folder(
    root: Path,
    extracted: Path | None,
    labels: LabelSet | None,
    label_file: object,
    split: str = "",
    on_file: Callable[[], object] = lambda: None,
) -> MatchedFolder:
    """The clips of a folder.

    For the arguments see `label_by_folder`, `MatchedFolder` and `discover_clips`.

    Raises:
        UserError: no such folder, no video in it, no such split, or a sub-folder is not in the
            label set.
    """
    passed_over: list[str] = []
    clips = discover_clips(root, passed_over, on_file)
    good = [clip for clip in clips if is_writable(clip.video)]
    bad = [clip for clip in clips if not is_writable(clip.video)]
    labelled, label_set = label_by_folder(good, root, extracted, labels, label_file)
    if split:
        split = chosen_split(split, {clip.split for clip in labelled}, root)
    return MatchedFolder(root, labelled, label_set, bad, split, labels is None, passed_over)


def chosen_split(wanted: str, splits: Iterable[str], where: object) -> str:
    """The split that is wanted, as it is spelt there.

    Raises:
        UserError: there is no such split.
    """
    there = {name.casefold(): name for name in splits if name}
    if wanted.casefold() in there:
        return there[wanted.casefold()]
    if there:
        listed = ", ".join(sorted(there.values()))
        raise UserError(f"{where}: has no split {wanted!r}; it has {listed}.")
    raise UserError(
        f"{where}: has no splits, so there is no {wanted!r} to choose. Leave --split out; to make "
        "splits, see `avprep manifest split --help`."
    )


def _behind(name: str, folders: Sequence[str]) -> str:
    """The folder below the last one of that name; "" for none."""
    if name not in folders:
        return ""
    return dict(zip(folders, (*folders[1:], ""), strict=True))[name]


def _folder_of_splits(root: Path) -> Path | None:
    """The folder above, if this one and others beside it are splits."""
    if not _SPLIT.fullmatch(root.name):
        return None
    try:
        beside = [
            entry.name
            for entry in os.scandir(root.parent)
            if entry.is_dir() and _SPLIT.fullmatch(entry.name)
        ]
    except OSError:
        return None
    return root.parent if len(beside) > 1 else None


def with_extracted(clip: Clip, extracted: Path | None) -> Clip:
    """A clip with its audio and frames below `extracted`, if they are there."""
    if extracted is None:
        return clip
    if not is_extracted(extracted, clip.video_id):
        return clip
    wav = audio_path(extracted, clip.video_id)
    return replace(clip, wav=str(wav), video_path=str(extracted / "frames"))
