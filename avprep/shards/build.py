"""Build a shard set: plan, do what is missing, and write `dataset.json` when nothing is."""

from __future__ import annotations

import functools
import hashlib
import json
import random
import sys
import tempfile
import threading
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from importlib import metadata
from pathlib import Path
from typing import Any

from avprep import storage
from avprep.clips import Clip
from avprep.errors import CAUSES, TRANSIENT, UserError
from avprep.failures import FAILURES_FILE, ClipFailure, failures_csv
from avprep.ffmpeg_binary import ffmpeg_version
from avprep.jobs import PoolOptions, run_jobs
from avprep.labels import LabelSet
from avprep.options import BuildOptions, SampleOptions, ShardSetOptions
from avprep.progress import OnProgress, Progress, ignore
from avprep.quality.measures import COLUMNS
from avprep.shards.cards import files_for_others, is_foreign
from avprep.shards.format import (
    DATASET_FILE,
    PLAN_FILE,
    DatasetInfo,
    ShardInfo,
    ShardSummary,
    added_up,
    index_name,
    read_dataset,
)
from avprep.shards.measured import measures_name
from avprep.shards.plan import (
    CutByBytes,
    CutByCount,
    ShardCut,
    ShardJob,
    ShardPlan,
    differences,
    part_of,
    plan_shards,
)
from avprep.shards.seal import is_sealed
from avprep.shards.writer import (
    BuiltShard,
    FoundShards,
    ShardSettings,
    build_group,
    find_shards,
)


@dataclass(frozen=True)
class Found:
    """What lies in the folder when a build begins."""

    finished: int  # shards of this part that are whole
    damaged: tuple[str, ...]  # shards of this part to be built again
    leftovers: int  # temporary files of dead writers, deleted
    to_build: int  # shards of this part
    fingerprint: str  # of the plan: the same for the same shards


@dataclass(frozen=True)
class BuildReport:
    """What one call of `build_shard_set` found and did."""

    found: int  # shards that were there already, or that another machine built meanwhile
    built: int
    missing: int  # shards that other parts have yet to build
    clips: int  # in the shards found and built, and the rejected ones
    samples: int
    bytes: int
    seconds: float  # of audio
    incomplete: int  # samples whose source holds less than it promises
    modalities: Mapping[str, int]  # samples that have each
    failures: tuple[ClipFailure, ...]
    label_csv: Path | None = None  # where the label set was read from
    tracker_failures: tuple[str, ...] = ()  # what trackers lack, in words

    @property
    def complete(self) -> bool:
        """Whether the shard set is whole and has its dataset.json."""
        return self.missing == 0


def build_shard_set(
    clips: Sequence[Clip],
    labels: LabelSet,
    out: str,
    options: ShardSetOptions,
    pool: PoolOptions,
    which: BuildOptions = BuildOptions(),
    on_progress: OnProgress = ignore,
    on_found: Callable[[Found], None] = lambda found: None,
) -> BuildReport:
    """Pack a manifest into shards under `out`; finished shards are kept.

    Several calls on the same folder, on one machine or many, share the work: each builds the
    shards in a different order and skips those that another has finished.

    Args:
        clips: the manifest.
        labels: its label set; every label of every clip must be in it.
        out: a local folder, or a URL prefix of an object store that fsspec can write.
        options: what the shards' bytes depend on.
        pool: who does the work; does not change any byte.
        which: the shards to build.
        on_progress: called with progress: clips done, after every shard.
        on_found: called once, before the first shard is built.

    Raises:
        UserError: no clips, a label that is not in the label set, a video's URL of a kind that
            cannot be read, or `out` holds something else or cannot be written to.
        WorkFailed: writing failed, or workers died repeatedly.
    """
    task = planned_task(clips, labels, out, options, which)
    plan, settings, mine = task.plan, task.settings, task.mine
    _claim(out, plan)
    leftovers = storage.remove_abandoned(out)
    survey = task.survey()
    to_build = [job for job in mine if job.name not in survey.whole]
    on_found(Found(len(survey.whole), survey.damaged, leftovers, len(to_build), plan.fingerprint))
    previous = _withdraw_dataset(out) if survey.retried else None
    if to_build:
        storage.touch(storage.join(out, PLAN_FILE))  # tells `avprep status` when work began

    whole, built = dict(survey.whole), 0
    progress = _advanced(Progress("clip", 0, sum(len(job.clips) for job in mine)), whole.values())
    on_progress(progress)
    lock = threading.Lock()

    def take(shard: BuiltShard) -> None:
        nonlocal built, progress
        with lock:
            whole[shard.summary.name] = shard.summary
            built += not shard.found
            progress = _advanced(progress, [shard.summary])
            on_progress(progress)

    _build(_missing_of(task.groups, whole), settings, pool, take)

    ordered = _all_that_are_whole(plan, whole, settings)
    failures = plan.rejected + tuple(f for summary in ordered for f in summary.failures)
    missing = len(plan.jobs) - len(ordered)
    if not missing:
        _finish(plan, settings, ordered, failures, previous)
    return _report(ordered, failures, len(mine) - built, built, missing)


