"""Which clip goes into which shard: decided once, before any work, by pure functions."""

from __future__ import annotations

import hashlib
import itertools
import json
import operator
import random
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any, TypeVar

from avprep import storage
from avprep.clips import Clip
from avprep.failures import ClipFailure
from avprep.labels import LabelSet
from avprep.option import flat
from avprep.options import SampleOptions
from avprep.origins.place import place_of
from avprep.shards.format import TAR_BLOCK, VERSION, shard_name
from avprep.wording import changes, counted

Item = TypeVar("Item")

DEFAULT_SAMPLES_PER_SHARD = 500
_SHARDS_OF_A_SMALL_SET = 8  # enough for a laptop's cores to share the work
_TYPICAL = 5  # clips of a kind at a shard's beginning; some may fail

# What a sample weighs, before it exists: typical of real videos, and documented.
_ASSUMED_SECONDS = 10.0  # of a clip without `start` and `end`
_JPEG_BYTES_PER_PIXEL = 0.2  # at quality 75
_AUDIO_RATIO = {"flac": 0.6, "wav": 1.0}  # to 16-bit PCM

_clip_fields = operator.attrgetter(*(field.name for field in fields(Clip)))


@dataclass(frozen=True)
class ShardJob:
    """One shard to build: a job for one worker."""

    name: str
    clips: tuple[Clip, ...]


@dataclass(frozen=True)
class ShardPlan:
    """All shards of a shard set.

    Attributes:
        groups: shards that one worker builds together, because their clips lie in the same files;
            a shard of local videos is alone.
        rejected: clips that no job gets, such as duplicates.
        fingerprint: of everything that the shards' bytes depend on.
        made_with: what the fingerprint is of, clips aside.
    """

    groups: tuple[tuple[ShardJob, ...], ...]
    rejected: tuple[ClipFailure, ...]
    fingerprint: str
    made_with: Mapping[str, Mapping[str, Any]]

    @property
    def jobs(self) -> tuple[ShardJob, ...]:
        """All shards, in the order of their names."""
        return tuple(job for group in self.groups for job in group)

    @property
    def clips(self) -> int:
        """Clips in the manifest."""
        return sum(len(job.clips) for job in self.jobs) + len(self.rejected)


def plan_shards(
    clips: Sequence[Clip],
    labels: LabelSet,
    options: Mapping[str, Any],
    tools: Mapping[str, str],
    cut: ShardCut,
    seed: int = 0,
) -> ShardPlan:
    """Order the clips by a seeded shuffle and cut them into shards.

    Clips whose videos lie in an archive or on a server are kept together by file, in the order of
    the manifest, so that each file is read once: the files are shuffled, and then the clips of
    each shard. The shards of one file are a group; small files share one.

    Args:
        clips: the manifest. Of two clips with one video_id the first is taken.
        labels: the label set; part of what the shards' bytes depend on.
        options: everything else that the bytes depend on, JSON-able.
        tools: versions of the programs that decode and encode.
        cut: how large the shards are.
        seed: of the shuffle.
    """
    unique, rejected = split_duplicates(clips)
    cut = cut.settled(len(unique))
    shuffled = list(unique)
    random.Random(seed).shuffle(shuffled)
    apart, together = _by_file(unique, shuffled)
    order = {clip.video_id: rank for rank, clip in enumerate(shuffled)} if together else {}
    groups = [[part] for part in cut.parts(typical_first(apart))]
    groups += [
        [tuple(sorted(part, key=lambda clip: order[clip.video_id])) for part in parts]
        for parts in _grouped(together, cut)
    ]
    numbers = itertools.count()
    named = tuple(
        tuple(ShardJob(shard_name(next(numbers)), typical_first(part)) for part in group)
        for group in groups
    )
    made_with = {
        "options": flat(options),
        "classes": {"number": len(labels), "sha256": _digest([labels.mids, labels.names])},
        "manifest": {"sha256": _digest_of_each(map(_clip_fields, clips))},
        "versions": dict(tools),
    }
    jobs = [job for group in named for job in group]
    mark = fingerprint(jobs, labels, options, tools)
    return ShardPlan(named, tuple(rejected), mark, made_with)


