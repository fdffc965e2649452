"""Measure the clips of a shard set that was built without measures."""

from __future__ import annotations

import functools
import json
from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np

from avprep import storage
from avprep.audio import decode_audio
from avprep.errors import UserError
from avprep.images import decode_jpeg
from avprep.jobs import run_jobs
from avprep.options import PoolOptions
from avprep.processes import check_stop
from avprep.progress import OnProgress, Progress, ignore
from avprep.quality.measures import COLUMNS, measure_clip
from avprep.shards.format import (
    DatasetInfo,
    SampleEntry,
    ShardInfo,
    read_dataset,
    read_sample,
    stored_members,
    write_dataset,
)
from avprep.shards.measured import ShardMeasures, checked_index, find_measures, measures_name


@dataclass(frozen=True)
class Measured:
    """What one call of `measure` found and did, in one shard or all."""

    found: int  # clips whose measures were there already
    measured: int  # clips
    unreadable: tuple[str, ...]  # clips that could not be decoded: they measure as empty ones


def measure(
    shards: str, pool: PoolOptions = PoolOptions(), on_progress: OnProgress = ignore
) -> Measured:
    """Measure every clip of a shard set and write the numbers beside its indexes.

    Shards and indexes do not change. Existing measures are kept, so an interrupted call can be
    repeated.

    Args:
        shards: folder or URL prefix.
        pool: who does the work; does not change any byte.
        on_progress: called with progress: clips done, after every shard.

    Raises:
        UserError: no shard set there, an index or shard is missing or damaged, or the folder
            cannot be written to.
    """
    storage.check_writable(shards)
    info = read_dataset(shards)
    about = replace(info, shards=(), files={}, extra={})
    work = functools.partial(_measure_shard, location=shards, info=about)
    done: list[Measured] = []
    on_progress(Progress("clip", 0, info.samples))
    for shard in run_jobs(work, info.shards, pool):
        done.append(shard)
        clips = sum(one.found + one.measured for one in done)
        on_progress(Progress("clip", clips, info.samples))
    if info.measures != COLUMNS:
        write_dataset(shards, replace(read_dataset(shards), measures=COLUMNS))
    return Measured(
        sum(one.found for one in done),
        sum(one.measured for one in done),
        tuple(sorted(name for one in done for name in one.unreadable)),
    )


def _measure_shard(shard: ShardInfo, location: str, info: DatasetInfo) -> Measured:
    index = checked_index(location, shard)
    try:
        found = find_measures(location, index)
    except ValueError:  # damaged, or of another build: written again
        found = None
    if found is not None and found.columns.keys() == set(COLUMNS):
        return Measured(len(index.samples), 0, ())
    rows, unreadable = [], []
    for entry in index.samples:
        check_stop()
        try:
            rows.append(_measures_of(read_sample(location, shard.name, entry), entry, info))
        except FileNotFoundError as error:
            path = storage.join(location, shard.name)
            raise UserError(f"{path}: missing. Copy the set again, or build it again.") from error
        except (OSError, RuntimeError, ValueError, KeyError, SyntaxError):
            rows.append(_measures_of_members({}, info))
            unreadable.append(entry.video_id)
    measures = ShardMeasures.of_rows(shard.name, shard.sha256, rows)
    storage.write_atomic(storage.join(location, measures_name(shard.name)), measures.to_bytes())
    return Measured(0, len(rows), tuple(unreadable))


def _measures_of(data: bytes, entry: SampleEntry, info: DatasetInfo) -> Mapping[str, float | str]:
    """What was measured when the sample was made, if its JSON says; else it is measured now."""
    members = stored_members(entry, data, entry.offset, info.options["audio"])
    if entry.starts:  # another program's JSON says nothing of it
        return _measures_of_members(members, info)
    stored = json.loads(bytes(members["json"])).get("measures", {})
    return stored if stored.keys() == set(COLUMNS) else _measures_of_members(members, info)


def _measures_of_members(
    members: Mapping[str, memoryview], info: DatasetInfo
) -> Mapping[str, float | str]:
    rate, size = info.options["sample_rate"], info.options["frame_size"]
    sound = members.get(info.options["audio"])
    pcm = np.empty(0, np.int16) if sound is None else decode_audio(bytes(sound), rate)
    numbers = sorted(int(name[:-4]) for name in members if name.endswith(".jpg"))
    pictures = [decode_jpeg(bytes(members[f"{number}.jpg"])) for number in numbers]
    return measure_clip(pcm, np.array(pictures, np.uint8).reshape(-1, size, size, 3), rate)
