"""Manifests put together and taken apart, the same way for the same seed.

Pure functions over lists of clips.
"""

from __future__ import annotations

import random
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from avprep.clips import Clip


@dataclass(frozen=True)
class Conflict:
    """A clip that one manifest has and another has otherwise."""

    kept: Clip
    dropped: Clip


def merge_clips(manifests: Iterable[Iterable[Clip]]) -> tuple[list[Clip], int, list[Conflict]]:
    """The clips of several manifests, in order, each video_id once.

    Returns:
        the clips; how many were there again, just the same; and those that differ, of which the
        first is among the clips.
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


def split_clips(
    clips: Sequence[Clip], parts: Mapping[str, float], seed: int
) -> dict[str, list[Clip]]:
    """Divide clips into parts in which every class has its share.

    Iterative stratification (Sechidis, Tsoumakas, Vlahavas 2011): the rarest class is dealt out
    first, each clip to the part that lacks most of that class. With one label a clip, each part
    has its share of each class to within one clip. Segments of one video stay together, so no
    part has seen another's video.

    Args:
        clips: in the order of the manifest.
        parts: name of each part → its share; shares are relative.
        seed: of the choice among equals.

    Returns:
        the clips of each part in the order of the manifest, their `split` set to its name.
    """
    groups = _groups(clips)
    total = sum(parts.values())
    shares = [share / total for share in parts.values()]
    deal = _Deal(groups, shares, random.Random(seed))
    part_of = deal.run()
    divided: dict[str, list[Clip]] = {name: [] for name in parts}
    names = list(parts)
    group_of = {index: number for number, group in enumerate(groups) for index in group.members}
    for index, clip in enumerate(clips):
        name = names[part_of[group_of[index]]]
        divided[name].append(replace(clip, split=name))
    return divided


def sample_per_class(clips: Sequence[Clip], per_class: int, seed: int) -> list[Clip]:
    """A subset with at least so many clips of every class, or all there are, and few more.

    Classes are served from the rarest on; a clip counts for all its classes. With one label a
    clip, each class has exactly so many. This is how a retrieval subset of 5 clips a class is made.

    Returns:
        the clips in the order of the manifest.
    """
    order = list(range(len(clips)))
    random.Random(seed).shuffle(order)
    members: dict[str, list[int]] = defaultdict(list)
    for index in order:
        for label in set(clips[index].labels):
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
    return [clips[index] for index in sorted(chosen)]


@dataclass(frozen=True, slots=True)
class _Group:
    """Clips that stay together: segments of one video."""

    members: tuple[int, ...]
    labels: Counter[str]


def _groups(clips: Sequence[Clip]) -> list[_Group]:
    members: dict[str, list[int]] = {}
    for index, clip in enumerate(clips):
        segmented = clip.start is not None or clip.end is not None
        key = f"video {clip.video}" if clip.video and segmented else f"clip {index}"
        members.setdefault(key, []).append(index)
    return [
        _Group(
            tuple(indices),
            Counter(label for index in indices for label in set(clips[index].labels)),
        )
        for indices in members.values()
    ]


class _Deal:
    """Deals groups out to parts so that each part gets its share of each class.

    Args:
        groups: what is dealt.
        shares: of each part; they sum to one.
        rng: chooses among parts that need a group equally.
    """

    def __init__(
        self, groups: Sequence[_Group], shares: Sequence[float], rng: random.Random
    ) -> None:
        self.groups = groups
        self.rng = rng
        clips = sum(len(group.members) for group in groups)
        self.wanted = [share * clips for share in shares]  # clips that each part still lacks
        totals: Counter[str] = Counter()
        for group in groups:
            totals.update(group.labels)
        self.wanted_of = {  # and of each class
            label: [share * count for share in shares] for label, count in totals.items()
        }
        self.part_of = [-1] * len(groups)

    def run(self) -> list[int]:
        """The part of each group."""
        order = list(range(len(self.groups)))
        self.rng.shuffle(order)
        with_label: dict[str, list[int]] = defaultdict(list)
        remaining: Counter[str] = Counter()
        for number in order:
            for label in self.groups[number].labels:
                with_label[label].append(number)
                remaining[label] += 1
        while remaining:
            label = min(remaining, key=lambda label: (remaining[label], label))
            for number in with_label[label]:
                if self.part_of[number] < 0:
                    self._give(number, self._neediest(label))
                    for other in self.groups[number].labels:
                        remaining[other] -= 1
            for other in [name for name, count in remaining.items() if count <= 0]:
                del remaining[other]
        for number in order:
            if self.part_of[number] < 0:
                self._give(number, self._neediest(None))
        return self.part_of

    def _neediest(self, label: str | None) -> int:
        of_class = self.wanted if label is None else self.wanted_of[label]
        needs = list(zip(of_class, self.wanted, strict=True))
        most = max(needs)
        return self.rng.choice([part for part, need in enumerate(needs) if need == most])

    def _give(self, number: int, part: int) -> None:
        self.part_of[number] = part
        group = self.groups[number]
        self.wanted[part] -= len(group.members)
        for label, count in group.labels.items():
            self.wanted_of[label][part] -= count