def _by_file(
    clips: Sequence[Clip], shuffled: Sequence[Clip]
) -> tuple[list[Clip], list[list[Clip]]]:
    """The clips that lie in local files, shuffled; and the others by the file they lie in.

    The files are in the order of their first clips in the shuffle, the clips of each in that of
    the manifest, in which archives are read.
    """
    places = {
        clip.video_id: place_of(clip.video)
        for clip in clips
        if not clip.wav and storage.is_url(clip.video)
    }
    files: dict[tuple[str, str], list[Clip]] = {
        (place.file, place.kind): []
        for clip in shuffled
        if (place := places.get(clip.video_id)) is not None
    }
    for clip in clips:
        if (place := places.get(clip.video_id)) is not None:
            files[place.file, place.kind].append(clip)
    return [clip for clip in shuffled if clip.video_id not in places], list(files.values())


def _grouped(files: Iterable[Sequence[Clip]], cut: ShardCut) -> Iterator[list[tuple[Clip, ...]]]:
    """The shards of each file, or of the small ones that fill a shard together."""
    clips: list[Clip] = []
    weight = 0
    for file in files:
        more = sum(map(cut.weight, file))
        if clips and weight + more > cut.target:
            yield list(cut.parts(clips))
            clips, weight = [], 0
        clips += file
        weight += more
    if clips:
        yield list(cut.parts(clips))


def typical_first(clips: Sequence[Clip]) -> tuple[Clip, ...]:
    """Clips with labels ahead, if only some have them, and clips whose frame times will be known.

    Readers that learn the types of a sample's JSON from the first samples of a shard (Hugging Face
    `datasets`, from five) learn nothing from an empty list.
    """
    labelled = [clip for clip in clips if clip.labels][:_TYPICAL]
    timed = [clip for clip in clips if not clip.wav][:_TYPICAL]
    first = {
        clip.video_id: clip
        for pair in itertools.zip_longest(labelled, timed)
        for clip in pair
        if clip
    }
    return (*first.values(), *(clip for clip in clips if clip.video_id not in first))


@dataclass(frozen=True)
class CutByCount:
    """Shards of so many clips."""

    samples: int | None = None  # None: 500, or fewer where that makes under 8 shards

    @property
    def target(self) -> int:
        """The greatest weight of a shard."""
        return self.samples or DEFAULT_SAMPLES_PER_SHARD

    def settled(self, clips: int) -> CutByCount:
        """The same with a number, for a set of so many clips."""
        return CutByCount(self.samples or default_samples_per_shard(clips))

    def weight(self, clip: Clip) -> int:
        """What a clip counts for."""
        return 1

    def parts(self, clips: Sequence[Clip]) -> Iterator[tuple[Clip, ...]]:
        """Consecutive clips, all but the last part of one length."""
        for start in range(0, len(clips), self.target):
            yield tuple(clips[start : start + self.target])


@dataclass(frozen=True)
class CutByBytes:
    """Shards of about so many bytes, by what the clips should weigh: nothing is decoded for it."""

    target: int
    sample: SampleOptions

    def settled(self, clips: int) -> CutByBytes:
        """The same: it does not depend on the number of clips."""
        return self

    def weight(self, clip: Clip) -> int:
        """What a clip counts for."""
        return expected_bytes(clip, self.sample)

    def parts(self, clips: Sequence[Clip]) -> Iterator[tuple[Clip, ...]]:
        """Consecutive clips up to the target, and at least one."""
        begin, weight = 0, 0
        for number, clip in enumerate(clips):
            expected = self.weight(clip)
            if weight + expected > self.target and number > begin:
                yield tuple(clips[begin:number])
                begin, weight = number, 0
            weight += expected
        if begin < len(clips):
            yield tuple(clips[begin:])


ShardCut = CutByCount | CutByBytes


