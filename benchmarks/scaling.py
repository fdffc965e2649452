"""What a clip costs, from a hundred clips to two million, and what a hundred million would.

    python benchmarks/scaling.py                  # building 500 clips, planning as for AudioSet
    python benchmarks/scaling.py --clips 10000    # building up to 10,000 real clips
    python benchmarks/scaling.py --quick

Building: the same 24 real videos under ever more names, one worker, everything included. The cost
a clip should stay what it is. Planning: a manifest of made-up names; its time and memory are those
of the one process that plans and writes dataset.json. Resuming: the same, on a finished set whose
shards are empty files of the right size (`avprep shard` looks at indexes, not into shards); and
what a training process takes to open it.
Each line is measured in a process of its own, so that its memory is its own. Workers: as many clips
by one worker, by two, and so on up to the machine's cores. Plan: the figures of large sets, by
multiplying what the lines above and one shard of 360p clips measured; an estimate, and marked so.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import random
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from rows import Row, parser_of, times, write_rows

from avprep import storage
from avprep.clips import Clip, discover_clips
from avprep.compact import CompactClips
from avprep.demo_data import DemoDataOptions, make_demo_data
from avprep.jobs import PoolOptions
from avprep.labels import LabelSet
from avprep.manifest.model import iter_manifest, read_manifest, write_manifest
from avprep.options import BuildOptions, IsolationOptions, SampleOptions
from avprep.shards import build
from avprep.shards.format import SampleEntry, ShardIndex, index_name, sample_key
from avprep.shards.plan import ShardJob

OPTIONS = build.ShardSetOptions(SampleOptions(), IsolationOptions())
LABELS = LabelSet(
    tuple(f"/m/{k:06d}" for k in range(527)), tuple(f"Class number {k}" for k in range(527))
)
_SAMPLE_BYTES = 300_800


def main() -> None:
    parser = parser_of(
        __doc__,
        clips=(500, 100, "most clips really built"),
        planned=(2_000_000, 20_000, "most clips only planned"),
    )
    parser.add_argument("--workers", type=int, default=1, help=argparse.SUPPRESS)
    parser.add_argument("--measure", nargs=2, metavar=("WHAT", "FOLDER"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.measure:
        what, folder = options.measure
        measures = {"build": measure_build, "resume": measure_resume, "open": measure_open}
        facts = measures[what](Path(folder), options.workers)
        facts["mib"] = peak_mib()
        print(json.dumps(facts))
        return
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        videos = make_videos(folder / "videos")
        rows = [report_building(folder, videos, options.clips)]
        rows.append(report_workers(folder, videos, min(options.clips, 300)))
    with tempfile.TemporaryDirectory() as name:
        planning = plan_and_resume(Path(name), options.planned)
    rows.append(planning.row())
    with tempfile.TemporaryDirectory() as name:
        report_plan(Path(name), planning)
    write_rows(options.rows, rows)


def make_videos(folder: Path) -> list[str]:
    make_demo_data(folder, DemoDataOptions(3, 0, seconds=10.0), PoolOptions())
    found = discover_clips(folder / "train")
    return [clip.video for clip in found if not clip.video_id.startswith("broken")]


def name_clips(folder: Path, videos: list[str], clips: int) -> Path:
    """A folder with the manifest of so many clips, all of them the same few videos."""
    folder.mkdir()
    names = [Clip(f"clip{k:07d}", video=videos[k % len(videos)]) for k in range(clips)]
    write_manifest(folder / "m.jsonl", names)
    return folder


def report_building(folder: Path, videos: list[str], most: int) -> Row:
    print("building, one worker, 10 s videos of 256x192")
    heads = ("clips", "shards", "wall s", "ms per clip", "CPU ms", "of first")
    print(" ".join(f"{head:>9}" for head in heads))
    first = None
    for clips in steps(100, most):
        facts = in_a_process("build", name_clips(folder / str(clips), videos, clips), 1)
        wall, cpu = (1000 * facts[key] / clips for key in ("wall", "cpu"))
        first = first or wall
        print(
            f"{clips:9,} {facts['shards']:9} {facts['wall']:9.1f} {wall:9.1f} {cpu:9.1f} "
            f"{wall / first:9.2f}",
            flush=True,
        )
    return Row(
        f"cost of a clip among {clips:,}, beside one among 100",
        f"{wall:.0f} ms",
        f"{first:.0f} ms",
        times(wall, first),
    )


def report_workers(folder: Path, videos: list[str], clips: int) -> Row:
    cores = os.cpu_count() or 1
    print(f"\nbuilding {clips:,} such clips by ever more workers on {cores} cores")
    print(f"{'workers':>9} {'wall s':>9} {'times as fast':>14}")
    walls = []
    for workers in range(1, cores + 1):
        work = name_clips(folder / f"by-{workers}", videos, clips)
        walls.append(in_a_process("build", work, workers)["wall"])
        print(f"{workers:9} {walls[-1]:9.1f} {walls[0] / walls[-1]:14.2f}", flush=True)
    return Row(
        f"building {clips:,} clips, wall",
        f"{cores} workers: {walls[-1]:.1f} s",
        f"one: {walls[0]:.1f} s",
        f"{walls[0] / walls[-1]:.2f}× as fast",
    )


@dataclass(frozen=True)
class Planning:
    """What the process that plans took for a finished set."""

    clips: int
    seconds: float
    mib: float
    manifest_bytes: int
    index_bytes: int
    open_seconds: float  # what a training process takes until it knows every sample
    open_mib: float

    def row(self) -> Row:
        return Row(
            f"planning and resuming a finished set of {self.clips:,} clips",
            f"{self.seconds:.1f} s, {self.mib:,.0f} MiB",
            "",
            f"{1e6 * self.seconds / self.clips:.0f} µs per clip",
            "2 M in ≤ 500 MiB",
        )


def plan_and_resume(folder: Path, most: int) -> Planning:
    """Print a line for each size, and return the last."""
    print("\nplanning, and resuming a finished set: one process, seconds")
    heads = ("clips", "manifest", "read", "plan", "resume", "of that", "dataset.json", "memory",
             "to train:", "memory")  # fmt: skip
    print(" ".join(f"{head:>12}" for head in heads))
    for clips in steps(2000, most):
        work = folder / str(clips)
        work.mkdir()
        facts = in_a_process("resume", fabricate(work, clips), 1)
        opened = in_a_process("open", work, 1)
        print(
            f"{clips:12,} {facts['manifest'] / 1e6:9.1f} MB {facts['read']:12.2f} "
            f"{facts['plan']:12.2f} {facts['resume']:12.2f} {facts['indexes']:12.2f} "
            f"{facts['dataset'] / 1e6:9.2f} MB {facts['mib']:8.0f} MiB "
            f"{opened['open']:10.2f} s {opened['mib'] - opened['imports']:8.0f} MiB",
            flush=True,
        )
    index_bytes = sum(path.stat().st_size for path in (work / "shards").glob("*.index.json"))
    seconds = facts["read"] + facts["resume"]
    return Planning(
        clips,
        seconds,
        facts["mib"],
        int(facts["manifest"]),
        index_bytes,
        opened["open"],
        opened["mib"] - opened["imports"],
    )


def report_plan(folder: Path, planning: Planning) -> None:
    """What large sets of 360p clips would take: measured a clip, multiplied."""
    from extract import KINDS, SHARD, cost, linked_clips, make_clip, ours  # OpenCV weighs 30 MiB

    path = make_clip(folder / f"clip.{KINDS[0].suffix}", KINDS[0])
    clips = linked_clips(path, folder / "links", 64)
    cpu, _ = cost(lambda: ours(clips, folder), len(clips))
    sample = (folder / SHARD).stat().st_size / len(clips)
    print(
        f"\nestimates, from {cpu:.0f} ms CPU, {path.stat().st_size / 1e3:.0f} kB of video and "
        f"{sample / 1e3:.0f} kB of sample per {KINDS[0].name} clip"
    )
    heads = ("clips", "videos", "shards", "of 1 GB", "core-hours", "manifest", "indexes",
             "plan, resume", "its memory", "to train", "its memory")  # fmt: skip
    print(" ".join(f"{head:>12}" for head in heads))
    for count in (20_000, 200_000, 2_000_000, 100_000_000):
        times_planned = count / planning.clips
        cells = (
            f"{count:,}",
            f"{count * path.stat().st_size / 1e12:,.2f} TB",
            f"{count * sample / 1e12:,.2f} TB",
            f"{math.ceil(count * sample / 1e9):,}",
            f"{count * cpu / 3.6e6:,.1f}",
            f"{planning.manifest_bytes * times_planned / 1e9:,.2f} GB",
            f"{planning.index_bytes * times_planned / 1e9:,.2f} GB",
            f"{planning.seconds * times_planned / 60:,.1f} min",
            f"{planning.mib * times_planned / 1024:,.1f} GiB",
            f"{planning.open_seconds * times_planned / 60:,.1f} min",
            f"{planning.open_mib * times_planned / 1024:,.1f} GiB",
        )
        print(" ".join(f"{cell:>12}" for cell in cells))


def steps(first: int, last: int) -> list[int]:
    """first, 10 first, … and last."""
    found = []
    while first < last:
        found.append(first)
        first *= 10
    return [*found, last]


def in_a_process(what: str, folder: Path, workers: int) -> dict[str, float]:
    command = [sys.executable, __file__, "--workers", str(workers), "--measure", what, str(folder)]
    result = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
    return json.loads(result.stdout)


def measure_build(folder: Path, workers: int) -> dict[str, float]:
    started = time.monotonic()
    report = build.build_shard_set(
        read_manifest(folder / "m.jsonl"),
        LabelSet((), ()),
        str(folder / "shards"),
        OPTIONS,
        PoolOptions(workers),
    )
    assert report.complete
    assert not report.failures
    used = resource.getrusage(resource.RUSAGE_CHILDREN), resource.getrusage(resource.RUSAGE_SELF)
    return {
        "wall": time.monotonic() - started,
        "cpu": sum(usage.ru_utime + usage.ru_stime for usage in used),
        "shards": report.built,
    }


def measure_resume(folder: Path, workers: int) -> dict[str, float]:
    clock = time.monotonic
    started = clock()
    clips = CompactClips.of(iter_manifest(folder / "m.jsonl"))
    read = clock() - started
    started = clock()
    plan_of(folder, clips)
    planned = clock() - started
    found_at = 0.0

    def found(survey: build.Found) -> None:
        nonlocal found_at
        assert survey.to_build == 0
        found_at = clock()

    started = clock()
    report = build.build_shard_set(
        clips, LABELS, str(folder / "shards"), OPTIONS, PoolOptions(workers), on_found=found
    )
    assert report.complete
    return {
        "manifest": (folder / "m.jsonl").stat().st_size,
        "read": read,
        "plan": planned,
        "resume": clock() - started,
        "indexes": found_at - started - planned,
        "dataset": (folder / "shards" / "dataset.json").stat().st_size,
    }


def measure_open(folder: Path, workers: int) -> dict[str, float]:
    from cavmae.data import ShardSet

    imports = peak_mib()
    started = time.monotonic()
    table = ShardSet.open(folder / "shards").table
    seconds = time.monotonic() - started
    assert len(table)
    return {"open": seconds, "imports": imports}


def peak_mib() -> float:
    """Most memory that this program has had; `ru_maxrss` would count that of its parent, too."""
    status = Path("/proc/self/status").read_text()
    return int(status.partition("VmHWM:")[2].split()[0]) / 1024


def plan_of(folder: Path, clips: Sequence[Clip]) -> build.ShardPlan:
    shards = str(folder / "shards")
    return build.planned_task(clips, LABELS, shards, OPTIONS, BuildOptions()).plan


def fabricate(folder: Path, count: int) -> Path:
    """A manifest of `count` clips like AudioSet's, and a set that looks finished."""
    dice = random.Random(0)

    def clip(number: int) -> Clip:
        video_id = f"{dice.getrandbits(64):016x}"[:11] + f"_{number % 600}.000"
        labels = tuple(LABELS.mids[dice.randrange(527)] for _ in range(1 + number % 3))
        return Clip(video_id, labels, video=f"/data/audioset/unbalanced/videos/{video_id}.mp4")

    write_manifest(folder / "m.jsonl", (clip(number) for number in range(count)))
    plan = plan_of(folder, read_manifest(folder / "m.jsonl"))
    shards = folder / "shards"
    shards.mkdir()
    for job in plan.jobs:
        index = index_of(job, plan.fingerprint)
        (shards / index_name(job.name)).write_bytes(index.to_bytes())
        with (shards / job.name).open("wb") as file:
            file.truncate(index.bytes)
    facts = {"fingerprint": plan.fingerprint, "shards": len(plan.jobs), "clips": plan.clips}
    storage.write_atomic(shards / build.PLAN_FILE, (json.dumps(facts) + "\n").encode())
    return folder


def index_of(job: ShardJob, fingerprint: str) -> ShardIndex:
    entries = tuple(
        SampleEntry(
            sample_key(clip.video_id),
            clip.video_id,
            number * _SAMPLE_BYTES,
            _SAMPLE_BYTES,
            LABELS.indices_of(clip.labels),
        )
        for number, clip in enumerate(job.clips)
    )
    size = len(entries) * _SAMPLE_BYTES + 10240
    return ShardIndex(
        job.name, fingerprint, size, "0" * 64, 10.0 * len(entries), entries, failures=()
    )


if __name__ == "__main__":
    main()
