"""`cavmae stats` measures the fbank as it is, and leaves dataset.json whole."""

from __future__ import annotations

import errno
import json
import os
from pathlib import Path

import pytest
import torch
import torchaudio
from click.testing import CliRunner

from avprep.errors import UserError, WorkFailed
from avprep.jobs import PoolOptions
from avprep.manifest.sources.folder import folder_manifest
from avprep.options import IsolationOptions, SampleOptions
from avprep.shards.build import ShardSetOptions, build_shard_set
from avprep.shards.verify import verify_shard_set
from cavmae.cli.stats import stats as command
from cavmae.data import ShardSet
from cavmae.frontend.stats import FbankStats, stats
from cavmae.options import StatsOptions
from tests.cavmae.test_shardset import damage
from tests.cavmae.tiny_shards import write_tiny_shards


@pytest.fixture
def tiny(tmp_path):
    return write_tiny_shards(tmp_path / "shards", samples=20, lengths=(300, 20000))


def naive(pcms, target_length):
    """Mean and deviation of all values of all clips, held in memory at once."""
    values = []
    for pcm in pcms:
        wave = torch.from_numpy(pcm).float() / 32768
        if len(wave) < 400:
            continue
        rows = torchaudio.compliance.kaldi.fbank(
            (wave - wave.mean())[None], htk_compat=True, sample_frequency=16000,
            use_energy=False, window_type="hanning", num_mel_bins=128, dither=0.0, frame_shift=10,
        )  # fmt: skip
        values.append(rows[:target_length].double().flatten())
    joined = torch.cat(values)
    return joined.mean().item(), joined.std(correction=0).item()


def measure(folder: Path, target_length: int = 1024, workers: int = 0, bad: int = 0) -> FbankStats:
    options = StatsOptions(target_length=target_length, workers=workers, max_bad_samples=bad)
    return stats(folder, options)


@pytest.mark.parametrize(("target_length", "workers"), [(1024, 0), (50, 2)])
def test_streamed_statistics_equal_a_naive_pass(tiny, target_length, workers):
    found = measure(tiny.folder, target_length, workers, 0)
    mean, std, samples = found.mean, found.std, found.samples
    assert samples == 20
    assert (mean, std) == pytest.approx(naive(tiny.pcm.values(), target_length), abs=1e-6)
    assert ShardSet.open(tiny.folder).fbank_stats == (mean, std)


def test_dataset_json_keeps_everything_else(tiny):
    path = tiny.folder / "dataset.json"
    before = json.loads(path.read_text())
    measure(tiny.folder)
    after = json.loads(path.read_text())
    assert after.pop("fbank")["target_length"] == 1024
    assert after.pop("digest") != before.pop("digest")
    assert after == before
    assert not [p.name for p in tiny.folder.iterdir() if p.name.startswith(".tmp")]


def test_a_shard_set_with_statistics_verifies(tiny):
    measure(tiny.folder)
    findings = verify_shard_set(str(tiny.folder), True, PoolOptions(1))
    assert (findings.damaged, findings.files) == ((), {})


def test_statistics_survive_another_run_of_shard(demo_videos, tmp_path):
    def shard():
        options = ShardSetOptions(SampleOptions(), IsolationOptions())
        clips, labels = folder_manifest(demo_videos / "test")
        return build_shard_set(clips, labels, str(tmp_path), options, PoolOptions(1))

    shard()
    found = measure(tmp_path)
    before = (tmp_path / "dataset.json").read_bytes()
    assert shard().built == 0
    assert (tmp_path / "dataset.json").read_bytes() == before
    assert ShardSet.open(tmp_path).fbank_stats == (found.mean, found.std)


def test_a_write_that_fails_leaves_dataset_json_as_it_was(tiny, monkeypatch):
    before = (tiny.folder / "dataset.json").read_bytes()

    def full(*arguments):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises((OSError, WorkFailed), match="No space left"):
        measure(tiny.folder)
    assert (tiny.folder / "dataset.json").read_bytes() == before
    assert not [path for path in tiny.folder.iterdir() if path.name.startswith(".tmp")]


def test_a_damaged_sample_is_left_out_up_to_the_limit(tiny):
    damage(ShardSet.open(tiny.folder), 4, "flac", lambda data: bytes(len(data)))
    with pytest.raises(WorkFailed, match=r"clip\.4: audio"):
        measure(tiny.folder)
    assert ShardSet.open(tiny.folder).fbank_stats is None
    found = measure(tiny.folder, 1024, 0, 1)
    mean, std, samples = found.mean, found.std, found.samples
    good = [pcm for video_id, pcm in tiny.pcm.items() if video_id != "clip.4"]
    assert (samples, found.unreadable) == (19, 1)
    said = CliRunner().invoke(command, [str(tiny.folder), "--workers", "0"]).output
    assert said.endswith("over 19 samples\n1 clip could not be read; `avprep verify` says why\n")
    assert (mean, std) == pytest.approx(naive(good, 1024), abs=1e-6)


def test_clips_without_one_window_have_no_statistics(tmp_path):
    tiny = write_tiny_shards(tmp_path / "shards", samples=3, lengths=(100, 399))
    with pytest.raises(UserError, match="no clip is as long as one fbank window"):
        measure(tiny.folder)


def test_the_command_says_what_it_found(tiny):
    result = CliRunner().invoke(command, [str(tiny.folder), "--workers", "0"])
    assert result.exit_code == 0
    mean, std = naive(tiny.pcm.values(), 1024)
    assert f"fbank mean {mean:.4f}, std {std:.4f} over 20 samples" in result.output


def test_a_selection_is_measured_alone(tiny):
    arguments = [str(tiny.folder), "--split", "test", "--classes", "Ape", "--workers", "0"]
    result = CliRunner().invoke(command, arguments)
    assert result.exit_code == 0, result.exception
    assert "over 1 samples" in result.output  # every fifth clip, and of those every fourth
    expected = naive([tiny.pcm["clip.0"]], 1024)
    assert ShardSet.open(tiny.folder).fbank_stats == pytest.approx(expected, abs=1e-6)
