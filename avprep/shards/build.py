"""Build a shard set: plan, do what is missing, and write `dataset.json` when nothing is."""

from __future__ import annotations

import functools
import hashlib
import json
import sys
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from importlib import metadata
from typing import Any

from avprep import storage
from avprep.clips import Clip
from avprep.errors import UserError
from avprep.failures import FAILURES_FILE, ClipFailure, failures_csv
from avprep.jobs import PoolOptions, run_jobs
from avprep.labels import LabelSet
from avprep.options import IsolationOptions, SampleOptions
from avprep.shards.format import (
    DATASET_FILE,
    DatasetInfo,
    ShardIndex,
    ShardInfo,
    index_name,
    is_sealed,
    read_dataset,
)
from avprep.shards.plan import ShardPlan, part_of, plan_shards
from avprep.shards.writer import ShardSettings, build_shard, is_built

PLAN_FILE = "plan.json"


@dataclass(frozen=True)
class ShardSetOptions:
    """What a shard set is made of, apart from the manifest and the label set."""

    sample: SampleOptions
    limits: IsolationOptions
    samples_per_shard: int | None = None  # None: see `plan_shards`
    seed: int = 0


@dataclass(frozen=True)
class BuildReport:
    """What one call of `build_shard_set` found and did."""

    found: int  # shards that were there already
    built: int
    missing: int  # shards that other parts have yet to build
    clips: int  # in the shards found and built
    samples: int
    bytes: int
    seconds: float  # of audio
    failures: tuple[ClipFailure, ...]

    @property
    def complete(self) -> bool:
        """Whether the shard set is whole and has its dataset.json."""
        return self.missing == 0


@dataclass(frozen=True)
class Progress:
    """How far a build is; handed to the caller after every shard."""

    clips_done: int
    clips_total: int
    failed: int


def build_shard_set(
    clips: Sequence[Clip],
    labels: LabelSet,
    out: str,
    options: ShardSetOptions,
    pool: PoolOptions,
    part: tuple[int, int] = (1, 1),
    retry_failed: bool = False,
    on_progress: Callable[[Progress], None] = lambda progress: None,
) -> BuildReport:
    """Pack a manifest into shards under `out`; what is there already is kept.

    Args:
        clips: the manifest.
        labels: its label set; every label of every clip must be in it.
        out: a local folder, or a URL prefix that fsspec can write.
        options: what the shards' bytes depend on.
        pool: who does the work; has no influence on any byte.
        part: (k, n), build only the k-th of n equal parts of the shards, k from 1.
        retry_failed: build shards anew in which clips failed, for inputs mended since.
        on_progress: called after every shard.

    Raises:
        UserError: a label that is not in the label set, or `out` holds something else.
    """
    for clip in clips:
        labels.indices_of(clip.labels)
    plan = plan_shards(
        clips,
        labels,
        {"sample": asdict(options.sample), "seed": options.seed},
        tool_versions(),
        options.samples_per_shard,
        options.seed,
    )
    storage.make_folder(out)
    _claim(out, plan)
    settings = ShardSettings(out, labels, options.sample, options.limits, plan.fingerprint)

    mine = part_of(plan.jobs, *part)
    indexes = {job.name: index for job in mine if (index := is_built(out, job, plan.fingerprint))}
    if retry_failed:
        indexes = {name: index for name, index in indexes.items() if not index.failures}
    found = len(indexes)
    to_build = [job for job in mine if job.name not in indexes]
    total = sum(len(job.clips) for job in mine)

    def report_progress() -> None:
        failed = sum(len(index.failures) for index in indexes.values())
        done = failed + sum(len(index.samples) for index in indexes.values())
        on_progress(Progress(done, total, failed))

    report_progress()
    for index in run_jobs(functools.partial(build_shard, settings=settings), to_build, pool):
        indexes[index.name] = index
        report_progress()

    others = [job for job in plan.jobs if job.name not in indexes]
    for job in others:
        if index := is_built(out, job, plan.fingerprint):
            indexes[job.name] = index
    ordered = [indexes[job.name] for job in plan.jobs if job.name in indexes]
    missing = len(plan.jobs) - len(ordered)
    failures = plan.rejected + tuple(f for index in ordered for f in index.failures)
    if not missing:
        _finish(out, plan, ordered, failures, labels, options.sample)
    return BuildReport(
        found=found,
        built=len(to_build),
        missing=missing,
        clips=sum(len(index.samples) for index in ordered) + len(failures),
        samples=sum(len(index.samples) for index in ordered),
        bytes=sum(index.bytes for index in ordered if index.samples),
        seconds=round(sum(index.seconds for index in ordered), 3),
        failures=failures,
    )


