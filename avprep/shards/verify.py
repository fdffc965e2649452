"""Read a shard set again and compare every byte with what was written down about it."""

from __future__ import annotations

import functools
import hashlib
import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from avprep import storage
from avprep.audio import decode_audio
from avprep.errors import UserError
from avprep.images import decode_jpeg
from avprep.jobs import PoolOptions, run_jobs
from avprep.shards.format import (
    DatasetInfo,
    SampleEntry,
    ShardInfo,
    index_name,
    read_dataset,
    read_index,
    split_members,
)

_LISTED = 20  # problems of one shard; a torn one has thousands


@dataclass(frozen=True)
class ShardCheck:
    """What was found in one shard."""

    name: str
    samples: int
    problems: tuple[str, ...]


def verify_shard_set(
    location: str,
    deep: bool,
    pool: PoolOptions,
    on_shard: Callable[[ShardCheck], None] = lambda check: None,
) -> list[ShardCheck]:
    """Check every shard; returns what was found, in the order of dataset.json.

    Args:
        location: folder or URL prefix of the shard set.
        deep: also decode all audio and images.
        pool: who does the work.
        on_shard: called after each shard.

    Raises:
        UserError: no shard set there.
    """
    info = read_dataset(location)
    check = functools.partial(check_shard, location=location, info=info, deep=deep)
    found: dict[str, ShardCheck] = {}
    for result in run_jobs(check, info.shards, pool):
        found[result.name] = result
        on_shard(result)
    return [found[shard.name] for shard in info.shards]


def check_shard(shard: ShardInfo, location: str, info: DatasetInfo, deep: bool) -> ShardCheck:
    """Compare one shard with dataset.json and its index."""
    path = storage.join(location, shard.name)
    try:
        data = storage.read_bytes(path)
    except OSError as error:
        return ShardCheck(shard.name, 0, (f"cannot be read: {error}",))
    problems = []
    if len(data) != shard.bytes:
        problems.append(f"has {len(data)} bytes, dataset.json says {shard.bytes}")
    if hashlib.sha256(data).hexdigest() != shard.sha256:
        problems.append("its sha256 is another than dataset.json's: bytes have changed")
    try:
        index = read_index(location, shard.name)
    except UserError as error:
        return ShardCheck(shard.name, 0, (*problems, str(error)))
    if (index.sha256, len(index.samples)) != (shard.sha256, shard.samples):
        problems.append("its index and dataset.json disagree")
    offset = 0
    for entry in index.samples:
        if entry.offset != offset:
            problems.append(f"{entry.video_id}: begins at byte {entry.offset}, not {offset}")
        offset = entry.offset + entry.size
        problems += check_sample(data[entry.offset : offset], entry, info, deep)
    if data[offset:].strip(b"\0"):
        problems.append(f"holds something after its last sample, from byte {offset}")
    return ShardCheck(shard.name, len(index.samples), tuple(problems[:_LISTED]))


def check_sample(data: bytes, entry: SampleEntry, info: DatasetInfo, deep: bool) -> list[str]:
    """Compare one sample's members with its index entry; returns what is wrong."""
    try:
        members = split_members(data, entry.key)
    except ValueError as error:
        return [f"{entry.video_id}: {error}"]
    frames = range(info.options["frames"])
    audio = info.options["audio"]
    expected = ["json", audio, *(f"{number}.jpg" for number in frames)]
    if list(members) != expected:
        return [f"{entry.video_id}: holds {', '.join(members)}; expected {', '.join(expected)}"]
    try:
        facts = json.loads(bytes(members["json"]))
        same = (facts["video_id"], facts["label_indices"]) == (entry.video_id, list(entry.labels))
    except (ValueError, KeyError, TypeError) as error:
        return [f"{entry.video_id}: its JSON is damaged ({error!r})"]
    problems = [] if same else [f"{entry.video_id}: its JSON and the index disagree"]
    if not deep:
        return problems
    try:
        samples = len(decode_audio(members[audio]))
        if samples != facts["num_samples"]:
            problems.append(
                f"{entry.video_id}: {samples} audio samples, not {facts['num_samples']}"
            )
    except (RuntimeError, ValueError) as error:
        problems.append(f"{entry.video_id}: audio: {error}")
    size = info.options["frame_size"]
    for number in frames:
        try:
            shape = decode_jpeg(members[f"{number}.jpg"]).shape
        except OSError as error:
            problems.append(f"{entry.video_id}: frame {number}: {error}")
            continue
        if shape != (size, size, 3):
            problems.append(f"{entry.video_id}: frame {number} is {shape[1]}x{shape[0]}")
    return problems


def discard_shards(location: str, checks: list[ShardCheck]) -> list[str]:
    """Delete the indexes of damaged shards, so that `avprep shard` builds those anew."""
    damaged = [check.name for check in checks if check.problems]
    for name in damaged:
        Path(location, index_name(name)).unlink(missing_ok=True)
    return damaged
