"""`avprep duplicates`: clips that are nearly the same, inside a shard set and between sets."""

from __future__ import annotations

import math
import sys
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from avprep import storage
from avprep.csvfile import csv_bytes
from avprep.errors import UserError
from avprep.options import DuplicateOptions
from avprep.pages.duplicate_pairs import FoundPair, Place, duplicates_page, show_pairs
from avprep.progress import OnProgress, each, ignore
from avprep.quality.hashes import from_text
from avprep.quality.measures import PICTURE_HASH, SOUND_HASH
from avprep.quality.near import (
    MOST_CLIPS,
    PICTURE,
    SOUND,
    Hashes,
    connected,
    distances,
    find_pairs,
    recognisable,
)
from avprep.selection import write_selection
from avprep.shards.format import DatasetInfo, ShardIndex, read_dataset
from avprep.shards.measured import read_indexes, read_measures

_HEADER = ("group", "set", "video_id", "split", "kept", "picture", "sound")
_SPLITS = {"test": 0, "train": 2}  # the lowest is kept; other splits, and clips without one, are 1


@dataclass(frozen=True)
class Selected:
    """The selection of one set without its duplicates."""

    path: Path
    clips: int
    dropped: int


@dataclass(frozen=True)
class Duplicates:
    """What was found and written."""

    clips: int  # of all sets
    groups: int
    in_groups: int  # clips
    leaks: int  # groups with clips of several sets or splits
    without_picture: int  # clips whose pictures have too little to recognise
    without_sound: int
    table: Path
    page: Path
    shown: int  # pairs on the page
    selections: tuple[Selected, ...]

    @property
    def counts(self) -> dict[str, int]:
        """What was found, in words and numbers."""
        return {
            "Clips": self.clips,
            "Groups": self.groups,
            "Clips in groups": self.in_groups,
            "Groups across sets or splits": self.leaks,
            "Pictures with too little to recognise": self.without_picture,
            "Sounds with too little to recognise": self.without_sound,
        }


def find_duplicates(
    shards: Sequence[str],
    out: str | Path,
    options: DuplicateOptions = DuplicateOptions(),
    on_progress: OnProgress = ignore,
) -> Duplicates:
    """Find clips that are nearly the same; write a table, a page, and a selection for each set.

    One clip of each group is kept: preferably one of the split `test`, and one of `train` only if
    there is no other; among these, the first clip of the set named last.

    Args:
        shards: folders or URL prefixes of shard sets that were measured.
        out: folder for `duplicates.csv`, `duplicates.html` and `selection-NAME.csv` of each set.
        options: what must be alike, and what the page shows.
        on_progress: called with progress: shards whose hashes were read.

    Raises:
        UserError: a set cannot be read or was not measured, or a file cannot be written.
    """
    clips, hashes = read_hashes(shards, on_progress)
    pairs = find_pairs(hashes, options.by)
    groups = keep_one_each(connected(len(clips), pairs.first, pairs.second), clips.preference)
    to_kept = np.stack([groups.clips, groups.kept], axis=1)
    picture = distances(hashes.picture, PICTURE, to_kept)
    sound = distances(hashes.sound, SOUND, to_kept)
    leaks = _leaks(clips, groups)
    without_picture, without_sound = (
        int(np.count_nonzero(~recognisable(rows, kind)))
        for rows, kind in ((hashes.picture, PICTURE), (hashes.sound, SOUND))
    )
    chosen = _worth_seeing(groups, leaks, picture, sound)[: options.pairs].tolist()
    found = [
        FoundPair(
            int(groups.numbers[at]),
            clips.place(int(groups.kept[at])),
            clips.place(int(groups.clips[at])),
            float(picture[at]),
            float(sound[at]),
        )
        for at in chosen
    ]
    shown = show_pairs(found, options.max_mb)
    out = Path(out)
    storage.make_folder(out)
    made = Duplicates(
        clips=len(clips),
        groups=groups.count,
        in_groups=len(groups.clips),
        leaks=len(leaks),
        without_picture=without_picture,
        without_sound=without_sound,
        table=out / "duplicates.csv",
        page=out / "duplicates.html",
        shown=len(shown),
        selections=_write_selections(clips, groups, out),
    )
    rows = _rows(clips, groups, picture, sound)
    storage.write_atomic(made.table, csv_bytes([_HEADER, *rows]))
    storage.write_atomic(made.page, duplicates_page(shown, made.counts, ", ".join(shards)))
    return made