def tool_versions() -> dict[str, str]:
    """Versions of everything that the bytes of a shard depend on."""
    packages = ("avprep-cavmae", "av", "opencv-python-headless", "pillow", "soundfile", "numpy")
    versions = {package: metadata.version(package) for package in packages}
    return {**versions, "python": ".".join(map(str, sys.version_info[:2]))}


def _claim(out: str, plan: ShardPlan) -> None:
    """Mark the folder as this plan's, or refuse to mix two plans in one folder."""
    path = storage.join(out, PLAN_FILE)
    if storage.exists(path):
        found = storage.read_bytes(path)
        if found != _plan_bytes(plan):
            theirs = _parsed_plan(found, path)
            raise UserError(
                f"{out}: holds shards of another manifest, other options or other program "
                f"versions ({theirs['clips']} clips in {theirs['shards']} shards). Choose another "
                "--out, or delete this folder first."
            )
        return
    strangers = storage.list_names(out)
    if strangers and not (
        DATASET_FILE in strangers and read_dataset(out).fingerprint == plan.fingerprint
    ):
        raise UserError(
            f"{out}: not empty and not a shard set (holds {strangers[0]!r}). Choose another --out."
        )
    storage.write_atomic(path, _plan_bytes(plan))


def _plan_bytes(plan: ShardPlan) -> bytes:
    mine = {"fingerprint": plan.fingerprint, "shards": len(plan.jobs), "clips": plan.clips}
    return (json.dumps(mine) + "\n").encode()


def _parsed_plan(data: bytes, path: str) -> dict[str, Any]:
    try:
        plan = json.loads(data)
        return {key: plan[key] for key in ("fingerprint", "shards", "clips")}
    except (ValueError, KeyError, TypeError) as error:
        raise UserError(
            f"{path}: is damaged ({error!r}). Run `avprep verify --discard` on its folder, or "
            "delete that."
        ) from error


def _finish(
    out: str,
    plan: ShardPlan,
    indexes: Sequence[ShardIndex],
    failures: tuple[ClipFailure, ...],
    labels: LabelSet,
    sample: SampleOptions,
) -> None:
    """Write failures.csv and dataset.json, unless they are there already."""
    counts = Counter(
        label for index in indexes for entry in index.samples for label in entry.labels
    )
    failed = failures_csv(failures)
    further = {FAILURES_FILE: failed, PLAN_FILE: _plan_bytes(plan)}
    further |= {index_name(i.name): i.to_bytes() for i in indexes if not i.samples}
    info = DatasetInfo(
        labels=tuple(zip(labels.mids, labels.names, strict=True)),
        options={
            **asdict(sample.decode),
            "audio": sample.audio,
            "jpeg_quality": sample.jpeg_quality,
        },
        tools=tool_versions(),
        shards=tuple(
            ShardInfo(index.name, len(index.samples), index.bytes, index.sha256)
            for index in indexes
            if index.samples
        ),
        samples=sum(len(index.samples) for index in indexes),
        clips=plan.clips,
        seconds=round(sum(index.seconds for index in indexes), 3),
        failures=dict(sorted(Counter(failure.cause for failure in failures).items())),
        class_counts=tuple(counts[label] for label in range(len(labels))),
        fingerprint=plan.fingerprint,
        files={name: hashlib.sha256(data).hexdigest() for name, data in further.items()},
    )
    _write_if_other(storage.join(out, FAILURES_FILE), failed)
    finished = _finished(out)
    if finished and finished.shards == info.shards:
        info = replace(info, extra=finished.extra)  # what `cavmae stats` found still holds
    _write_if_other(storage.join(out, DATASET_FILE), info.to_bytes())


def _finished(out: str) -> DatasetInfo | None:
    """The dataset.json that is there, if it is whole."""
    path = storage.join(out, DATASET_FILE)
    if not storage.exists(path) or not is_sealed(storage.read_bytes(path)):
        return None
    return read_dataset(out)


def _write_if_other(path: str, data: bytes) -> None:
    if not storage.exists(path) or storage.read_bytes(path) != data:
        storage.write_atomic(path, data)
