"""How far a build is, from the files of its folder alone; nothing is written.

plan.json says how much there is to do, each index what became of a shard's clips. The time at which
plan.json was last touched is when the last command began to build, that of an index when its shard
was done.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from avprep import storage
from avprep.errors import Unreadable, UserError
from avprep.shards.build import parsed_plan
from avprep.shards.format import (
    DATASET_FILE,
    PLAN_FILE,
    DatasetInfo,
    ShardSummary,
    index_name,
    read_dataset,
    shard_name,
)

_QUIET_SECONDS = 600.0  # a clip takes minutes at most, and most a part of a second


@dataclass(frozen=True)
class Status:
    """The progress of a build.

    Attributes:
        finished: every clip is done and dataset.json exists.
        clips: in the manifest.
        done: clips in finished shards, including failed ones.
        failures: clips by cause.
        shards: in the plan.
        shards_done: finished shards.
        rate: clips per second since the last command began to build; None if unknown.
        seconds_left: at this rate; None if unknown, or if no build seems to be running.
        last_shard: when the newest shard was finished, in Unix time; None if unknown.
        seconds_quiet: since anything was last written; None if unknown.
        at_work: whether a build seems to be running.
    """

    finished: bool
    clips: int
    done: int
    failures: Mapping[str, int]
    shards: int
    shards_done: int
    rate: float | None
    seconds_left: float | None
    last_shard: float | None
    seconds_quiet: float | None
    at_work: bool


def status(shards: str) -> Status:
    """Read the progress of a build from the files of its shard set.

    Args:
        shards: folder or URL prefix.

    Raises:
        UserError: no build has started there.
    """
    times = storage.list_times(shards)
    finished = _finished(shards)
    if finished is not None:
        return _of_finished(finished, times)
    path = storage.join(shards, PLAN_FILE)
    data = storage.read_if_there(path)
    if data is None:
        raise UserError(
            f"{path}: missing, so no build has started here. Give the folder or URL prefix that "
            "`avprep shard` was given as --out."
        )
    plan = parsed_plan(data, path)
    names = [index_name(shard_name(number)) for number in range(plan["shards"])]
    if times:
        names = [name for name in names if name in times]
    return unfinished(plan, whole_shards(shards, names, plan["fingerprint"]), times, time.time())


def unfinished(
    plan: Mapping[str, int],
    whole: Mapping[str, ShardSummary],
    times: Mapping[str, float],
    now: float,
) -> Status:
    """The status of a build that is not finished.

    Args:
        plan: the content of plan.json.
        whole: the shards that are done, by the name of their index.
        times: when each file was written, in Unix time.
        now: Unix time.
    """
    clips = {name: one.samples + len(one.failures) for name, one in whole.items()}
    done = sum(clips.values())
    began = times.get(PLAN_FILE)
    ended = sorted((times[name], count) for name, count in clips.items() if name in times)
    since = [(when, count) for when, count in ended if began is not None and when > began]
    rate = None
    quiet = now - max(times.values()) if times else None
    at_work = quiet is not None and quiet < _QUIET_SECONDS
    if began is not None and since:
        rate = sum(count for _, count in since) / (since[-1][0] - began)
        # Nothing that an object store shows is written before a whole shard is done.
        at_work = at_work or (quiet is not None and quiet < 3 * (since[0][0] - began))
    left = (plan["clips"] - done) / rate if rate and at_work else None
    return Status(
        finished=False,
        clips=plan["clips"],
        done=done,
        failures=Counter(f.cause for one in whole.values() for f in one.failures),
        shards=plan["shards"],
        shards_done=len(whole),
        rate=rate,
        seconds_left=left,
        last_shard=ended[-1][0] if ended else None,
        seconds_quiet=quiet,
        at_work=at_work,
    )


def whole_shards(location: str, names: Sequence[str], fingerprint: str) -> dict[str, ShardSummary]:
    """The shards whose index is there: it is written when its tar is whole."""
    found = {}
    for name, data in storage.read_files(location, names):
        if isinstance(data, Unreadable):
            continue
        try:
            summary = ShardSummary.from_bytes(data)
        except (ValueError, KeyError, TypeError):  # to be built again
            continue
        if summary.fingerprint == fingerprint:
            found[name] = summary
    return found


def _finished(location: str) -> DatasetInfo | None:
    path = storage.join(location, DATASET_FILE)
    return None if storage.read_if_there(path) is None else read_dataset(location)


def _of_finished(info: DatasetInfo, times: Mapping[str, float]) -> Status:
    empty = [name for name in info.files if name.endswith(".index.json")]
    indexes = [*(index_name(shard.name) for shard in info.shards), *empty]
    written = [times[name] for name in indexes if name in times]
    return Status(
        finished=True,
        clips=info.clips,
        done=info.clips,
        failures=info.failures,
        shards=len(indexes),
        shards_done=len(indexes),
        rate=None,
        seconds_left=0.0,
        last_shard=max(written, default=None),
        seconds_quiet=time.time() - max(times.values()) if times else None,
        at_work=False,
    )
