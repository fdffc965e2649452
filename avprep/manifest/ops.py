"""Manifests put together and taken apart, the same way for the same seed.

Pure functions over clips.
"""

from __future__ import annotations

import random
from array import array
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from avprep.clips import Clip
from avprep.compact import CompactClips
from avprep.manifest.groups import held_together


@dataclass(frozen=True)
class Conflict:
    """A clip that two manifests have with different contents."""

    kept: Clip
    dropped: Clip


def merge_clips(manifests: Iterable[Iterable[Clip]]) -> tuple[list[Clip], int, list[Conflict]]:
    """The clips of several manifests, in order, each video_id once.

    Returns:
        the clips; how many came again unchanged; and those that differ, of which the first is
        among the clips.
    """
    merged: dict[str, Clip] = {}
    same, conflicts = 0, []
    for clips in manifests:
        for clip in clips:
            first = merged.get(clip.video_id)
            if first is None:
                merged[clip.video_id] = clip
            elif first == clip:
                same += 1
            else:
                conflicts.append(Conflict(first, clip))
    return list(merged.values()), same, conflicts


def classes_of(clips: Iterable[Clip]) -> Counter[str]:
    """How many clips each label has."""
    return Counter(label for clip in clips for label in set(clip.labels))


def split_clips(
    clips: Sequence[Clip],
    parts: Mapping[str, float],
    seed: int,
    groups: Mapping[str, Sequence[str]] | None = None,
) -> dict[str, list[Clip]]:
    """Divide clips into parts in which every class has its share.

    Iterative stratification (Sechidis, Tsoumakas, Vlahavas 2011): the rarest class is dealt out
    first, each clip to the part that lacks most of that class. With one label per clip, each part
    has its share of each class to within one clip. What belongs together (`held_together`) stays
    together, the largest groups being dealt out first.

    Args:
        clips: in the order of the manifest.
        parts: name of each part → its share; shares are relative.
        seed: of the choice among equals.
        groups: of duplicates, by `video_id`.

    Returns:
        the clips of each part in the order of the manifest, their `split` set to its name.
    """
    together = held_together(clips, groups)
    labels = [classes_of(clips[index] for index in group) for group in together]
    total = sum(parts.values())
    dealt = _dealt(
        [len(group) for group in together],
        labels,
        [share / total for share in parts.values()],
        random.Random(seed),
    )
    names = list(parts)
    part_of = {
        index: names[part] for group, part in zip(together, dealt, strict=True) for index in group
    }
    divided: dict[str, list[Clip]] = {name: [] for name in parts}
    for index, clip in enumerate(clips):
        divided[part_of[index]].append(replace(clip, split=part_of[index]))
    return divided


def _dealt(
    sizes: Sequence[int],
    labels: Sequence[Counter[str]],
    shares: Sequence[float],
    rng: random.Random,
) -> list[int]:
    """The part of each group of clips, so that each part gets its share of each class.

    Args:
        sizes: clips of each group.
        labels: of each group, clips of each class.
        shares: of each part; they sum to one.
        rng: chooses among parts that need a group equally.
    """
    totals: Counter[str | None] = Counter({None: sum(sizes)})  # None: of any class
    for counts in labels:
        totals.update(counts)
    lacking = {label: [share * count for share in shares] for label, count in totals.items()}
    order = list(range(len(sizes)))
    rng.shuffle(order)
    order.sort(key=lambda group: -sizes[group])  # small ones can still even out the shares
    holding: dict[str, list[int]] = defaultdict(list)
    for group in order:
        for label in labels[group]:
            holding[label].append(group)
    remaining = Counter({label: len(groups) for label, groups in holding.items()})
    part_of: dict[int, int] = {}

    def deal(groups: Sequence[int], label: str | None) -> None:
        for group in groups:
            if group in part_of:
                continue
            needs = list(zip(lacking[label], lacking[None], strict=True))
            most = max(needs)
            part = rng.choice([part for part, need in enumerate(needs) if need == most])
            part_of[group] = part
            lacking[None][part] -= sizes[group]
            for other, count in labels[group].items():
                lacking[other][part] -= count
                remaining[other] -= 1

    while rest := {label: count for label, count in remaining.items() if count > 0}:
        rarest = min(rest, key=lambda label: (rest[label], label))
        deal(holding[rarest], rarest)
    deal(order, None)
    return [part_of[group] for group in range(len(sizes))]


def sample_per_class(clips: Iterable[Clip], per_class: int, seed: int) -> CompactClips:
    """A subset with at least `per_class` clips of every class, or all there are, and few more.

    Classes are served from the rarest on; a clip counts for all its classes. With one label per
    clip, each class has exactly that many. Retrieval subsets of 5 clips per class are made so.

    Returns:
        the clips in the order of the manifest.
    """
    clips = CompactClips.of(clips)
    order = array("I", range(len(clips)))
    random.Random(seed).shuffle(order)
    members: dict[str, array[int]] = defaultdict(lambda: array("I"))
    for index, clip in zip(order, clips.at(order), strict=True):
        for label in set(clip.labels):
            members[label].append(index)
    chosen: set[int] = set()
    have: Counter[str] = Counter()
    for label in sorted(members, key=lambda label: (len(members[label]), label)):
        for index in members[label]:
            if have[label] >= per_class:
                break
            if index not in chosen:
                chosen.add(index)
                have.update(set(clips[index].labels))
    return clips.at(sorted(chosen))