def expected_bytes(clip: Clip, options: SampleOptions) -> int:
    """What a clip's sample should take in a shard, from its times in the manifest alone."""
    decode = options.decode
    seconds = _ASSUMED_SECONDS
    if clip.end is not None:
        seconds = max(0.0, clip.end - (clip.start or 0.0))
    seconds = min(seconds, decode.max_audio)
    audio = seconds * decode.sample_rate * 2 * _AUDIO_RATIO[options.audio]
    jpegs = decode.frames * decode.frame_size**2 * _JPEG_BYTES_PER_PIXEL
    # Each member has a header and is padded to whole blocks, by half a block on average.
    tar = (2 + decode.frames) * (TAR_BLOCK + TAR_BLOCK // 2) + TAR_BLOCK
    return round(audio + jpegs + tar)


def default_samples_per_shard(clips: int) -> int:
    """500 samples per shard; a small set is spread over 8 shards instead."""
    return max(1, min(DEFAULT_SAMPLES_PER_SHARD, -(-clips // _SHARDS_OF_A_SMALL_SET)))


def split_duplicates(clips: Iterable[Clip]) -> tuple[list[Clip], list[ClipFailure]]:
    """The first clip of each video_id, and a failure for each later one."""
    unique: dict[str, Clip] = {}
    rejected = []
    for clip in clips:
        first = unique.get(clip.video_id)
        if first is None:
            unique[clip.video_id] = clip
        else:
            path = clip.file
            detail = f"{path}: video_id {clip.video_id!r} already stands for {first.file}"
            rejected.append(ClipFailure(clip.video_id, path, "plan", "duplicate-id", detail))
    return list(unique.values()), rejected


def fingerprint(
    jobs: Sequence[ShardJob],
    labels: LabelSet,
    options: Mapping[str, Any],
    tools: Mapping[str, str],
) -> str:
    """A digest of everything that the bytes of the shards depend on."""
    digest = hashlib.sha256()
    head = {"format": VERSION, "options": dict(options), "tools": dict(tools)}
    digest.update(json.dumps([head, labels.mids, labels.names], sort_keys=True).encode())
    for job in jobs:
        digest.update(json.dumps([job.name, [_clip_fields(clip) for clip in job.clips]]).encode())
    return digest.hexdigest()


def _digest(value: Any) -> str:
    return hashlib.sha256(json.dumps(value).encode()).hexdigest()


def _digest_of_each(values: Iterable[Any]) -> str:
    digest = hashlib.sha256()
    for value in values:
        digest.update(json.dumps(value).encode() + b"\n")
    return digest.hexdigest()


def differences(theirs: Mapping[str, Any], plan: ShardPlan) -> list[str]:
    """How the plan of a finished or begun shard set differs from another, in words.

    Args:
        theirs: the content of its plan.json.
        plan: the other.
    """
    found = []
    made_with = theirs.get("made_with", {})
    for group, between, title in (
        ("options", " = ", "other options"),
        ("versions", " ", "other program versions"),
    ):
        old, new = made_with.get(group, {}), plan.made_with[group]
        if old and (changed := changes(old, new, between)):
            found.append(f"{title} ({changed})")
    old, new = made_with.get("classes"), plan.made_with["classes"]
    if old and old != new:
        how = "in another order or with other names"
        if old["number"] != new["number"]:
            how = f"{counted(old['number'], 'class')}, not {new['number']}"
        found.append(f"another class CSV ({how})")
    old, new = made_with.get("manifest"), plan.made_with["manifest"]
    if theirs["clips"] != plan.clips:
        found.append(f"another manifest ({counted(theirs['clips'], 'clip')}, not {plan.clips})")
    elif old and old != new:
        found.append("another manifest of as many clips")
    elif theirs["shards"] != len(plan.jobs):
        found.append(
            f"another shard size ({counted(theirs['shards'], 'shard')}, not {len(plan.jobs)})"
        )
    if not made_with and not found:
        return ["another manifest, other options or other program versions"]
    unknown = "another shard size" if old else "another manifest of as many clips, or shard size"
    return found or [unknown]


def part_of(items: Sequence[Item], part: int, parts: int) -> tuple[Item, ...]:
    """Every `parts`-th item from `part` (counted from 1) on: what one of many machines does."""
    return tuple(items[part - 1 :: parts])