@dataclass(frozen=True)
class Clips:
    """What is remembered of the clips of some sets, one set after the other: little."""

    locations: tuple[str, ...]
    infos: tuple[DatasetInfo, ...]
    starts: tuple[int, ...]  # the first clip of each set, and the number of all
    video_ids: Sequence[str]
    splits: Sequence[str]

    def __len__(self) -> int:
        return self.starts[-1]

    def set_of(self, clips: NDArray[np.int64]) -> NDArray[np.int64]:
        """The number of the set of each clip."""
        return np.searchsorted(self.starts, clips, side="right") - 1

    def preference(self, clips: NDArray[np.int64]) -> NDArray[np.int64]:
        """Which clips are kept rather than others: those with the lowest number."""
        splits = np.array([_SPLITS.get(self.splits[clip], 1) for clip in clips.tolist()], np.int64)
        return splits * len(self.locations) - self.set_of(clips)

    def place(self, clip: int) -> Place:
        """Where the bytes of a clip are."""
        number = int(self.set_of(np.array([clip]))[0])
        rest = clip - self.starts[number]
        for shard in self.infos[number].shards:
            if rest < shard.samples:
                break
            rest -= shard.samples
        return Place(self.locations[number], shard.name, rest)


@dataclass(frozen=True)
class Groups:
    """Groups of near-duplicates. The clips of one follow each other, the one that is kept first.

    Attributes:
        clips, kept, numbers: int64 [clips in groups]: a clip, the one of its group that is kept,
            and the number of its group, from 1.
    """

    clips: NDArray[np.int64]
    kept: NDArray[np.int64]
    numbers: NDArray[np.int64]

    @property
    def count(self) -> int:
        """How many groups there are."""
        return int(self.numbers[-1]) if len(self.numbers) else 0


def read_hashes(locations: Sequence[str], on_progress: OnProgress = ignore) -> tuple[Clips, Hashes]:
    """The hashes of all clips of some shard sets.

    Raises:
        UserError: a set cannot be read or was not measured, two are the same, or all together have
            too many clips.
    """
    if again := [name for name, times in Counter(locations).items() if times > 1]:
        raise UserError(f"{again[0]}: named twice. Name each shard set once.")
    infos = [read_dataset(location) for location in locations]
    starts = [0, *np.cumsum([info.samples for info in infos]).tolist()]
    if starts[-1] > MOST_CLIPS:
        raise UserError(
            f"{', '.join(locations)}: {starts[-1]} clips; {MOST_CLIPS} can be compared at a time."
        )
    hashes = Hashes.empty(starts[-1])
    video_ids: list[str] = []
    splits: list[str] = []
    on_shard = each("shard", on_progress, sum(len(info.shards) for info in infos))
    for location, info in zip(locations, infos, strict=True):
        for index in read_indexes(location, info):
            for clip, values in enumerate(_hashes_of(location, index), len(video_ids)):
                hashes.put(clip, *values)
            video_ids += (entry.video_id for entry in index.samples)
            splits += (sys.intern(entry.split) for entry in index.samples)
            on_shard()
    return Clips(tuple(locations), tuple(infos), tuple(starts), video_ids, splits), hashes


