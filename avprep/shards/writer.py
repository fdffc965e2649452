"""One job builds one shard: a tar file and its index, whole or not at all."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, BinaryIO

from avprep import storage
from avprep.clips import Clip
from avprep.encode.process import ClipDecoder
from avprep.encode.wire import EncodedSample
from avprep.errors import DecodeError, Unreadable
from avprep.failures import ClipFailure
from avprep.labels import LabelSet
from avprep.options import IsolationOptions, SampleOptions
from avprep.shards.format import (
    SampleEntry,
    SampleFacts,
    ShardIndex,
    ShardSummary,
    index_name,
    room,
    sample_key,
)
from avprep.shards.measured import ShardMeasures, measures_name
from avprep.shards.plan import ShardJob

if TYPE_CHECKING:
    from webdataset import TarWriter


@dataclass(frozen=True)
class ShardSettings:
    """What every job of a shard set shares."""

    out: str  # folder or URL prefix
    labels: LabelSet
    sample: SampleOptions
    limits: IsolationOptions
    fingerprint: str
    retry_failed: bool = False  # a shard with failed clips counts as missing

    def find_shards(self, names: Iterable[str], files: Mapping[str, int]) -> FoundShards:
        """See the function of this name; without shards that are to be built again."""
        found = find_shards(self.out, names, files, self.fingerprint)
        if not self.retry_failed:
            return found
        good = {name: shard for name, shard in found.whole.items() if not shard.failures}
        return FoundShards(good, found.damaged)


@dataclass(frozen=True)
class BuiltShard:
    """The result of a job."""

    summary: ShardSummary
    found: bool  # another machine built it meanwhile


def build_shard(job: ShardJob, settings: ShardSettings) -> BuiltShard:
    """Decode the clips of one job and write its shard and index.

    The tar gets its final name before the index does, so a shard that has an index is whole. A clip
    that fails is recorded in the index and costs nothing else.

    Raises:
        UserError: the folder cannot be written to.
        WorkFailed: the shard cannot be written, because the disk is full or the like.
    """
    names = job.name, index_name(job.name)
    sizes = {name: storage.size(storage.join(settings.out, name)) for name in names}
    files = {name: size for name, size in sizes.items() if size is not None}
    if found := settings.find_shards([job.name], files).whole:
        return BuiltShard(found[job.name], found=True)
    with (
        storage.scratch_file(settings.out) as file,
        ClipDecoder(settings.sample, settings.limits) as decoder,
    ):
        index, measures = write_samples(file, job, settings, decoder.decode)
        data = index.to_bytes()
        _put_in_place(file, index, measures, data, settings)
    return BuiltShard(ShardSummary.from_bytes(data), found=False)


def _put_in_place(
    file: storage.ScratchFile,
    index: ShardIndex,
    measures: ShardMeasures | None,
    data: bytes,
    settings: ShardSettings,
) -> None:
    tar_path = storage.join(settings.out, index.name)
    measures_path = storage.join(settings.out, measures_name(index.name))
    index_path = storage.join(settings.out, index_name(index.name))
    old_index = storage.read_if_there(index_path)
    if old_index is not None and old_index != data:
        storage.delete(index_path)  # first: it describes a different tar
    if measures is not None:
        file.publish(tar_path)
        storage.write_atomic(measures_path, measures.to_bytes())
    else:
        storage.delete(tar_path)
        storage.delete(measures_path)
    if old_index != data:
        storage.write_atomic(index_path, data)


@dataclass(frozen=True)
class FoundShards:
    """The shards that a folder already holds."""

    whole: dict[str, ShardSummary]  # by name
    damaged: tuple[str, ...]  # with an unreadable index, or one that describes another tar


def find_shards(
    location: str, names: Iterable[str], files: Mapping[str, int], fingerprint: str
) -> FoundShards:
    """Find the shards that are whole and of a plan; the others are to be built.

    Args:
        location: folder or URL prefix.
        names: of the tar files.
        files: name → bytes of each file in the folder.
        fingerprint: of the plan.
    """
    whole: dict[str, ShardSummary] = {}
    damaged = []
    indexes = {index_name(name): name for name in names if index_name(name) in files}
    for file, data in storage.read_files(location, indexes):
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
        has_its_tar = not summary.samples or files.get(name) == summary.bytes
        if (summary.name, summary.fingerprint) != (name, fingerprint) or not has_its_tar:
            damaged.append(name)
        else:
            whole[name] = summary
    return FoundShards(whole, tuple(damaged))


class _MeasuredFile:
    """Passes bytes on to a file, and counts and digests them."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self.size = 0
        self.digest = hashlib.sha256()

    def write(self, data: bytes) -> None:
        self._file.write(data)
        self.size += len(data)
        self.digest.update(data)


