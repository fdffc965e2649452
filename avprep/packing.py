"""A manifest becomes a shard set; what that would take."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from avprep import storage
from avprep.clips import Clip
from avprep.compact import CompactClips
from avprep.errors import UserError
from avprep.labels import LabelSet, class_csv_of, labels_of
from avprep.manifest.model import iter_manifest
from avprep.options import BuildOptions, PoolOptions, ShardSetOptions
from avprep.progress import OnProgress, Progress, ignore
from avprep.shards.build import BuildReport, Found, build_shard_set, planned_task
from avprep.tracking import TrackedRun, Trackers, check_trackers

if TYPE_CHECKING:
    from avprep.shards.forecast import Forecast


@dataclass(frozen=True)
class Beginning:
    """What is known before the first shard is built."""

    classes: int
    label_csv: Path | None  # None: the manifest has no labels
    found: Found


def build_shards(
    manifest: str | Path,
    out: str,
    labels: str | Path | None = None,
    options: ShardSetOptions = ShardSetOptions(),
    which: BuildOptions = BuildOptions(),
    pool: PoolOptions = PoolOptions(),
    on_progress: OnProgress = ignore,
    on_begin: Callable[[Beginning], None] = lambda beginning: None,
) -> BuildReport:
    """Pack the clips of a manifest into shards; finished shards are kept.

    Several calls on one folder, on one machine or many, share the work.

    Args:
        manifest: its file.
        out: a local folder, or a URL prefix of an object store that fsspec can write.
        labels: class CSV; None for the one beside the manifest.
        options: what the shards' bytes depend on.
        which: the shards to build, and the trackers.
        pool: who does the work; does not change any byte.
        on_progress: called with progress: clips done, after every shard.
        on_begin: called once, before the first shard is built.

    Raises:
        UserError: the manifest or its class CSV cannot be used, `out` holds something else or
            cannot be written to, or a tracker is not installed.
        WorkFailed: writing failed, or workers died repeatedly.
    """
    check_trackers(which.track)
    clips = CompactClips.of(iter_manifest(Path(manifest)))
    label_set, label_csv = label_set_of(clips, Path(manifest), labels)
    with _TrackedBuild(out, which) as tracked:

        def begin(found: Found) -> None:
            tracked.begin(found, {"manifest": str(manifest), "clips": len(clips)})
            on_begin(Beginning(len(label_set), label_csv, found))

        def hear(progress: Progress) -> None:
            tracked.hear(progress)
            on_progress(progress)

        report = build_shard_set(clips, label_set, out, options, pool, which, hear, begin)
    return replace(report, label_csv=label_csv, tracker_failures=tracked.failures)


def forecast(
    manifest: str | Path,
    out: str,
    labels: str | Path | None = None,
    options: ShardSetOptions = ShardSetOptions(),
    which: BuildOptions = BuildOptions(),
    pool: PoolOptions = PoolOptions(),
    on_progress: OnProgress = ignore,
) -> Forecast:
    """Estimate what `build_shards` would take by decoding a sample of the clips; write nothing.

    Args: as of `build_shards`; `on_progress` is called with the sample's clips.

    Raises:
        UserError: `build_shards` would refuse the same arguments.
    """
    clips = CompactClips.of(iter_manifest(Path(manifest)))
    label_set, _ = label_set_of(clips, Path(manifest), labels)
    task = planned_task(clips, label_set, out, options, which)
    from avprep.shards.forecast import forecast_shard_set  # loads the decoder

    return forecast_shard_set(task, pool, on_progress)


class _TrackedBuild:
    """Tells trackers how a build goes."""

    def __init__(self, out: str, which: BuildOptions) -> None:
        self._out = out
        self._which = which
        self._trackers: Trackers | None = None
        self._start: Progress | None = None
        self._began = 0.0
        self.failures: tuple[str, ...] = ()

    def __enter__(self) -> _TrackedBuild:
        return self

    def __exit__(self, *error: object) -> None:
        if self._trackers is not None:
            self._trackers.close()
            self.failures = tuple(self._trackers.failures())

    def begin(self, found: Found, facts: dict[str, object]) -> None:
        """Open the trackers. Each part of a set is its own run, which a resumed build continues."""
        part = f"{self._which.part.k}/{self._which.part.n}"
        place = self._out.rstrip("/")
        name = place.rpartition("/")[2]
        run = TrackedRun(
            id=hashlib.sha256(f"{place} {found.fingerprint} {part}".encode()).hexdigest()[:16],
            name=name if part == "1/1" else f"{name} {part}",
            program="avprep",
            config={"out": self._out, "part": part, **facts},
            folder=Path(f"{name if storage.is_url(place) else place}-tracking"),
        )
        self._trackers = Trackers(self._which.track, run)

    def hear(self, progress: Progress) -> None:
        """Pass on how far the build is."""
        if self._trackers is None or not self._which.track:
            return
        if self._start is None:
            self._start, self._began = progress, time.monotonic()
        seconds = max(time.monotonic() - self._began, 1e-3)
        self._trackers.log(
            progress.done,
            {
                "clips_per_second": (progress.done - self._start.done) / seconds,
                "failed": progress.failed,
                **{f"failed/{cause}": count for cause, count in progress.causes.items()},
            },
        )


def label_set_of(
    clips: Sequence[Clip], manifest: Path, labels: str | Path | None
) -> tuple[LabelSet, Path | None]:
    """The label set of a manifest's clips and the class CSV it is from.

    Raises:
        UserError: the class CSV cannot be read, or there is none although the clips have labels.
    """
    label_csv = class_csv_of(manifest) if labels is None else Path(labels)
    found = labels_of(manifest, labels)
    if found:
        return found, label_csv
    if found is None and any(clip.labels for clip in clips):
        raise UserError(
            f"{manifest}: its clips have labels, but there is no class CSV {label_csv}. Name the "
            "one it was built with: --labels CSV."
        )
    return LabelSet((), ()), None
