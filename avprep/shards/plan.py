"""Which clip goes into which shard: decided once, before any work, by pure functions."""

from __future__ import annotations

import hashlib
import json
import random
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from avprep.clips import Clip
from avprep.failures import ClipFailure
from avprep.labels import LabelSet
from avprep.shards.format import VERSION

DEFAULT_SAMPLES_PER_SHARD = 500
_SHARDS_OF_A_SMALL_SET = 8  # enough for a laptop's cores to share the work


@dataclass(frozen=True)
class ShardJob:
    """One shard to build: a job for one worker."""

    name: str
    clips: tuple[Clip, ...]


@dataclass(frozen=True)
class ShardPlan:
    """All shards of a shard set."""

    jobs: tuple[ShardJob, ...]
    rejected: tuple[ClipFailure, ...]  # clips that no job gets, such as duplicates
    fingerprint: str

    @property
    def clips(self) -> int:
        """Clips in the manifest."""
        return sum(len(job.clips) for job in self.jobs) + len(self.rejected)


def plan_shards(
    clips: Sequence[Clip],
    labels: LabelSet,
    options: Mapping[str, Any],
    tools: Mapping[str, str],
    samples_per_shard: int | None = None,
    seed: int = 0,
) -> ShardPlan:
    """Order the clips by a seeded shuffle and cut them into shards.

    Args:
        clips: the manifest. Of two clips with one video_id the first is taken.
        labels: the label set; part of what the shards' bytes depend on.
        options: everything else that the bytes depend on, JSON-able.
        tools: versions of the programs that decode and encode.
        samples_per_shard: clips a shard; None for 500, or fewer where that makes under 8 shards.
        seed: of the shuffle.
    """
    unique, rejected = split_duplicates(clips)
    random.Random(seed).shuffle(unique)
    size = samples_per_shard or default_samples_per_shard(len(unique))
    jobs = tuple(
        ShardJob(f"shard-{number:06d}.tar", tuple(unique[start : start + size]))
        for number, start in enumerate(range(0, len(unique), size))
    )
    return ShardPlan(jobs, tuple(rejected), fingerprint(jobs, labels, options, tools))


def default_samples_per_shard(clips: int) -> int:
    """500 samples a shard; a small set is spread over 8 shards instead."""
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
            path, other = clip.video or clip.wav, first.video or first.wav
            detail = f"{path}: video_id {clip.video_id!r} already stands for {other}"
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
        digest.update(json.dumps([job.name, [asdict(clip) for clip in job.clips]]).encode())
    return digest.hexdigest()


def part_of(jobs: Sequence[ShardJob], part: int, parts: int) -> tuple[ShardJob, ...]:
    """Every `parts`-th job, starting at `part` (counted from 1): what one of many machines does."""
    return tuple(jobs[part - 1 :: parts])
