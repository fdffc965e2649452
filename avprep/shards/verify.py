"""Read a shard set again and compare every byte with what was written down about it.

`dataset.json` has the sha256 of every shard, as the shard's index has, and that of the other files.
It and the indexes hold a digest of themselves.
"""

from __future__ import annotations

import functools
import hashlib
import io
import json
import os
import tarfile
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import BinaryIO

from avprep import storage
from avprep.audio import decode_audio
from avprep.errors import UserError
from avprep.images import decode_jpeg
from avprep.jobs import run_jobs
from avprep.options import PoolOptions, VerifyOptions
from avprep.processes import check_stop
from avprep.progress import OnProgress, each, ignore
from avprep.shards.format import (
    DATASET_FILE,
    INDEX_SUFFIX,
    TAR_BLOCK,
    DatasetInfo,
    SampleEntry,
    ShardIndex,
    ShardInfo,
    added_up,
    count_modalities,
    index_name,
    read_dataset,
    read_index,
    split_members,
    stored_members,
)
from avprep.shards.measured import read_measures
from avprep.shards.seal import unsealed

_LISTED = 20  # problems of one shard; a torn one has thousands
_CHUNK = 1 << 20


@dataclass(frozen=True)
class ShardCheck:
    """What was found in one shard and its index."""

    name: str
    samples: int
    class_counts: Mapping[int, int]
    modalities: Mapping[str, int]  # samples that have each
    seconds: float  # of audio
    problems: tuple[str, ...]


@dataclass(frozen=True)
class Findings:
    """What was found in a shard set.

    Attributes:
        checks: each shard, in the order of dataset.json.
        files: problems of the other files, by name.
        strangers: shards and indexes that are not in dataset.json.
    """

    checks: tuple[ShardCheck, ...]
    files: Mapping[str, tuple[str, ...]]
    strangers: tuple[str, ...] = ()

    @property
    def damaged(self) -> tuple[ShardCheck, ...]:
        """The shards to build again."""
        return tuple(check for check in self.checks if check.problems)

    @property
    def samples(self) -> int:
        """Samples that the indexes name."""
        return sum(check.samples for check in self.checks)

    @property
    def modalities(self) -> dict[str, int]:
        """How many of them have each modality."""
        return added_up(check.modalities for check in self.checks)


def verify(
    shards: str,
    options: VerifyOptions = VerifyOptions(),
    pool: PoolOptions = PoolOptions(),
    on_progress: OnProgress = ignore,
) -> Findings:
    """Compare every byte of a shard set with its dataset.json and indexes.

    Args:
        shards: folder or URL prefix.
        options: how thoroughly, and whether damage is discarded.
        pool: who does the work.
        on_progress: called with progress: shards done.

    Raises:
        UserError: no shard set there.
    """
    findings = verify_shard_set(shards, options.deep, pool, on_progress)
    if options.discard:
        discard_damaged(shards, findings)
    return findings


def verify_shard_set(
    location: str,
    deep: bool,
    pool: PoolOptions,
    on_progress: OnProgress = ignore,
) -> Findings:
    """Check every file of a shard set.

    Args:
        location: folder or URL prefix of the shard set.
        deep: also decode all audio and images.
        pool: who does the work.
        on_progress: called with progress: shards done.

    Raises:
        UserError: no shard set there.
    """
    data = storage.read_if_there(storage.join(location, DATASET_FILE))
    try:
        if data is not None:
            unsealed(data)
    except ValueError as error:  # nothing that it says of the shards can be held against them
        return Findings((), {DATASET_FILE: (f"has changed since it was written: {error}",)})
    info = read_dataset(location)
    # What is sent to the workers with every shard; the rest is as large as there are shards.
    about = replace(info, shards=(), files={}, extra={})
    check = functools.partial(check_shard, location=location, info=about, deep=deep)
    found: dict[str, ShardCheck] = {}
    on_shard = each("shard", on_progress, len(info.shards))
    for result in run_jobs(check, info.shards, pool):
        found[result.name] = result
        on_shard()
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
        listed = ShardInfo(index.name, len(index.samples), index.bytes, index.sha256)
        if (listed, index.fingerprint) != (shard, info.fingerprint):
            problems.append("its index and dataset.json disagree")
        if info.measures:
            read_measures(location, index)
    except (UserError, OSError) as error:
        problems.append(str(error))
    try:
        with _opened(storage.join(location, shard.name)) as file:
            problems += _check_tar(file, shard, index, info, deep)
    except FileNotFoundError:
        problems.append("is missing")
    except OSError as error:
        problems.append(f"cannot be read: {error}")
    if len(problems) > _LISTED:
        problems[_LISTED:] = [f"… and {len(problems) - _LISTED} more"]
    samples, seconds = (index.samples, index.seconds) if index else ((), 0.0)
    counts = Counter(label for entry in samples for label in entry.labels)
    modalities = count_modalities(samples)
    return ShardCheck(shard.name, len(samples), counts, modalities, seconds, tuple(problems))


