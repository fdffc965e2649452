"""What a build will take, from decoding a small sample of its clips; nothing is written.

Files that cannot even be opened are found without decoding. The others are sorted by kind and size
and cut into equal runs, and one clip of each run is decoded: files that are alike cost alike.
"""

from __future__ import annotations

import bisect
import contextlib
import heapq
import itertools
import math
import os
import random
import resource
import statistics
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path, PurePath
from typing import Any

from avprep.clips import Clip
from avprep.decode import check_file
from avprep.encode.process import ClipDecoder
from avprep.encode.wire import EncodedSample
from avprep.errors import DecodeError, Unreadable
from avprep.jobs import run_jobs
from avprep.options import PoolOptions
from avprep.origins.fetch import LocalVideo, fetch_videos
from avprep.origins.place import place_of
from avprep.processes import available_cores
from avprep.progress import OnProgress, each, ignore
from avprep.shards.build import BuildTask
from avprep.shards.format import ShardSummary
from avprep.shards.plan import ShardJob
from avprep.shards.writer import ShardSettings, ShardWriter

SAMPLE = 200  # clips; keeps the error on a mixed set of 1,000 well below 15 %
_LOOKED_AT = 20_000  # files; a network file system takes a millisecond for each
_DEVIATIONS = 1.96  # either way, for 95 %


@dataclass(frozen=True)
class Estimate:
    """An estimate from a sample; `low` to `high` is its 95 % interval."""

    value: float
    low: float
    high: float

    def __add__(self, other: Estimate) -> Estimate:
        return Estimate(self.value + other.value, self.low + other.low, self.high + other.high)

    @classmethod
    def exactly(cls, value: float) -> Estimate:
        """A number that is known."""
        return cls(value, value, value)

    @classmethod
    def of_total(cls, values: Sequence[float], population: int) -> Estimate:
        """The sum over a population, from values of some of its members.

        Args:
            values: of members at even distances, in the order of the population; neighbours are
                alike, so how much they differ tells the error.
            population: its size.
        """
        asked = len(values)
        if not asked:
            return cls.exactly(0.0)
        if asked >= population:
            return cls.exactly(sum(values))
        total = sum(values) * population / asked
        if asked == 1:
            return cls.exactly(total)
        squares = sum((a - b) ** 2 for a, b in itertools.pairwise(values))
        variance = squares / 2 / (asked - 1) / asked * (1 - asked / population)
        error = _DEVIATIONS * population * math.sqrt(variance)
        return cls(total, max(0.0, total - error), total + error)

    @classmethod
    def of_count(cls, found: int, asked: int, population: int) -> Estimate:
        """How many of a population are as `found` of those asked (Wilson's interval)."""
        if asked >= population:
            return cls.exactly(found)
        share, square = found / asked, _DEVIATIONS**2 / asked
        middle = (share + square / 2) / (1 + square)
        half = math.sqrt(share * (1 - share) * square + square**2 / 4) / (1 + square)
        low = max(float(found), (middle - half) * population)
        high = min(float(found + population - asked), (middle + half) * population)
        return cls(share * population, low, high)


@dataclass(frozen=True)
class Forecast:
    """What a build will take.

    Attributes:
        clips: number of clips in this part of the manifest.
        done: those in finished shards.
        decoded: number of clips decoded.
        workers: number of workers that `seconds` and `memory` are for.
        cpu_seconds: of all processes together.
        seconds: from beginning to end, without reading archives, downloads and uploads.
        bytes: size of the shards to be built.
        memory: bytes, of all processes together.
        failures: failing clips by cause, including those in finished shards.
    """

    clips: int
    done: int
    decoded: int
    workers: int
    cpu_seconds: Estimate
    seconds: Estimate
    bytes: Estimate
    memory: int
    failures: Mapping[str, Estimate]


