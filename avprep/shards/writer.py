"""One job builds a shard, or those of one archive: each a tar and its index, or nothing."""

from __future__ import annotations

import hashlib
import io
import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, BinaryIO

from avprep import storage
from avprep.clips import Clip
from avprep.encode.ahead import encode_clips
from avprep.encode.wire import EncodedSample
from avprep.errors import TRANSIENT, Unreadable
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
    retried: frozenset[str] = TRANSIENT  # a shard with failures of such causes counts as missing
    decoders: int = 1  # children of each job


@dataclass(frozen=True)
class BuiltShard:
    """The result of a job."""

    summary: ShardSummary
    found: bool  # another machine built it meanwhile


def build_group(
    jobs: Sequence[ShardJob],
    settings: ShardSettings,
    on_built: Callable[[BuiltShard], object] = lambda shard: None,
) -> list[BuiltShard]:
    """Decode the clips of some shards, and write each shard and its index when it has all of them.

    The tar gets its final name before the index does, so a shard that has an index is whole. A clip
    that fails is recorded in the index and costs nothing else.

    Args:
        jobs: shards whose clips may lie in the same files.
        settings: what all jobs of a shard set share.
        on_built: called with each shard as soon as it is there.

    Raises:
        UserError: the folder cannot be written to.
        WorkFailed: a shard cannot be written, because the disk is full or the like.
    """
    found = find_shards([job.name for job in jobs], _files_of(jobs, settings), settings).whole
    built: list[BuiltShard] = []

    def tell(shard: BuiltShard) -> None:
        built.append(shard)
        on_built(shard)

    for summary in found.values():
        tell(BuiltShard(summary, found=True))
    missing = [job for job in jobs if job.name not in found]
    job_of = {clip.video_id: job for job in missing for clip in job.clips}
    begun: dict[str, tuple[ShardWriter, storage.ScratchFile]] = {}
    with ExitStack() as stack:
        clips = [clip for job in missing for clip in job.clips]
        outcomes = encode_clips(clips, settings.sample, settings.limits, settings.decoders)
        stack.callback(outcomes.close)
        for clip, outcome in outcomes:
            job = job_of[clip.video_id]
            if job.name not in begun:
                file = stack.enter_context(storage.scratch_file(settings.out))
                writer = stack.enter_context(ShardWriter(file, job, settings))
                begun[job.name] = writer, file
            shard, file = begun[job.name]
            shard.add(clip, outcome)
            if shard.has_all:
                del begun[job.name]
                tell(_publish(shard, file, settings))
                file.discard()
    return built


def _files_of(jobs: Sequence[ShardJob], settings: ShardSettings) -> dict[str, int]:
    """Name → bytes of the files of some shards that are there."""
    names = [name for job in jobs for name in (job.name, index_name(job.name))]
    sizes = {name: storage.size(storage.join(settings.out, name)) for name in names}
    return {name: size for name, size in sizes.items() if size is not None}


def _publish(shard: ShardWriter, file: storage.ScratchFile, settings: ShardSettings) -> BuiltShard:
    """Put a shard that has all its clips in place, unless the one that is there is better."""
    index = shard.finish()
    anyhow = replace(settings, retried=frozenset())
    old = find_shards([shard.job.name], _files_of([shard.job], settings), anyhow).whole
    for summary in old.values():
        # Tried again while the network is down: samples must not make room for failures.
        if _transient(index.failures) > _transient(summary.failures):
            return BuiltShard(summary, found=True)
    with storage.scratch_file(settings.out) as ordered:
        if not shard.is_in_order:
            file.flush()
            with file.path.open("rb") as source:
                file, index = ordered, shard.copy_in_order(source, ordered, index)
        data = index.to_bytes()
        _put_in_place(file, index, shard.measures_of(index), data, settings)
    return BuiltShard(ShardSummary.from_bytes(data), found=False)


def _transient(failures: Iterable[ClipFailure]) -> int:
    return sum(failure.cause in TRANSIENT for failure in failures)


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
    retried: tuple[str, ...]  # with failures that are to be tried again


def find_shards(
    names: Iterable[str], files: Mapping[str, int], settings: ShardSettings
) -> FoundShards:
    """Find the shards that are whole and of this plan; the others are to be built.

    Args:
        names: of the tar files.
        files: name → bytes of each file in the folder.
        settings: which plan, and which failures make a shard count as missing.
    """
    whole: dict[str, ShardSummary] = {}
    damaged: list[str] = []
    retried: list[str] = []
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
        has_its_tar = not summary.samples or files.get(name) == summary.bytes
        if (summary.name, summary.fingerprint) != (name, settings.fingerprint) or not has_its_tar:
            damaged.append(name)
        elif any(failure.cause in settings.retried for failure in summary.failures):
            retried.append(name)
        else:
            whole[name] = summary
    return FoundShards(whole, tuple(damaged), tuple(retried))