def _opened(path: str) -> BinaryIO:
    """A shard to read from its beginning to its end."""
    return io.BytesIO(storage.read_bytes(path)) if storage.is_url(path) else Path(path).open("rb")


def _check_tar(
    file: BinaryIO, shard: ShardInfo, index: ShardIndex | None, info: DatasetInfo, deep: bool
) -> Iterator[str]:
    """Read a shard once, sample by sample, and compare it; yields what is wrong."""
    if not shard.sha256:
        yield from _check_foreign(file, shard, index, info, deep)
        return
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
    end = position
    empty = True
    while data := file.read(_CHUNK):
        digest.update(data)
        empty = empty and not any(data)
        position += len(data)
    if index and not empty:
        yield f"has extra bytes after its last sample, from byte {end}"
    if position != shard.bytes:
        yield f"has {position} bytes, dataset.json says {shard.bytes}"
    if digest.hexdigest() != shard.sha256:
        yield "its sha256 is not the one in dataset.json: bytes have changed"


def _check_foreign(
    file: BinaryIO, shard: ShardInfo, index: ShardIndex | None, info: DatasetInfo, deep: bool
) -> Iterator[str]:
    """Compare a tar that `avprep index` read with what it found; nobody knows its digest."""
    if (size := file.seek(0, os.SEEK_END)) != shard.bytes:
        yield f"has {size} bytes, dataset.json says {shard.bytes}: run `avprep index` again"
        return
    for entry in index.samples if index else ():
        check_stop()
        file.seek(entry.offset)
        data = file.read(entry.size if deep else TAR_BLOCK)
        try:
            tarfile.TarInfo.frombuf(data[:TAR_BLOCK], "utf-8", "surrogateescape")
        except tarfile.TarError as error:
            yield f"{entry.video_id}: does not begin at byte {entry.offset} any more ({error})"
            continue
        if deep:
            members = stored_members(entry, data, entry.offset, info.options["audio"])
            yield from _check_media(members, entry, info)


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
    frames = len(entry.sizes) - 2 if entry.sizes else info.options["frames"]
    pictures = [f"{number}.jpg" for number in range(frames)]
    expected = ["json", *[audio] * ("audio" in entry.modalities), *pictures]
    if list(members) != expected:
        yield f"{name}: holds {', '.join(members)}; expected {', '.join(expected)}"
        return
    try:
        facts = json.loads(bytes(members["json"]))
        found = [facts[key] for key in ("video_id", "num_samples", "label_indices", "labels")]
        mids = [info.labels[label][0] for label in entry.labels]
    except (ValueError, KeyError, TypeError, IndexError) as error:
        yield f"{name}: its JSON is damaged ({error!r})"
        return
    found.append(facts.get("modalities", list(entry.modalities)))  # not in older sets
    if found != [name, entry.num_samples, list(entry.labels), mids, list(entry.modalities)]:
        yield f"{name}: its JSON and the index disagree"
    sizes = [len(members.get(member, b"")) for member in ("json", audio, *pictures)]
    if entry.sizes and list(entry.sizes) != sizes:
        yield f"{name}: its members are not as large as the index says"
    if deep:
        yield from _check_media(members, entry, info)