@dataclass(frozen=True)
class BuildTask:
    """What one call is to build, decided before anything is read or written."""

    plan: ShardPlan
    settings: ShardSettings
    groups: tuple[tuple[ShardJob, ...], ...]  # of this part

    @property
    def mine(self) -> list[ShardJob]:
        """The shards of this part."""
        return [job for group in self.groups for job in group]

    def survey(self) -> FoundShards:
        """The shards of this part that are there."""
        names = [job.name for job in self.mine]
        return find_shards(names, storage.list_files(self.settings.out), self.settings)

    def check_folder(self) -> None:
        """Refuse a folder that a build would refuse, without writing to it.

        Raises:
            UserError: it holds something else.
        """
        out = self.settings.out
        content = storage.read_if_there(storage.join(out, PLAN_FILE))
        if content is None:
            _refuse_strangers(out, self.plan)
        else:
            _refuse_another_plan(out, self.plan, content)


def planned_task(
    clips: Sequence[Clip],
    labels: LabelSet,
    out: str,
    options: ShardSetOptions,
    which: BuildOptions,
) -> BuildTask:
    """Plan a shard set, and what of it is this call's; see `build_shard_set`."""
    storage.check_writable(out)
    plan = _plan(clips, labels, options)
    settings = ShardSettings(
        *(out, labels, options.sample, options.limits, plan.fingerprint),
        retried=frozenset(CAUSES) if which.retry_failed else TRANSIENT,
    )
    return BuildTask(plan, settings, part_of(plan.groups, which.part.k, which.part.n))


def _report(
    summaries: Sequence[ShardSummary],
    failures: tuple[ClipFailure, ...],
    found: int,
    built: int,
    missing: int,
) -> BuildReport:
    samples = sum(summary.samples for summary in summaries)
    return BuildReport(
        found=found,
        built=built,
        missing=missing,
        clips=samples + len(failures),
        samples=samples,
        bytes=sum(summary.bytes for summary in summaries if summary.samples),
        seconds=round(sum(summary.seconds for summary in summaries), 3),
        incomplete=sum(summary.incomplete for summary in summaries),
        modalities=added_up(summary.modalities for summary in summaries),
        failures=failures,
    )


def _cut(options: ShardSetOptions) -> ShardCut:
    """How the clips are cut into shards."""
    if options.shard_bytes is None:
        return CutByCount(options.samples_per_shard)
    return CutByBytes(options.shard_bytes, options.sample)


def _plan(clips: Sequence[Clip], labels: LabelSet, options: ShardSetOptions) -> ShardPlan:
    if not clips:
        raise UserError("the manifest holds no clip, so there is nothing to put into shards.")
    return plan_shards(
        clips,
        labels,
        {"sample": asdict(options.sample), "seed": options.seed},
        tool_versions(options.sample),
        _cut(options),
        options.seed,
    )