def forecast_shard_set(
    task: BuildTask, pool: PoolOptions = PoolOptions(), on_progress: OnProgress = ignore
) -> Forecast:
    """Decode a sample of the clips that a build has to decode, as it would.

    Args:
        task: the build.
        pool: its workers; up to one per core of this machine decode the sample.
        on_progress: called with progress: clips decoded.

    Raises:
        UserError: the build would refuse its folder.
    """
    task.check_folder()
    whole = task.survey().whole
    jobs = [job for job in task.mine if job.name not in whole]
    ends = list(itertools.accumulate(len(job.clips) for job in jobs))
    to_do = ends[-1] if ends else 0
    chance = random.Random(task.plan.fingerprint)

    asked = []
    for number in chance.sample(range(to_do), min(to_do, _LOOKED_AT)):
        at = bisect.bisect(ends, number)
        asked.append(jobs[at].clips[number - ends[at]])  # counted from the end
    unusable, usable = _looked_at(asked)
    readable = round(to_do * len(usable) / max(1, len(asked)))
    trial = _try(one_per_run(usable, SAMPLE, chance), task.settings, pool, on_progress)

    found = [
        *((cause, Estimate.exactly(count)) for cause, count in _known(task, whole).items()),
        *_counts(unusable, len(asked), to_do),
        *_counts(filter(None, trial.each("cause")), len(trial.costs), readable),
    ]
    clips = sum(len(job.clips) for job in task.mine) + len(task.plan.rejected)
    at_work = min(pool.count(), max(1, len(jobs)))
    return Forecast(
        clips=clips,
        done=clips - to_do,
        decoded=len(trial.costs),
        workers=pool.count(),
        cpu_seconds=Estimate.of_total(trial.each("cpu_seconds"), readable)
        + Estimate.exactly(readable * trial.own_seconds + len(jobs) * trial.start.cpu_seconds),
        seconds=_until_the_end(jobs, trial, readable, at_work),
        bytes=Estimate.of_total(trial.each("bytes"), readable),
        memory=trial.own_memory + at_work * trial.memory,
        failures=_summed(found),
    )


