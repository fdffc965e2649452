"""What a build will take, known before it begins."""

from __future__ import annotations

import json
import random
from pathlib import Path

import pytest
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st

import avprep
from avprep.cli import group
from avprep.clips import Clip
from avprep.errors import UserError
from avprep.labels import class_csv_of, write_label_csv
from avprep.manifest.model import write_manifest
from avprep.manifest.sources.folder import folder_manifest
from avprep.options import BuildOptions, Part, PoolOptions, ShardSetOptions
from avprep.shards import forecast as forecasting
from avprep.shards.forecast import Estimate, one_per_run, time_with
from avprep.shards.format import read_dataset, read_index


def test_a_sum_is_within_its_bounds_in_about_95_of_100_cases():
    chance = random.Random(0)
    # Cheap and dear files, sorted by size as the sample is, with costs that scatter.
    population = [size * chance.uniform(0.5, 1.5) for size in sorted([1] * 600 + [20] * 400)]
    hits = 0
    for _ in range(400):
        runs = [population[first : first + 10] for first in range(0, 1000, 10)]
        found = Estimate.of_total([chance.choice(run) for run in runs], 1000)
        hits += found.low <= sum(population) <= found.high
        assert found.value == pytest.approx(sum(population), rel=0.15)
    assert 0.9 < hits / 400 < 0.995


def test_a_count_is_within_its_bounds_in_about_95_of_100_cases():
    chance = random.Random(0)
    hits = 0
    for _ in range(400):
        found = sum(chance.random() < 0.03 for _ in range(200))
        estimate = Estimate.of_count(found, 200, 100_000)
        hits += estimate.low <= 3_000 <= estimate.high
    assert 0.9 < hits / 400 < 0.995


@given(st.lists(st.floats(0, 1e9), min_size=1), st.integers(0, 50))
def test_what_was_asked_of_all_is_exact(values, found):
    assert Estimate.of_total(values, len(values)) == Estimate.exactly(sum(values))
    assert Estimate.of_count(found, 50, 50) == Estimate.exactly(found)


