"""How far a build is, read from its files while others write them."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import pytest
from click.testing import CliRunner

import avprep
from avprep import storage
from avprep.cli import group
from avprep.clips import Clip
from avprep.errors import UserError
from avprep.failures import ClipFailure
from avprep.manifest.model import write_manifest
from avprep.options import BuildOptions, Part, PoolOptions, ShardSetOptions
from avprep.shards.format import ShardSummary
from avprep.shards.status import unfinished
from tests.faults.conftest import without_torch
from tests.faults.test_stores import server  # noqa: F401 (a fixture)

OPTIONS = ShardSetOptions(samples_per_shard=2)


@pytest.fixture
def manifest(demo_videos, tmp_path):
    """Eight clips, one of which is missing: four shards."""
    files = sorted(demo_videos.glob("test/*/*.mp4"))
    assert len(files) >= 7
    clips = [Clip(path.stem, video=str(path)) for path in files[:7]]
    path = tmp_path / "m.json"
    write_manifest(path, [*clips, Clip("gone", video=str(tmp_path / "gone.mp4"))])
    return path


def build(manifest: Path, out: object, part: Part = Part()) -> None:
    pool = PoolOptions(1)
    avprep.build_shards(manifest, str(out), options=OPTIONS, which=BuildOptions(part), pool=pool)


def contents(folder: Path) -> dict[str, tuple[bytes, int]]:
    return {path.name: (path.read_bytes(), path.stat().st_mtime_ns) for path in folder.iterdir()}


def test_parts_of_several_machines_add_up_and_nothing_is_written(manifest, tmp_path):
    out = tmp_path / "s"
    for part, done in ((1, 2), (2, 4), (3, 6)):
        build(manifest, out, Part(part, 4))
        before = contents(out)
        found = avprep.status(str(out))
        assert contents(out) == before
        assert (found.finished, found.clips, found.done) == (False, 8, done)
        assert (found.shards, found.shards_done, found.at_work) == (4, part, True)
        assert found.seconds_left == pytest.approx((8 - done) / found.rate)
        assert abs(found.last_shard - time.time()) < 60
    build(manifest, out, Part(4, 4))
    found = avprep.status(str(out))
    assert (found.finished, found.clips, found.done, found.shards_done) == (True, 8, 8, 4)
    assert found.failures == {"missing": 1}
    assert (found.seconds_left, found.at_work) == (0, False)


def test_a_running_and_an_abandoned_build_are_read_from_beside(manifest, tmp_path):
    out = tmp_path / "s"
    command = [sys.executable, "-m", "avprep", "shard", str(manifest), "--out", str(out)]
    with subprocess.Popen(
        [*command, "--samples-per-shard", "2", "--workers", "1"],
        stderr=subprocess.DEVNULL,
        env=without_torch(),
    ) as process:
        while not (out / "plan.json").exists() or not avprep.status(str(out)).shards_done:
            assert process.poll() is None
            time.sleep(0.05)
        os.kill(process.pid, signal.SIGKILL)
    found = avprep.status(str(out))
    assert (found.finished, found.clips, found.at_work) == (False, 8, True)
    assert found.done == 2 * found.shards_done > 0
    long_ago = time.time() - 3 * 3600
    for path in out.iterdir():
        os.utime(path, (long_ago, long_ago))
    found = avprep.status(str(out))
    assert (found.at_work, found.seconds_left) == (False, None)
    assert found.last_shard == pytest.approx(long_ago)
    said = CliRunner().invoke(group, ["status", str(out)]).stdout
    assert f"{out}: not finished, {found.done} of 8 clips done in " in said
    assert "(3.0 h ago)\nno file was written for 3.0 h: run the same `avprep shard`" in said


def summary(name: str, samples: int, causes: tuple[str, ...] = ()) -> ShardSummary:
    failures = tuple(ClipFailure("x", "x", "decode", cause, "") for cause in causes)
    return ShardSummary(name, "", 0, "", 0.0, failures, samples, {}, 0, {}, "")


def test_the_rate_is_of_the_last_command_that_began_to_build():
    plan = {"clips": 1000, "shards": 10}
    whole = {f"{n}": summary(f"{n}", 98, ("missing", "empty")) for n in range(6)}
    # Four shards before a pause of days; then two workers that finish at the same times.
    times = {"0": 100.0, "1": 100.0, "2": 200.0, "3": 200.0, "plan.json": 500_000.0}
    times |= {"4": 500_100.0, "5": 500_100.0, ".tmp": 500_150.0}
    found = unfinished(plan, whole, times, 500_160.0)
    assert (found.done, found.rate, found.seconds_left) == (600, 2.0, 200.0)
    assert found.failures == Counter(missing=6, empty=6)
    assert (found.last_shard, found.seconds_quiet, found.at_work) == (500_100.0, 10.0, True)
    # Nothing of this command is done yet, so its rate is not known.
    assert unfinished(plan, whole, times | {"plan.json": 500_120.0}, 500_160.0).rate is None


def test_a_store_that_shows_whole_shards_only_is_quiet_for_as_long_as_they_take():
    plan = {"clips": 1000, "shards": 10}
    times = {"plan.json": 0.0, "0": 1200.0}
    whole = {"0": summary("0", 100)}
    assert unfinished(plan, whole, times, 1200.0 + 3500.0).at_work
    assert not unfinished(plan, whole, times, 1200.0 + 3700.0).at_work


def test_a_build_behind_a_url_is_read_too(manifest):
    out = "memory://status/s"
    build(manifest, out, Part(1, 2))
    found = avprep.status(out)
    assert (found.finished, found.clips, found.done, found.shards_done) == (False, 8, 4, 2)
    assert found.rate > 0
    build(manifest, out)
    found = avprep.status(out)
    assert (found.finished, found.done) == (True, 8)
    assert abs(found.last_shard - time.time()) < 60


def test_the_times_of_an_object_store_are_understood(manifest, server):  # noqa: F811
    build(manifest, "s3://bucket/s", Part(1, 2))
    found = avprep.status("s3://bucket/s")
    assert (found.finished, found.done, found.shards_done, found.at_work) == (False, 4, 2, True)
    assert abs(found.last_shard - time.time()) < 60
    assert set(storage.list_times("s3://bucket/s")) == set(storage.list_files("s3://bucket/s"))


def test_a_damaged_index_is_not_done(manifest, tmp_path):
    out = tmp_path / "s"
    build(manifest, out, Part(1, 2))
    index = next(out.glob("*.index.json"))
    index.write_bytes(index.read_bytes()[:100])
    assert avprep.status(str(out)).shards_done == 1


def test_a_folder_without_a_build_is_named(tmp_path):
    for folder in (tmp_path, tmp_path / "nowhere"):
        with pytest.raises(UserError, match=r"plan.json: missing, so no build has started here"):
            avprep.status(str(folder))


def test_a_file_in_place_of_a_folder_is_named(tmp_path):
    (tmp_path / "m.json").touch()
    with pytest.raises(UserError, match=r"m\.json/plan\.json: missing, so no build has started"):
        avprep.status(str(tmp_path / "m.json"))


def test_the_command_prints_it_for_people_and_for_programs(manifest, tmp_path):
    out = tmp_path / "s"
    build(manifest, out)
    said = CliRunner().invoke(group, ["status", str(out)]).stdout
    assert said.startswith(f"{out}: finished, 8 of 8 clips done in 4 of 4 shards, 1 failed\n")
    assert "\n  missing: 1\nlast shard written " in said
    facts = json.loads(CliRunner().invoke(group, ["status", str(out), "--json"]).stdout)
    assert (facts["finished"], facts["done"], facts["failures"]) == (True, 8, {"missing": 1})