def _check_media(
    members: Mapping[str, memoryview], entry: SampleEntry, info: DatasetInfo
) -> Iterator[str]:
    name, size = entry.video_id, info.options["frame_size"]
    for member, data in members.items():
        if member == info.options["audio"]:
            yield from _check_audio(data, entry, info.options["sample_rate"])
        elif member != "json":
            yield from _check_picture(data, f"{name}: {member}", size)


def _check_audio(data: memoryview, entry: SampleEntry, rate: int) -> Iterator[str]:
    name = entry.video_id
    try:
        samples = len(decode_audio(bytes(data), rate))
        if samples != entry.num_samples:
            yield f"{name}: {samples} audio samples, the index says {entry.num_samples}"
    except (RuntimeError, ValueError) as error:
        yield f"{name}: audio: {error}"


def _check_picture(data: memoryview, name: str, size: int) -> Iterator[str]:
    try:
        height, width, _ = decode_jpeg(bytes(data)).shape
    except (OSError, ValueError, SyntaxError) as error:  # all of these are Pillow's
        yield f"{name}: {error}"
        return
    if (height, width) != (size, size):
        yield f"{name} is {width}x{height}, expected {size}x{size}"


def check_files(location: str, info: DatasetInfo) -> dict[str, tuple[str, ...]]:
    """Problems of the files that dataset.json names beside the shards and their indexes."""
    found = {name: tuple(_check_file(location, name, info)) for name in info.files}
    return {name: problems for name, problems in found.items() if problems}


def _check_file(location: str, name: str, info: DatasetInfo) -> Iterator[str]:
    path = storage.join(location, name)
    try:
        data = storage.read_bytes(path)
        if hashlib.sha256(data).hexdigest() == info.files[name]:
            return
        if not name.endswith(INDEX_SUFFIX):
            yield "its sha256 is not the one in dataset.json: bytes have changed"
            return
        index = ShardIndex.from_bytes(data, path)  # may have been laid out in another way
        if (index_name(index.name), index.fingerprint) != (name, info.fingerprint):
            yield "it and dataset.json disagree"
    except FileNotFoundError:
        yield "is missing"
    except OSError as error:
        yield f"cannot be read: {error}"
    except UserError as error:
        yield str(error)


def find_strangers(location: str, info: DatasetInfo) -> tuple[str, ...]:
    """Shards and indexes in the folder that dataset.json does not name."""
    shards = {shard.name for shard in info.shards}
    named = {*info.files, *shards, *map(index_name, shards)}
    names = storage.list_names(location)
    return tuple(
        name for name in names if name.endswith((".tar", INDEX_SUFFIX)) and name not in named
    )


def _wrong_totals(info: DatasetInfo, checks: tuple[ShardCheck, ...]) -> tuple[str, ...]:
    """Totals in dataset.json that are not the sums over the shards."""
    counts: Counter[int] = Counter()
    for check in checks:
        counts.update(check.class_counts)
    samples = sum(check.samples for check in checks)
    modalities = added_up(check.modalities for check in checks)
    totals = {
        "samples": (info.samples, samples),
        "clips": (info.clips, samples + sum(info.failures.values())),
        "seconds": (info.seconds, round(sum(check.seconds for check in checks), 3)),
        "modalities": (info.modalities or modalities, modalities),  # not in older sets
        "class_counts": (list(info.class_counts), [counts[n] for n in range(len(info.labels))]),
    }
    return tuple(
        f"says {name} {stated}, the shards have {found}"
        for name, (stated, found) in totals.items()
        if stated != found
    )


def discard_damaged(location: str, findings: Findings) -> None:
    """Delete the indexes of damaged shards, and other damaged files.

    `avprep shard` then builds those shards and writes those files again. Until then the shards stay
    as they are; strangers stay.
    """
    for name in (*(index_name(check.name) for check in findings.damaged), *findings.files):
        storage.delete(storage.join(location, name))
