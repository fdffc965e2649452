"""Read a shard set again and compare every byte with what was written down about it.

Each byte is vouched for: a shard's by the sha256 in `dataset.json` and in its index, those of an
index and of `dataset.json` by the digest at their own end, those of the other files by the sha256
in `dataset.json`.
"""

from __future__ import annotations

import functools
import hashlib
import io
import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import BinaryIO

from avprep import storage
from avprep.audio import decode_audio
from avprep.errors import UserError
from avprep.images import decode_jpeg
from avprep.jobs import PoolOptions, run_jobs
from avprep.processes import check_stop
from avprep.shards.format import (
    DATASET_FILE,
    INDEX_SUFFIX,
    DatasetInfo,
    SampleEntry,
    ShardIndex,
    ShardInfo,
    index_name,
    is_sealed,
    read_dataset,
    read_index,
    split_members,
)

_LISTED = 20  # problems of one shard; a torn one has thousands
_CHUNK = 1 << 20


@dataclass(frozen=True)
class ShardCheck:
    """What was found in one shard and its index."""

    name: str
    samples: int
    class_counts: Mapping[int, int]
    seconds: float  # of audio
    problems: tuple[str, ...]


@dataclass(frozen=True)
class Findings:
    """What was found in a shard set.

    Attributes:
        checks: each shard, in the order of dataset.json.
        files: problems of the other files, by name.
        strangers: shards and indexes that dataset.json does not name.
    """

    checks: tuple[ShardCheck, ...]
    files: Mapping[str, tuple[str, ...]]
    strangers: tuple[str, ...] = ()

    @property
    def damaged(self) -> tuple[ShardCheck, ...]:
        """The shards to build anew."""
        return tuple(check for check in self.checks if check.problems)

    @property
    def samples(self) -> int:
        """Samples that the indexes name."""
        return sum(check.samples for check in self.checks)


def verify_shard_set(
    location: str,
    deep: bool,
    pool: PoolOptions,
    on_shard: Callable[[ShardCheck, int], None] = lambda check, shards: None,
) -> Findings:
    """Check every file of a shard set.

    Args:
        location: folder or URL prefix of the shard set.
        deep: also decode all audio and images.
        pool: who does the work.
        on_shard: called after each shard, with their number.

    Raises:
        UserError: no shard set there.
    """
    data = storage.read_if_there(storage.join(location, DATASET_FILE))
    if data is not None and not is_sealed(data):
        # Then nothing that it says of the shards can be held against them.
        problem = "its digest is not that of its bytes: changed since it was written"
        return Findings((), {DATASET_FILE: (problem,)})
    info = read_dataset(location)
    # What is sent to the workers with every shard; the rest is as large as there are shards.
    about = replace(info, shards=(), files={}, extra={})
    check = functools.partial(check_shard, location=location, info=about, deep=deep)
    found: dict[str, ShardCheck] = {}
    for result in run_jobs(check, info.shards, pool):
        found[result.name] = result
        on_shard(result, len(info.shards))
    checks = tuple(found[shard.name] for shard in info.shards)
    files = check_files(location, info)
    if not any(check.problems for check in checks) and (wrong := _wrong_totals(info, checks)):
        files[DATASET_FILE] = wrong
    return Findings(checks, files, find_strangers(location, info))


def check_shard(shard: ShardInfo, location: str, info: DatasetInfo, deep: bool) -> ShardCheck:
    """Compare one shard with dataset.json and its index."""
    problems: list[str] = []
    index = None
    try:
        index = read_index(location, shard.name)
        told = (shard.name, info.fingerprint, shard.bytes, shard.sha256, shard.samples)
        own = (index.name, index.fingerprint, index.bytes, index.sha256, len(index.samples))
        if own != told:
            problems.append("its index and dataset.json disagree")
    except (UserError, OSError) as error:
        problems.append(str(error))
    try:
        with _opened(storage.join(location, shard.name)) as file:
            problems += _check_tar(file, shard, index, info, deep)
    except FileNotFoundError:
        problems.append("is missing")
    except OSError as error:
        problems.append(f"cannot be read: {error}")
    return _shard_check(shard.name, index, problems)


def _shard_check(name: str, index: ShardIndex | None, problems: list[str]) -> ShardCheck:
    if len(problems) > _LISTED:
        problems[_LISTED:] = [f"… and {len(problems) - _LISTED} more"]
    counts: dict[int, int] = {}
    entries = index.samples if index else ()
    for entry in entries:
        for label in entry.labels:
            counts[label] = counts.get(label, 0) + 1
    seconds = index.seconds if index else 0.0
    return ShardCheck(name, len(entries), counts, seconds, tuple(problems))


def _opened(path: str) -> BinaryIO:
    """A shard to read from its beginning to its end."""
    return io.BytesIO(storage.read_bytes(path)) if storage.is_url(path) else Path(path).open("rb")