def _hashes_of(location: str, index: ShardIndex) -> list[tuple[bytes, bytes]]:
    if not index.samples:
        return []
    columns = read_measures(location, index).columns
    try:
        texts = zip(columns[PICTURE_HASH], columns[SOUND_HASH], strict=True)
        return [(from_text(str(picture)), from_text(str(sound))) for picture, sound in texts]
    except (KeyError, ValueError) as error:
        raise UserError(
            f"{location}: {index.name} has no perceptual hashes ({error!r}). Run `avprep measure "
            f"{location}`."
        ) from error


def keep_one_each(
    leader: NDArray[np.int64], preference: Callable[[NDArray[np.int64]], NDArray[np.int64]]
) -> Groups:
    """The groups of more than one clip, and which clip of each is kept.

    Args:
        leader: int64 [clips], the first clip of the group that each belongs to.
        preference: of clips, the lowest is kept; of equals, the first clip.
    """
    sizes = np.bincount(leader, minlength=len(leader))
    clips = np.flatnonzero(sizes[leader] > 1)
    clips = clips[np.lexsort((clips, preference(clips), leader[clips]))]
    is_first = np.diff(leader[clips], prepend=-1) != 0
    numbers = np.cumsum(is_first)
    return Groups(clips, clips[is_first][numbers - 1], numbers)


def _leaks(clips: Clips, groups: Groups) -> set[int]:
    """The numbers of groups with clips of several sets or splits."""
    sides: dict[int, set[tuple[int, str]]] = {}
    sets = clips.set_of(groups.clips).tolist()
    for number, clip, of_set in zip(
        groups.numbers.tolist(), groups.clips.tolist(), sets, strict=True
    ):
        sides.setdefault(number, set()).add((of_set, clips.splits[clip]))
    return {number for number, found in sides.items() if len(found) > 1}


def _rows(
    clips: Clips, groups: Groups, picture: NDArray[np.float32], sound: NDArray[np.float32]
) -> Iterator[tuple[object, ...]]:
    """The rows of duplicates.csv."""
    for number, clip, kept, of_set, *distance in zip(
        groups.numbers.tolist(),
        groups.clips.tolist(),
        groups.kept.tolist(),
        clips.set_of(groups.clips).tolist(),
        picture.tolist(),
        sound.tolist(),
        strict=True,
    ):
        yield (
            number,
            clips.locations[of_set],
            clips.video_ids[clip],
            clips.splits[clip],
            "yes" if clip == kept else "no",
            *("" if math.isnan(share) else f"{share:.3f}" for share in distance),
        )


def _worth_seeing(
    groups: Groups, leaks: set[int], picture: NDArray[np.float32], sound: NDArray[np.float32]
) -> NDArray[np.int64]:
    """Which clips to show beside those that are kept: of leaks, then the most doubtful first."""
    doubt = np.nan_to_num(picture) + np.nan_to_num(sound)
    is_leak = np.isin(groups.numbers, list(leaks))
    order = np.lexsort((groups.clips, -doubt, ~is_leak))
    return order[groups.clips[order] != groups.kept[order]]


def _write_selections(clips: Clips, groups: Groups, out: Path) -> tuple[Selected, ...]:
    is_kept = np.ones(len(clips), bool)
    is_kept[groups.clips] = groups.clips == groups.kept
    made = []
    names = _names(clips.locations)
    for name, start, end in zip(names, clips.starts, clips.starts[1:], strict=False):
        path = out / f"selection-{name}.csv"
        chosen = start + np.flatnonzero(is_kept[start:end])
        write_selection(path, (clips.video_ids[clip] for clip in chosen.tolist()))
        made.append(Selected(path, len(chosen), end - start - len(chosen)))
    return tuple(made)


def _names(locations: Sequence[str]) -> list[str]:
    """The last folder of each location; numbered if two are called the same."""
    last = [
        (location if storage.is_url(location) else str(Path(location).resolve()))
        .rstrip("/")
        .rpartition("/")[2]
        for location in locations
    ]
    if len(set(last)) == len(last):
        return last
    return [f"{name}-{number}" for number, name in enumerate(last, 1)]
