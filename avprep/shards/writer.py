"""One job builds one shard: a tar file and its index, whole or not at all."""

from __future__ import annotations

import hashlib
import json
import os
import tarfile
from collections.abc import Callable
from dataclasses import dataclass
from typing import IO

from avprep import storage
from avprep.clips import Clip
from avprep.encoded import EncodedSample
from avprep.errors import DecodeError
from avprep.failures import ClipFailure
from avprep.isolation import IsolatedEncoder
from avprep.labels import LabelSet
from avprep.options import IsolationOptions, SampleOptions
from avprep.shards.format import (
    TAR_BLOCK,
    SampleEntry,
    ShardIndex,
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


def build_shard(job: ShardJob, settings: ShardSettings) -> ShardIndex:
    """Decode the clips of one job and write its shard and index.

    The tar gets its final name before the index does, so an index that is there vouches for a
    whole shard. A clip that fails is recorded in the index and costs nothing else.

    Raises:
        OSError: the shard cannot be written (disk full, no permission, …).
    """
    with (
        storage.workspace(settings.out) as folder,
        IsolatedEncoder(settings.sample, settings.limits) as encoder,
    ):
        temporary = storage.temporary_beside(folder / job.name)
        try:
            with temporary.open("xb") as file:
                index = write_samples(file, job, settings, encoder.encode)
                file.flush()
                os.fsync(file.fileno())
            if index.samples:
                storage.publish(temporary, storage.join(settings.out, job.name))
        finally:
            temporary.unlink(missing_ok=True)
    storage.write_atomic(storage.join(settings.out, index_name(job.name)), index.to_bytes())
    return index


def write_samples(
    file: IO[bytes],
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
        entries.append(SampleEntry(key, clip.video_id, start, size, labels, clip.split, length))
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
    """Names and contents of a sample's members, in the order they are written."""
    key = sample_key(clip.video_id)
    facts = {
        "video_id": clip.video_id,
        "labels": list(clip.labels),
        "label_indices": list(labels.indices_of(clip.labels)),
        "sample_rate": options.decode.sample_rate,
        "num_samples": sample.num_samples,
        "frame_times": [round(time, 6) for time in sample.frame_times],
        "source": clip.wav or clip.video,
        "decoder": sample.decoder,
    }
    if clip.start is not None or clip.end is not None:
        facts["segment"] = [clip.start, clip.end]
    if clip.split:
        facts["split"] = clip.split
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


def is_built(out: str, job: ShardJob, fingerprint: str) -> ShardIndex | None:
    """The index of a shard that is already there and belongs to this plan."""
    path = storage.join(out, index_name(job.name))
    if not storage.exists(path):
        return None
    index = ShardIndex.from_bytes(storage.read_bytes(path), path)
    if index.fingerprint != fingerprint:
        return None
    if index.samples and storage.size(storage.join(out, job.name)) != index.bytes:
        return None
    return index