def _check_tar(
    file: BinaryIO, shard: ShardInfo, index: ShardIndex | None, info: DatasetInfo, deep: bool
) -> Iterator[str]:
    """Read a shard once, sample by sample, and compare it; yields what is wrong."""
    digest = hashlib.sha256()
    position = 0
    for entry in index.samples if index else ():
        check_stop()
        data = file.read(entry.size)
        digest.update(data)
        if entry.offset != position:
            yield f"{entry.video_id}: begins at byte {position}, the index says {entry.offset}"
        position += len(data)
        yield from check_sample(data, entry, info, deep)
    rest = position
    strange = False
    while data := file.read(_CHUNK):
        digest.update(data)
        strange = strange or any(data)
        position += len(data)
    if index and strange:
        yield f"holds something after its last sample, from byte {rest}"
    if position != shard.bytes:
        yield f"has {position} bytes, dataset.json says {shard.bytes}"
    if digest.hexdigest() != shard.sha256:
        yield "its sha256 is not the one in dataset.json: bytes have changed"


def check_sample(data: bytes, entry: SampleEntry, info: DatasetInfo, deep: bool) -> Iterator[str]:
    """Compare one sample's members with its index entry; yields what is wrong."""
    name = entry.video_id
    if len(data) < entry.size:
        yield f"{name}: is cut short, {len(data)} of {entry.size} bytes are there"
        return
    try:
        members = split_members(data, entry.key)
    except ValueError as error:
        yield f"{name}: {error}"
        return
    audio = info.options["audio"]
    pictures = [f"{number}.jpg" for number in range(info.options["frames"])]
    expected = ["json", audio, *pictures]
    if list(members) != expected:
        yield f"{name}: holds {', '.join(members)}; expected {', '.join(expected)}"
        return
    try:
        facts = json.loads(bytes(members["json"]))
        told = (facts["video_id"], tuple(facts["label_indices"]), facts["num_samples"])
        mids = [info.labels[label][0] for label in entry.labels]
        same = told == (name, entry.labels, entry.num_samples) and facts["labels"] == mids
    except (ValueError, KeyError, TypeError, IndexError) as error:
        yield f"{name}: its JSON is damaged ({error!r})"
        return
    if not same:
        yield f"{name}: its JSON and the index disagree"
    if deep:
        yield from _check_media(members, entry, info, audio, pictures)


def _check_media(
    members: Mapping[str, memoryview],
    entry: SampleEntry,
    info: DatasetInfo,
    audio: str,
    pictures: list[str],
) -> Iterator[str]:
    name = entry.video_id
    try:
        samples = len(decode_audio(bytes(members[audio]), info.options["sample_rate"]))
        if samples != entry.num_samples:
            yield f"{name}: {samples} audio samples, the index says {entry.num_samples}"
    except (RuntimeError, ValueError) as error:
        yield f"{name}: audio: {error}"
    size = info.options["frame_size"]
    for picture in pictures:
        try:
            height, width, _ = decode_jpeg(bytes(members[picture])).shape
        except (OSError, ValueError, SyntaxError) as error:  # all of these are Pillow's
            yield f"{name}: {picture}: {error}"
            continue
        if (height, width) != (size, size):
            yield f"{name}: {picture} is {width}x{height}, expected {size}x{size}"


def check_files(location: str, info: DatasetInfo) -> dict[str, tuple[str, ...]]:
    """Problems of the files that dataset.json names beside the shards and their indexes."""
    found: dict[str, tuple[str, ...]] = {}
    for name, sha256 in info.files.items():
        try:
            data = storage.read_bytes(storage.join(location, name))
        except OSError as error:
            missing = isinstance(error, FileNotFoundError)
            found[name] = ("is missing" if missing else f"cannot be read: {error}",)
            continue
        if hashlib.sha256(data).hexdigest() != sha256:
            found[name] = ("its sha256 is not the one in dataset.json: bytes have changed",)
    return found


def find_strangers(location: str, info: DatasetInfo) -> tuple[str, ...]:
    """Shards and indexes in the folder that dataset.json does not name."""
    ours = set(info.files)
    for shard in info.shards:
        ours |= {shard.name, index_name(shard.name)}
    names = storage.list_names(location)
    return tuple(
        name for name in names if name.endswith((".tar", INDEX_SUFFIX)) and name not in ours
    )


def _wrong_totals(info: DatasetInfo, checks: tuple[ShardCheck, ...]) -> tuple[str, ...]:
    """Totals in dataset.json that are not the sums over the shards."""
    counts = [0] * len(info.labels)
    for check in checks:
        for label, count in check.class_counts.items():
            counts[label] += count
    samples = sum(check.samples for check in checks)
    totals = {
        "samples": (info.samples, samples),
        "clips": (info.clips, samples + sum(info.failures.values())),
        "seconds": (info.seconds, round(sum(check.seconds for check in checks), 3)),
        "class_counts": (list(info.class_counts), counts),
    }
    return tuple(
        f"says {name} {told}, the shards have {found}"
        for name, (told, found) in totals.items()
        if told != found
    )


def discard_damaged(location: str, findings: Findings) -> None:
    """Delete the indexes of damaged shards, and other damaged files.

    `avprep shard` then builds those shards, and writes those files, anew. Shards stay as they are
    until then; strangers stay.
    """
    for name in (*(index_name(check.name) for check in findings.damaged), *findings.files):
        storage.delete(storage.join(location, name))
