"""One job builds one shard: a tar file and its index, whole or not at all."""

from __future__ import annotations

import hashlib
import json
import tarfile
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Protocol

from avprep import storage
from avprep.clips import Clip
from avprep.encode.process import ClipDecoder
from avprep.encode.wire import EncodedSample
from avprep.errors import DecodeError, Unreadable
from avprep.failures import ClipFailure
from avprep.labels import LabelSet
from avprep.options import IsolationOptions, SampleOptions
from avprep.shards.format import (
    TAR_BLOCK,
    SampleEntry,
    ShardIndex,
    ShardSummary,
    index_name,
    sample_key,
)
from avprep.shards.plan import ShardJob

_RECORD = 10240


@dataclass(frozen=True)
class ShardSettings:
    """What every job of a shard set shares."""

    out: str  # folder or URL prefix
    labels: LabelSet
    sample: SampleOptions
    limits: IsolationOptions
    fingerprint: str
    retry_failed: bool = False  # a shard with failed clips counts as missing


@dataclass(frozen=True)
class BuiltShard:
    """What a job has to say when its shard is there."""

    summary: ShardSummary
    found: bool  # another machine built it meanwhile


def build_shard(job: ShardJob, settings: ShardSettings) -> BuiltShard:
    """Decode the clips of one job and write its shard and index.

    The tar gets its final name before the index does, so an index that is there vouches for a
    whole shard. A clip that fails is recorded in the index and costs nothing else.

    Raises:
        UserError: the folder cannot be written to.
        WorkFailed: the shard cannot be written, because the disk is full or the like.
    """
    files = {name: storage.size(storage.join(settings.out, name)) for name in names_of(job.name)}
    there = {name: size for name, size in files.items() if size is not None}
    if found := find_shards([job.name], there, settings).whole:
        return BuiltShard(found[job.name], found=True)
    with (
        storage.scratch_file(storage.scratch_folder(settings.out)) as file,
        ClipDecoder(settings.sample, settings.limits) as decoder,
    ):
        index = write_samples(file, job, settings, decoder.decode)
        data = index.to_bytes()
        _put_in_place(file, index, data, settings)
    return BuiltShard(ShardSummary.from_bytes(data), found=False)


def _put_in_place(
    file: storage.ScratchFile, index: ShardIndex, data: bytes, settings: ShardSettings
) -> None:
    tar_path, index_path = (storage.join(settings.out, name) for name in names_of(index.name))
    there = storage.read_if_there(index_path)
    if there is not None and there != data:
        # It vouches for another tar file than this one, so it goes before that comes.
        storage.delete(index_path)
    if index.samples:
        file.publish(tar_path)
    else:
        storage.delete(tar_path)
    if there != data:
        storage.write_atomic(index_path, data)


def names_of(shard_name: str) -> tuple[str, str]:
    """The files of a shard: the tar file and its index."""
    return shard_name, index_name(shard_name)


@dataclass(frozen=True)
class Survey:
    """Which shards are there already."""

    whole: dict[str, ShardSummary]  # by name
    damaged: tuple[str, ...]  # an index that is none, or that belongs to another tar file


def find_shards(names: Iterable[str], files: Mapping[str, int], settings: ShardSettings) -> Survey:
    """Tell the shards that are whole and of this plan from those that are to be built.

    Args:
        names: of the tar files.
        files: name → bytes of what lies in the folder.
        settings: which plan, and whether shards with failed clips count.
    """
    whole: dict[str, ShardSummary] = {}
    damaged = []
    indexes = {index_name(name): name for name in names if index_name(name) in files}
    for file, data in storage.read_files(settings.out, indexes):
        name = indexes[file]
        if isinstance(data, Unreadable):
            if data.cause != "missing":  # deleted since the folder was listed
                damaged.append(name)
            continue
        try:
            summary = ShardSummary.from_bytes(data)
        except (ValueError, KeyError, TypeError):
            damaged.append(name)
            continue
        is_same_size = not summary.samples or files.get(name) == summary.bytes
        if (summary.name, summary.fingerprint) != (name, settings.fingerprint) or not is_same_size:
            damaged.append(name)
        elif not (settings.retry_failed and summary.failures):
            whole[name] = summary
    return Survey(whole, tuple(damaged))