def _missing_of(
    groups: Iterable[Sequence[ShardJob]], whole: Collection[str]
) -> list[list[ShardJob]]:
    """The shards that are not there, by groups."""
    missing = ([job for job in group if job.name not in whole] for group in groups)
    return [group for group in missing if group]


def _build(
    groups: Sequence[Sequence[ShardJob]],
    settings: ShardSettings,
    pool: PoolOptions,
    take: Callable[[BuiltShard], None],
) -> None:
    """Build shards; `take` gets each when it is there, from the thread that built it.

    From a cluster it gets those of a group together.
    """
    # In an order of its own, so that machines at the same task seldom meet.
    shuffled = random.Random().sample(groups, len(groups))
    settings = replace(settings, decoders=pool.decoders(len(groups)))
    work = functools.partial(build_group, settings=settings)
    if pool.is_local:
        work = functools.partial(work, on_built=take)
    try:
        for shards in run_jobs(work, shuffled, pool):
            for shard in () if pool.is_local else shards:
                take(shard)
    finally:
        for place in (settings.out, tempfile.gettempdir()):  # shards, and videos for decoders
            storage.remove_abandoned(place)


def _advanced(progress: Progress, summaries: Iterable[ShardSummary]) -> Progress:
    """How far a build is when these shards are done, too."""
    summaries = list(summaries)
    causes = Counter(failure.cause for summary in summaries for failure in summary.failures)
    done = causes.total() + sum(summary.samples for summary in summaries)
    return replace(
        progress,
        done=progress.done + done,
        failed=progress.failed + causes.total(),
        causes=causes + Counter(progress.causes),
    )


def _all_that_are_whole(
    plan: ShardPlan, whole: dict[str, ShardSummary], settings: ShardSettings
) -> list[ShardSummary]:
    """The shards of the set that are there, in order: of this part, and of others."""
    others = [job.name for job in plan.jobs if job.name not in whole]
    if others:
        anyhow = replace(settings, retried=frozenset())
        whole = whole | find_shards(others, storage.list_files(settings.out), anyhow).whole
    return [whole[job.name] for job in plan.jobs if job.name in whole]


def tool_versions(options: SampleOptions) -> dict[str, str]:
    """Versions of everything that the bytes of a shard depend on.

    With `decoder="auto"` the ffmpeg program decodes only what PyAV cannot; machines may then differ
    in it, and a clip in need of it may come out otherwise on another.
    """
    packages = ("avprep-cavmae", "av", "opencv-python-headless", "pillow", "soundfile", "numpy")
    versions = {package: metadata.version(package) for package in packages}
    if options.decode.decoder == "ffmpeg":
        versions["ffmpeg"] = ffmpeg_version()
    return {**versions, "python": ".".join(map(str, sys.version_info[:2]))}


def _claim(out: str, plan: ShardPlan) -> None:
    """Mark the folder as this plan's, or refuse to mix two plans in one folder."""
    storage.claim(
        out,
        PLAN_FILE,
        _plan_bytes(plan),
        functools.partial(_refuse_another_plan, out, plan),
        functools.partial(_refuse_strangers, out, plan),
    )


def _refuse_strangers(out: str, plan: ShardPlan) -> None:
    found = storage.strangers(out, PLAN_FILE)
    finished = _finished_dataset(out)
    is_ours = finished is not None and finished.fingerprint == plan.fingerprint
    if found and not is_ours:
        raise UserError(
            f"{out}: not empty and not a shard set (holds {found[0]!r}). Choose another --out."
        )


def _refuse_another_plan(out: str, plan: ShardPlan, content: bytes) -> None:
    theirs = parsed_plan(content, storage.join(out, PLAN_FILE))
    if theirs["fingerprint"] != plan.fingerprint:
        raise UserError(
            f"{out}: holds shards of {', '.join(differences(theirs, plan))}. Choose another "
            "--out, or delete this folder first."
        )