def one_per_run(clips: Sequence[Clip], number: int, chance: random.Random) -> list[Clip]:
    """One clip of each of `number` equal runs; of each clip where there are fewer."""
    number = min(number, len(clips))
    bounds = [run * len(clips) // number for run in range(number)] + [len(clips)]
    return [clips[chance.randrange(*run)] for run in itertools.pairwise(bounds)]


def time_with(workers: int, jobs: Iterable[float]) -> float:
    """When the last of some jobs is done, each begun by the first worker that is free."""
    free = [0.0] * workers
    for seconds in jobs:
        heapq.heapreplace(free, free[0] + seconds)
    return max(free)


def _until_the_end(
    jobs: Sequence[ShardJob], trial: _Trial, readable: int, workers: int
) -> Estimate:
    clips = sum(len(job.clips) for job in jobs)
    waits = Estimate.of_total(trial.each("seconds"), readable)

    def end(wait: float) -> float:
        per_clip = wait / max(1, clips) + trial.own_seconds
        return time_with(workers, (trial.start.seconds + per_clip * len(job.clips) for job in jobs))

    return Estimate(end(waits.value), end(waits.low), end(waits.high))


def _looked_at(clips: Sequence[Clip]) -> tuple[list[str], list[Clip]]:
    """The causes of those whose file cannot be opened; and the others, like beside like."""
    causes, sizes = [], {}
    for clip in clips:
        if not clip.wav and not place_of(clip.video).is_local_video:
            sizes[clip] = 0
            continue
        try:
            check_file(Path(clip.wav or clip.video))
            sizes[clip] = os.stat(clip.wav or clip.video).st_size
        except DecodeError as error:
            causes.append(error.cause)
    return causes, sorted(
        sizes, key=lambda clip: (PurePath(clip.file).suffix.lower(), sizes[clip], clip.video_id)
    )


def _known(task: BuildTask, whole: Mapping[str, ShardSummary]) -> Counter[str]:
    """Failures of clips that no job gets, and those in the shards that are there."""
    failures = [*task.plan.rejected, *(one for found in whole.values() for one in found.failures)]
    return Counter(failure.cause for failure in failures)


def _counts(causes: Iterable[str], asked: int, population: int) -> list[tuple[str, Estimate]]:
    return [
        (cause, Estimate.of_count(found, asked, population))
        for cause, found in Counter(causes).items()
    ]


def _summed(found: Iterable[tuple[str, Estimate]]) -> dict[str, Estimate]:
    """The most frequent first."""
    sums: dict[str, Estimate] = {}
    for cause, count in found:
        sums[cause] = sums.get(cause, Estimate.exactly(0)) + count
    return dict(sorted(sums.items(), key=lambda pair: -pair[1].value))


@dataclass(frozen=True)
class _Cost:
    """What one clip took."""

    cpu_seconds: float
    seconds: float
    bytes: int = 0
    cause: str = ""  # of its failure


@dataclass(frozen=True)
class _Group:
    """What the clips of one worker took."""

    costs: list[_Cost]
    start: _Cost  # of the child
    memory: int  # bytes of the child
    own_seconds: float  # CPU time of this process


@dataclass(frozen=True)
class _Trial:
    """What a sample of clips took.

    Attributes:
        costs: of each clip, in order.
        start: of a child; each shard has one.
        memory: bytes of a child.
        own_seconds: of this process, per clip.
        own_memory: bytes of this process.
    """

    costs: list[_Cost]
    start: _Cost
    memory: int
    own_seconds: float
    own_memory: int

    def each(self, name: str) -> list[Any]:
        """One of the costs, of each clip."""
        return [getattr(cost, name) for cost in self.costs]


def _try(
    clips: Sequence[Clip], settings: ShardSettings, pool: PoolOptions, on_progress: OnProgress
) -> _Trial:
    """Make the samples of some clips, and keep none of them."""
    workers = max(1, min(pool.count(), available_cores(), len(clips)))
    count, one_at_a_time = each("clip", on_progress, len(clips)), threading.Lock()

    def on_clip() -> None:
        with one_at_a_time:
            count()

    def work(first: int) -> tuple[int, _Group]:
        return first, _try_group(clips[first::workers], settings, on_clip)

    _try_group([], settings, on_clip)  # loads what writing tars takes
    groups = dict(run_jobs(work, range(workers), PoolOptions(workers)))
    own_seconds = sum(group.own_seconds for group in groups.values()) / max(1, len(clips))
    costs = [groups[place % workers].costs[place // workers] for place in range(len(clips))]
    return _Trial(
        costs,
        _Cost(
            statistics.mean(group.start.cpu_seconds for group in groups.values()),
            statistics.mean(group.start.seconds for group in groups.values()),
        ),
        max(group.memory for group in groups.values()),
        own_seconds,
        resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
    )


def _try_group(
    clips: Sequence[Clip], settings: ShardSettings, on_clip: Callable[[], None]
) -> _Group:
    costs: dict[str, _Cost] = {}
    own_seconds = 0.0
    with (
        open(os.devnull, "wb") as nowhere,
        ClipDecoder(settings.sample, settings.limits) as decoder,
        contextlib.ExitStack() as stack,
    ):
        began = time.monotonic()
        with contextlib.suppress(DecodeError):
            decoder.decode(Clip("", video=os.devnull))  # refused as soon as the child is there
        start = _Cost(decoder.usage.cpu_seconds, time.monotonic() - began)
        shard = stack.enter_context(ShardWriter(nowhere, ShardJob("", tuple(clips)), settings))
        for clip, video in fetch_videos(clips, settings.limits.scratch_size):
            before, began, own = decoder.usage, time.monotonic(), time.thread_time()
            outcome = _outcome(decoder, clip, video)
            shard.add(clip, outcome)
            own_seconds += time.thread_time() - own
            cost = _Cost(decoder.usage.cpu_seconds - before.cpu_seconds, time.monotonic() - began)
            cause = outcome.cause if isinstance(outcome, Unreadable) else ""
            costs[clip.video_id] = replace(cost, cause=cause)
            on_clip()
        for entry in shard.finish().samples:
            costs[entry.video_id] = replace(costs[entry.video_id], bytes=entry.size)
        memory = decoder.usage.peak_bytes
    return _Group([costs[clip.video_id] for clip in clips], start, memory, own_seconds)


def _outcome(
    decoder: ClipDecoder, clip: Clip, video: LocalVideo | Unreadable
) -> EncodedSample | Unreadable:
    if isinstance(video, Unreadable):
        return video
    try:
        return decoder.decode(clip, video.path, video.fill)
    except DecodeError as error:
        return error.outcome
    finally:
        video.release()