class _MeasuredFile:
    """Passes bytes on to a file, and counts and digests them."""

    def __init__(self, file: BinaryIO) -> None:
        self.file = file
        self.size = 0
        self.digest = hashlib.sha256()

    def write(self, data: bytes) -> None:
        self.file.write(data)
        self.size += len(data)
        self.digest.update(data)


class ShardWriter:
    """Writes the samples of a job to an open file as a tar archive, in the order they come in."""

    def __init__(self, file: BinaryIO, job: ShardJob, settings: ShardSettings) -> None:
        self.job = job
        self._settings = settings
        self._rank = {clip.video_id: rank for rank, clip in enumerate(job.clips)}
        self._archive = _MeasuredFile(file)
        self._tar = tar_writer(self._archive)
        self._entries: list[SampleEntry] = []
        self._measures: dict[str, Mapping[str, float | str]] = {}  # by video_id
        self._failures: list[ClipFailure] = []
        self._offset = 0

    def __enter__(self) -> ShardWriter:
        return self

    def __exit__(self, *error: object) -> None:
        if error[0] is not None:
            self._archive.file = io.BytesIO()  # the end of an unfinished archive is of no use
        self._tar.close()

    @property
    def has_all(self) -> bool:
        """Whether every clip of the job has come in."""
        return len(self._entries) + len(self._failures) == len(self.job.clips)

    @property
    def is_in_order(self) -> bool:
        """Whether the samples came in the order of the job."""
        ranks = [self._rank[entry.video_id] for entry in self._entries]
        return ranks == sorted(ranks)

    def add(self, clip: Clip, outcome: EncodedSample | Unreadable) -> None:
        """Write a clip's sample, or note why there is none."""
        if isinstance(outcome, Unreadable):
            stage = "pack" if clip.wav else "decode"
            failure = (clip.video_id, clip.file, stage, outcome.cause, outcome.detail)
            self._failures.append(ClipFailure(*failure))
            return
        settings = self._settings
        key = sample_key(clip.video_id)
        members = sample_members(clip, outcome, settings.labels, settings.sample)
        size = write_members(self._tar, key, members)
        entry = SampleEntry(
            key=key,
            video_id=clip.video_id,
            offset=self._offset,
            size=size,
            labels=settings.labels.indices_of(clip.labels),
            split=clip.split,
            num_samples=outcome.num_samples,
            complete=outcome.complete,
            seconds_found=outcome.seconds_found,
            seconds_promised=outcome.seconds_promised,
            sizes=(len(members["json"]), len(outcome.audio), *map(len, outcome.frames)),
        )
        self._entries.append(entry)
        self._measures[clip.video_id] = outcome.measures
        self._offset += size

    def finish(self) -> ShardIndex:
        """End the archive; returns its index."""
        self._tar.close()
        self._failures.sort(key=lambda failure: self._rank[failure.video_id])
        audio_samples = sum(entry.num_samples for entry in self._entries)
        return ShardIndex(
            name=self.job.name,
            fingerprint=self._settings.fingerprint,
            bytes=self._archive.size,
            sha256=self._archive.digest.hexdigest(),
            seconds=round(audio_samples / self._settings.sample.decode.sample_rate, 3),
            samples=tuple(self._entries),
            failures=tuple(self._failures),
        )

    def measures_of(self, index: ShardIndex) -> ShardMeasures | None:
        """What was measured of the samples, in the order of an index; None where it has none."""
        rows = [self._measures[entry.video_id] for entry in index.samples]
        return ShardMeasures.of_rows(index.name, index.sha256, rows) if rows else None

    def copy_in_order(self, source: BinaryIO, target: BinaryIO, index: ShardIndex) -> ShardIndex:
        """Copy the archive with its samples in the order of the job; returns the copy's index."""
        archive = _MeasuredFile(target)
        entries = []
        for entry in sorted(index.samples, key=lambda entry: self._rank[entry.video_id]):
            source.seek(entry.offset)
            entries.append(replace(entry, offset=archive.size))
            archive.write(source.read(entry.size))
        source.seek(archive.size)
        archive.write(source.read())  # the archive's end
        return replace(index, sha256=archive.digest.hexdigest(), samples=tuple(entries))


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