def _plan_bytes(plan: ShardPlan) -> bytes:
    mine = {"fingerprint": plan.fingerprint, "shards": len(plan.jobs), "clips": plan.clips}
    return (json.dumps({**mine, "made_with": plan.made_with}) + "\n").encode()


def parsed_plan(data: bytes, path: str) -> dict[str, Any]:
    """The content of a plan.json: `fingerprint`, `shards`, `clips`, and mostly `made_with`.

    Raises:
        UserError: it is damaged.
    """
    try:
        plan = json.loads(data)
        return {**{key: plan[key] for key in ("fingerprint", "shards", "clips")}, **plan}
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise UserError(
            f"{path}: is damaged ({error!r}). Run `avprep verify --discard` on its folder, or "
            "delete that."
        ) from error


def _withdraw_dataset(out: str) -> DatasetInfo | None:
    """Take away the dataset.json of a set whose shards are about to change; returns it."""
    previous = _finished_dataset(out)
    storage.delete(storage.join(out, DATASET_FILE))
    return previous


def _finished_dataset(out: str) -> DatasetInfo | None:
    """The dataset.json that is there, if it is whole."""
    data = storage.read_if_there(storage.join(out, DATASET_FILE))
    return read_dataset(out) if data is not None and is_sealed(data) else None


def _finish(
    plan: ShardPlan,
    settings: ShardSettings,
    summaries: Sequence[ShardSummary],
    failures: tuple[ClipFailure, ...],
    previous: DatasetInfo | None,
) -> None:
    """Write failures.csv and dataset.json; what was added to the same shards' one is kept."""
    out, labels, sample = settings.out, settings.labels, settings.sample
    counts: Counter[int] = Counter()
    for summary in summaries:
        counts.update(summary.class_counts)
    failed = failures_csv(failures)
    files = {
        FAILURES_FILE: hashlib.sha256(failed).hexdigest(),
        PLAN_FILE: hashlib.sha256(storage.read_bytes(storage.join(out, PLAN_FILE))).hexdigest(),
    }
    has_measures = storage.list_files(out).keys() >= {
        measures_name(summary.name) for summary in summaries if summary.samples
    }
    files |= {index_name(s.name): s.index_sha256 for s in summaries if not s.samples}
    info = DatasetInfo(
        labels=tuple(zip(labels.mids, labels.names, strict=True)),
        options={
            **asdict(sample.decode),
            "audio": sample.audio,
            "jpeg_quality": sample.jpeg_quality,
        },
        tools=tool_versions(sample),
        shards=tuple(
            ShardInfo(summary.name, summary.samples, summary.bytes, summary.sha256)
            for summary in summaries
            if summary.samples
        ),
        samples=sum(summary.samples for summary in summaries),
        clips=plan.clips,
        seconds=round(sum(summary.seconds for summary in summaries), 3),
        failures=dict(sorted(Counter(failure.cause for failure in failures).items())),
        class_counts=tuple(counts[label] for label in range(len(labels))),
        fingerprint=plan.fingerprint,
        incomplete=sum(summary.incomplete for summary in summaries),
        measures=COLUMNS if has_measures else (),  # an older version writes none
        modalities=added_up(summary.modalities for summary in summaries),
        files=files,
    )
    _write_if_changed(storage.join(out, FAILURES_FILE), failed)
    for name, content in files_for_others(info).items():
        path = storage.join(out, name)
        if not is_foreign(name, storage.read_if_there(path)):
            _write_if_changed(path, content)
            info = replace(info, files={**info.files, name: hashlib.sha256(content).hexdigest()})
    previous = _finished_dataset(out) or previous
    if previous and previous.shards == info.shards:
        info = replace(info, extra=previous.extra)  # such as what `cavmae stats` measured
    _write_if_changed(storage.join(out, DATASET_FILE), info.to_bytes())


def _write_if_changed(path: str, data: bytes) -> None:
    if storage.read_if_there(path) != data:
        storage.write_atomic(path, data)
