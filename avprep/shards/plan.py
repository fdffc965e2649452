"""Which clip goes into which shard: decided once, before any work, by pure functions."""

from __future__ import annotations

import hashlib
import itertools
import json
import random
from array import array
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from avprep import storage
from avprep.clips import Clip
from avprep.compact import CompactClips, repeats
from avprep.failures import ClipFailure
from avprep.labels import LabelSet
from avprep.option import flat
from avprep.options import SampleOptions
from avprep.origins.place import readable_place
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

_LOCAL = -1


@dataclass(frozen=True)
class ShardJob:
    """One shard to build: a job for one worker."""

    name: str
    clips: Sequence[Clip]


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

    Raises:
        UserError: a label that is not in the label set, or a video's URL of a kind that cannot be
            read.
    """
    clips = CompactClips.of(clips)
    known = _Known.of(clips, labels, cut)
    unique, rejected = split_duplicates(clips, known.hashes)
    target = cut.target(len(unique))
    shuffled = unique[:]
    random.Random(seed).shuffle(shuffled)
    apart, together = _by_file(unique, shuffled, known.files)
    ranks = _ranks(shuffled, len(clips)) if together else array("I")
    first = typical_first(apart, known.labelled, known.timed)
    groups = [[part] for part in parts_of(first, known.weights, target)]
    groups += [
        [array("I", sorted(part, key=ranks.__getitem__)) for part in parts]
        for parts in _grouped(together, known.weights, target)
    ]
    numbers = itertools.count()
    named = tuple(
        tuple(
            ShardJob(
                shard_name(next(numbers)),
                clips.at(typical_first(part, known.labelled, known.timed)),
            )
            for part in group
        )
        for group in groups
    )
    made_with = {
        "options": flat(options),
        "classes": {"number": len(labels), "sha256": _digest([labels.mids, labels.names])},
        "manifest": {"sha256": _digest_of_each(clips.texts())},
        "versions": dict(tools),
    }
    jobs = [job for group in named for job in group]
    mark = fingerprint(jobs, labels, options, tools)
    return ShardPlan(named, tuple(rejected), mark, made_with)


@dataclass(frozen=True)
class _Known:
    """What planning has to know of each clip, by its place in the manifest."""

    hashes: array[int]  # of its id
    weights: array[int]
    files: array[int]  # the number of the archive or remote file that it lies in; _LOCAL
    labelled: bytearray  # 1 if it has labels
    timed: bytearray  # 1 if the times of its frames will be known

    @classmethod
    def of(cls, clips: Iterable[Clip], labels: LabelSet, cut: ShardCut) -> _Known:
        """All of it, in one pass; raises as `plan_shards`."""
        known = cls(array("q"), array("q"), array("i"), bytearray(), bytearray())
        numbers: dict[tuple[str, str], int] = {}
        for clip in clips:
            labels.indices_of(clip.labels)
            number = _LOCAL
            if not clip.wav and storage.is_url(clip.video):
                place = readable_place(clip.video)
                number = numbers.setdefault((place.file, place.kind), len(numbers))
            known.hashes.append(hash(clip.video_id))
            known.weights.append(cut.weight(clip))
            known.files.append(number)
            known.labelled.append(bool(clip.labels))
            known.timed.append(not clip.wav)
        return known


def split_duplicates(
    clips: CompactClips, hashes: array[int]
) -> tuple[array[int], list[ClipFailure]]:
    """The places of the first clip of each video_id, and a failure for each later one.

    Args:
        clips: the manifest.
        hashes: of their ids.
    """
    rejected: dict[int, ClipFailure] = {}
    for place, clip, first in repeats(clips, hashes, lambda clip: clip.video_id):
        there = f"already stands for {clips[first].file}"
        detail = f"{clip.file}: video_id {clip.video_id!r} {there}"
        failure = ClipFailure(clip.video_id, clip.file, "plan", "duplicate-id", detail)
        rejected[place] = failure
    unique = array("I", (place for place in range(len(clips)) if place not in rejected))
    return unique, list(rejected.values())


def _by_file(
    unique: Iterable[int], shuffled: Iterable[int], files: Sequence[int]
) -> tuple[array[int], list[array[int]]]:
    """The clips that lie in local files, shuffled; and the others by the file they lie in.

    The files are in the order of their first clips in the shuffle, the clips of each in that of
    the manifest, in which archives are read.
    """
    apart = array("I", (place for place in shuffled if files[place] == _LOCAL))
    together = {files[place]: array("I") for place in shuffled if files[place] != _LOCAL}
    for place in unique:
        if files[place] != _LOCAL:
            together[files[place]].append(place)
    return apart, list(together.values())


def _ranks(shuffled: Iterable[int], clips: int) -> array[int]:
    """Where each clip stands in the shuffle."""
    ranks = array("I", bytes(4 * clips))
    for rank, place in enumerate(shuffled):
        ranks[place] = rank
    return ranks


def _grouped(
    files: Iterable[array[int]], weights: Sequence[int], target: int
) -> Iterator[list[array[int]]]:
    """The shards of each file, or of the small ones that fill a shard together."""
    clips, weight = array("I"), 0
    for file in files:
        more = sum(weights[place] for place in file)
        if clips and weight + more > target:
            yield list(parts_of(clips, weights, target))
            clips, weight = array("I"), 0
        clips += file
        weight += more
    if clips:
        yield list(parts_of(clips, weights, target))


def parts_of(places: array[int], weights: Sequence[int], target: int) -> Iterator[array[int]]:
    """Consecutive clips up to a weight, and at least one."""
    begin, weight = 0, 0
    for number, place in enumerate(places):
        if weight + weights[place] > target and number > begin:
            yield places[begin:number]
            begin, weight = number, 0
        weight += weights[place]
    if begin < len(places):
        yield places[begin:]


def typical_first(
    places: Sequence[int], labelled: Sequence[int], timed: Sequence[int]
) -> array[int]:
    """Clips with labels ahead, if only some have them, and clips whose frame times will be known.

    Readers that learn the types of a sample's JSON from the first samples of a shard (Hugging Face
    `datasets`, from five) learn nothing from an empty list.
    """
    with_labels = itertools.islice(filter(labelled.__getitem__, places), _TYPICAL)
    with_times = itertools.islice(filter(timed.__getitem__, places), _TYPICAL)
    pairs = itertools.zip_longest(with_labels, with_times)
    first = dict.fromkeys(place for pair in pairs for place in pair if place is not None)
    return array("I", itertools.chain(first, (place for place in places if place not in first)))


@dataclass(frozen=True)
class CutByCount:
    """Shards with a given number of clips."""

    samples: int | None = None  # None: 500, or fewer where that makes under 8 shards

    def target(self, clips: int) -> int:
        """The greatest weight of a shard, for a set of this many clips."""
        return self.samples or default_samples_per_shard(clips)

    def weight(self, clip: Clip) -> int:
        """What a clip counts for."""
        return 1


@dataclass(frozen=True)
class CutByBytes:
    """Shards of about a given size, estimated from the clips without decoding."""

    size: int
    sample: SampleOptions

    def target(self, clips: int) -> int:
        """The greatest weight of a shard: it does not depend on the number of clips."""
        return self.size

    def weight(self, clip: Clip) -> int:
        """What a clip counts for."""
        return expected_bytes(clip, self.sample)


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
        texts = b", ".join(CompactClips.of(job.clips).texts())
        digest.update(b"[%s, [%s]]" % (json.dumps(job.name).encode(), texts))
    return digest.hexdigest()


def _digest(value: Any) -> str:
    return hashlib.sha256(json.dumps(value).encode()).hexdigest()


def _digest_of_each(texts: Iterable[bytearray]) -> str:
    digest = hashlib.sha256()
    for text in texts:
        digest.update(text + b"\n")
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