@given(st.integers(0, 300), st.integers(1, 50))
def test_every_equal_run_of_clips_gives_one(clips, number):
    named = [Clip(str(place)) for place in range(clips)]
    chosen = [int(clip.video_id) for clip in one_per_run(named, number, random.Random(clips))]
    assert len(chosen) == min(number, clips)
    assert chosen == sorted(set(chosen))
    gaps = [after - before for before, after in zip([-1, *chosen], [*chosen, clips], strict=True)]
    assert all(gap <= 2 * -(-clips // min(number, clips)) for gap in gaps if clips)


def test_the_last_shards_may_leave_workers_idle():
    assert time_with(3, [10.0] * 8) == 30.0
    assert time_with(2, [1.0, 1.0, 5.0]) == 6.0
    assert time_with(4, []) == 0.0


@pytest.fixture
def manifest(demo_videos, tmp_path):
    """Real clips, the two broken ones, one that is missing, and one that is there twice."""
    clips, labels = folder_manifest(demo_videos / "train")
    clips = [*clips, Clip("gone", video=str(tmp_path / "gone.mp4")), clips[0]]
    path = tmp_path / "m.json"
    write_manifest(path, clips)
    write_label_csv(class_csv_of(path), labels)
    return path


OPTIONS = ShardSetOptions(samples_per_shard=5)
FAILURES = {"garbage": 1, "truncated": 1, "missing": 1, "duplicate-id": 1}


def bytes_in(folder) -> int:
    return sum(
        entry.size
        for shard in read_dataset(folder).shards
        for entry in read_index(folder, shard.name).samples
    )


def test_the_forecast_of_a_set_that_fits_into_the_sample_is_exact(manifest, tmp_path):
    out = tmp_path / "s"
    found = avprep.forecast(manifest, str(out), options=OPTIONS, pool=PoolOptions(2))
    assert not out.exists()
    assert (found.clips, found.done, found.decoded, found.workers) == (20, 1, 18, 2)
    avprep.build_shards(manifest, str(out), options=OPTIONS)
    assert found.bytes == Estimate.exactly(bytes_in(out))
    assert found.failures == {cause: Estimate.exactly(n) for cause, n in FAILURES.items()}
    assert 0 < found.seconds.value < found.cpu_seconds.value * 100
    assert found.memory > 3 * 50e6  # two children, and this process


def test_a_sample_tells_of_the_rest_within_its_bounds(manifest, tmp_path, monkeypatch):
    monkeypatch.setattr(forecasting, "SAMPLE", 9)
    out = tmp_path / "s"
    found = avprep.forecast(manifest, str(out), options=OPTIONS, pool=PoolOptions(2))
    assert found.decoded == 9
    avprep.build_shards(manifest, str(out), options=OPTIONS)
    assert found.bytes.low < bytes_in(out) < found.bytes.high
    assert found.bytes.value == pytest.approx(bytes_in(out), rel=0.15)
    # What needs no decoding is known; the rest may be anywhere within its bounds.
    assert found.failures["missing"] == Estimate.exactly(1)
    for cause in ("garbage", "truncated"):
        assert cause not in found.failures or found.failures[cause].low <= 1


def test_what_is_there_already_counts_as_done(manifest, tmp_path):
    out = str(tmp_path / "s")
    avprep.build_shards(manifest, out, options=OPTIONS, which=BuildOptions(Part(1, 2)))
    half = avprep.forecast(manifest, out, options=OPTIONS)
    is_gone_done = any('"gone"' in path.read_text() for path in Path(out).glob("*.index.json"))
    assert (half.clips, half.done, half.decoded) == (20, 11, 8 + is_gone_done)
    assert half.failures["missing"] == Estimate.exactly(1)
    other = avprep.forecast(manifest, out, options=OPTIONS, which=BuildOptions(Part(1, 2)))
    assert (other.clips, other.done, other.decoded, other.bytes.value) == (11, 11, 0, 0)
    avprep.build_shards(manifest, out, options=OPTIONS)
    rest = avprep.forecast(manifest, out, options=OPTIONS)
    assert (rest.clips, rest.done, rest.decoded) == (20, 20, 0)
    assert rest.seconds == rest.cpu_seconds == Estimate.exactly(0)
    assert rest.failures == {cause: Estimate.exactly(n) for cause, n in FAILURES.items()}


def test_a_folder_that_a_build_refuses_is_refused_in_the_same_words(manifest, tmp_path):
    out = tmp_path / "s"
    out.mkdir()
    (out / "notes.txt").write_text("mine")
    for command in (avprep.build_shards, avprep.forecast):
        with pytest.raises(UserError, match=r"not empty and not a shard set \(holds 'notes.txt'"):
            command(manifest, str(out), options=OPTIONS)
    (out / "notes.txt").unlink()
    avprep.build_shards(manifest, str(out), options=OPTIONS, which=BuildOptions(Part(1, 2)))
    before = sorted(path.name for path in out.iterdir())
    with pytest.raises(UserError, match=r"holds shards of other options \(seed = 0, not 1\)"):
        avprep.forecast(manifest, str(out), options=ShardSetOptions(samples_per_shard=5, seed=1))
    assert sorted(path.name for path in out.iterdir()) == before


def test_the_command_prints_it_for_people_and_for_programs(manifest, tmp_path):
    command = ["shard", str(manifest), "--out", str(tmp_path / "s"), "--dry-run", "--workers", "2"]
    said = CliRunner().invoke(group, command).stdout
    assert f"{tmp_path / 's'}: 20 clips, 1 done, 19 to do; decoded 18 of them\n" in said
    assert "\ntime with 2 workers: " in said
    assert "\nfailing clips:\n  " in said
    assert "\n  truncated: 1\n" in said
    facts = json.loads(CliRunner().invoke(group, [*command, "--json"]).stdout)
    assert facts["failures"]["missing"] == {"value": 1, "low": 1, "high": 1}
    assert facts["cpu_seconds"]["value"] > 0
    assert not (tmp_path / "s").exists()