class Writable(Protocol):
    """What the samples are written to."""

    def write(self, data: bytes, /) -> object:
        """Append."""


def write_samples(
    file: Writable,
    job: ShardJob,
    settings: ShardSettings,
    encode: Callable[[Clip], EncodedSample],
) -> ShardIndex:
    """Write the samples of a job to an open file as a tar archive; returns its index."""
    digest = hashlib.sha256()
    entries: list[SampleEntry] = []
    failures: list[ClipFailure] = []
    offset = 0
    audio_samples = 0

    def write(data: bytes) -> None:
        nonlocal offset
        file.write(data)
        digest.update(data)
        offset += len(data)

    for clip in job.clips:
        try:
            sample = encode(clip)
        except DecodeError as error:
            path = clip.video or clip.wav
            stage = "pack" if clip.wav else "decode"
            failures.append(ClipFailure(clip.video_id, path, stage, error.cause, error.detail))
            continue
        start = offset
        members = sample_members(clip, sample, settings.labels, settings.sample)
        write(b"".join(tar_member(name, data) for name, data in members))
        labels = settings.labels.indices_of(clip.labels)
        key = sample_key(clip.video_id)
        size, length = offset - start, sample.num_samples
        entry = SampleEntry(key, clip.video_id, start, size, labels, clip.split, length)
        if not sample.complete:
            lengths = (sample.seconds_found, sample.seconds_promised)
            entry = replace(
                entry, complete=False, seconds_found=lengths[0], seconds_promised=lengths[1]
            )
        entries.append(entry)
        audio_samples += length
    # Two empty blocks end an archive, and its length is a whole number of records.
    write(bytes(-(offset + 2 * TAR_BLOCK) % _RECORD + 2 * TAR_BLOCK))
    return ShardIndex(
        name=job.name,
        fingerprint=settings.fingerprint,
        bytes=offset,
        sha256=digest.hexdigest(),
        seconds=round(audio_samples / settings.sample.decode.sample_rate, 3),
        samples=tuple(entries),
        failures=tuple(failures),
    )


def sample_members(
    clip: Clip, sample: EncodedSample, labels: LabelSet, options: SampleOptions
) -> list[tuple[str, bytes]]:
    """Names and contents of a sample's members, in the order they are written.

    The JSON has every key, each with a value of the key's one type: readers that learn the types
    from the first samples (Hugging Face `datasets`) would take null for a type of its own.
    """
    key = sample_key(clip.video_id)
    start = clip.start or 0.0
    end = round(start + sample.seconds_found, 3) if clip.end is None else clip.end
    facts = {
        "video_id": clip.video_id,
        "labels": list(clip.labels),
        "label_indices": list(labels.indices_of(clip.labels)),
        "sample_rate": options.decode.sample_rate,
        "num_samples": sample.num_samples,
        "frame_times": [round(float(time), 6) for time in sample.frame_times],
        "source": clip.wav or clip.video,
        "decoder": sample.decoder,
        "segment": [float(start), float(end)],
        "split": clip.split,
        "complete": sample.complete,
        "seconds_found": float(sample.seconds_found),
        "seconds_promised": float(sample.seconds_promised),
        "audio_shortened": sample.audio_shortened,
    }
    members = [
        (f"{key}.json", json.dumps(facts).encode()),
        (f"{key}.{options.audio}", sample.audio),
    ]
    members += [(f"{key}.{number}.jpg", jpeg) for number, jpeg in enumerate(sample.frames)]
    return members


def tar_member(name: str, data: bytes) -> bytes:
    """One archive member with a fixed header: no time stamp, owner or mode of this machine."""
    header = tarfile.TarInfo(name)
    header.size = len(data)
    header.mode = 0o644
    return header.tobuf(tarfile.USTAR_FORMAT) + data + bytes(-len(data) % TAR_BLOCK)