def write_samples(
    file: BinaryIO,
    job: ShardJob,
    settings: ShardSettings,
    encode: Callable[[Clip], EncodedSample],
) -> tuple[ShardIndex, ShardMeasures | None]:
    """Write the samples of a job to an open file as a tar archive.

    Returns:
        its index, and its measures if it holds a sample.
    """
    archive = _MeasuredFile(file)
    entries: list[SampleEntry] = []
    failures: list[ClipFailure] = []
    measures: list[Mapping[str, float | str]] = []
    offset = 0
    with tar_writer(archive) as tar:
        for clip in job.clips:
            try:
                sample = encode(clip)
            except DecodeError as error:
                stage = "pack" if clip.wav else "decode"
                failure = (clip.video_id, clip.file, stage, error.cause, error.detail)
                failures.append(ClipFailure(*failure))
                continue
            key = sample_key(clip.video_id)
            members = sample_members(clip, sample, settings.labels, settings.sample)
            size = write_members(tar, key, members)
            entry = SampleEntry(
                key=key,
                video_id=clip.video_id,
                offset=offset,
                size=size,
                labels=settings.labels.indices_of(clip.labels),
                split=clip.split,
                num_samples=sample.num_samples,
                complete=sample.complete,
                seconds_found=sample.seconds_found,
                seconds_promised=sample.seconds_promised,
                sizes=(len(members["json"]), len(sample.audio), *map(len, sample.frames)),
            )
            entries.append(entry)
            measures.append(sample.measures)
            offset += size
    audio_samples = sum(entry.num_samples for entry in entries)
    sha256 = archive.digest.hexdigest()
    index = ShardIndex(
        name=job.name,
        fingerprint=settings.fingerprint,
        bytes=archive.size,
        sha256=sha256,
        seconds=round(audio_samples / settings.sample.decode.sample_rate, 3),
        samples=tuple(entries),
        failures=tuple(failures),
    )
    return index, ShardMeasures.of_rows(job.name, sha256, measures) if measures else None


def sample_members(
    clip: Clip, sample: EncodedSample, labels: LabelSet, options: SampleOptions
) -> dict[str, bytes]:
    """A sample's members by suffix, in the order they are written.

    The JSON always has every key, with a value of the same type: readers that infer types from the
    first samples (Hugging Face `datasets`) would take null for a type of its own.
    """
    start = clip.start or 0.0
    end = round(start + sample.seconds_found, 3) if clip.end is None else clip.end
    facts: SampleFacts = {
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
        "measures": dict(sample.measures),
        "modalities": ["audio"] * bool(sample.audio) + ["image"] * bool(sample.frames),
    }
    pictures = {f"{number}.jpg": jpeg for number, jpeg in enumerate(sample.frames)}
    members = {"json": json.dumps(facts).encode(), options.audio: sample.audio, **pictures}
    return {suffix: data for suffix, data in members.items() if data}


def tar_writer(file: BinaryIO | _MeasuredFile) -> TarWriter:
    """A writer of tar archives with fixed headers: no time, owner or mode of this machine."""
    # Here because it imports torch, which takes a second and a quarter of a gigabyte.
    from webdataset import TarWriter

    return TarWriter(file, user="", group="", mode=0o644, mtime=0, encoder=False)


def write_members(tar: TarWriter, key: str, members: Mapping[str, bytes]) -> int:
    """Write a sample; returns its size in the archive."""
    for suffix, data in members.items():
        tar.write({"__key__": key, suffix: data})  # one at a time: it would sort them
    return sum(room(len(data)) for data in members.values())
