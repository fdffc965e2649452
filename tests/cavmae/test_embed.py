"""Embeddings: every clip once, the same file whatever the ranks and interruptions."""

from __future__ import annotations

import json
import time

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from safetensors import safe_open
from safetensors.numpy import load_file

from avprep.errors import UserError, WorkFailed
from cavmae.checkpoints import save_model
from cavmae.cli import group
from cavmae.cli.embed import embed
from cavmae.data import LoaderOptions, ShardLoader, ShardSet
from cavmae.evaluation import embed as embedding
from cavmae.evaluation.trained import load_trained
from cavmae.model import CAVMAEClassifier
from tests import forks
from tests.cavmae.test_shardset import damage
from tests.cavmae.tiny_models import TINY
from tests.cavmae.tiny_shards import write_tiny_shards

CLIPS = 45


@pytest.fixture(scope="module")
def shards(tmp_path_factory):
    return write_tiny_shards(tmp_path_factory.mktemp("embed") / "shards", samples=CLIPS).folder


@pytest.fixture
def small_parts(monkeypatch):
    """Parts of eight clips: two batches of four."""
    monkeypatch.setattr(embedding, "_PART_CLIPS", 8)


def arguments_for(shards, checkpoint, out, *more):
    return [
        *("--shards", shards, "--checkpoint", checkpoint, "--out", out, "--workers", 0),
        *("--batch-size", 4, "--device", "cpu", *more),
    ]


def command(*arguments):
    return CliRunner().invoke(embed, list(map(str, arguments_for(*arguments))))


def succeed(*arguments):
    result = command(*arguments)
    assert result.exit_code == 0, result.exception
    return result.output


def expected(shards, checkpoint, frame="middle"):
    """Tokens of all clips from one batch."""
    trained = load_trained(checkpoint)
    loader = ShardLoader(
        ShardSet.open(shards),
        LoaderOptions(CLIPS, 0, shuffle=False, frame=frame, longest=trained.longest),
    )
    (batch,) = loader.epoch()
    inputs = trained.frontend(batch)
    with torch.no_grad():
        if inputs.image.dim() == 5:
            image = torch.stack(
                [trained.model.image_features(f) for f in inputs.image.unbind(1)]
            ).mean(0)
        else:
            image = trained.model.image_features(inputs.image)
        return batch, trained.model.audio_features(inputs.audio).numpy(), image.numpy()


def read(path):
    """Arrays and names, whichever format."""
    if path.suffix == ".npz":
        with np.load(path, allow_pickle=False) as arrays:
            return dict(arrays), arrays["video_ids"].tolist()
    with safe_open(path, "np") as reader:
        return load_file(path), json.loads(reader.metadata()["video_ids"])


@pytest.mark.parametrize(
    ("suffix", "tokens", "frames"),
    [
        ("safetensors", "pooled", "middle"),
        ("npz", "pooled", "all"),
        ("npz", "patches", "1"),
        ("safetensors", "patches", "1"),
    ],
)
def test_every_clip_is_there_once_with_the_models_features(
    shards, checkpoint, tmp_path, small_parts, suffix, tokens, frames
):
    out = tmp_path / f"features.{suffix}"
    assert f"{CLIPS} clips" in succeed(
        shards, checkpoint, out, "--tokens", tokens, "--frames", frames
    )
    arrays, ids = read(out)
    batch, audio, image = expected(shards, checkpoint, frames if frames == "all" else 1)
    if tokens == "pooled":
        audio, image = audio.mean(axis=1), image.mean(axis=1)
    assert ids == batch.video_ids == [f"clip.{n}" for n in range(CLIPS)]
    assert np.array_equal(arrays["index"], np.arange(CLIPS))
    assert np.array_equal(arrays["labels"], batch.labels.numpy())
    assert arrays["labels"].dtype == np.uint8
    for name, truth in (("audio", audio), ("image", image)):
        assert arrays[name].dtype == np.float32
        assert arrays[name].shape == truth.shape
        assert np.allclose(arrays[name], truth, atol=1e-5)
    assert not (tmp_path / f"{out.name}.parts").exists()


def test_one_modality_in_half_precision(shards, checkpoint, tmp_path):
    out = tmp_path / "a.safetensors"
    succeed(shards, checkpoint, out, "--modality", "audio", "--dtype", "float16")
    arrays, _ = read(out)
    assert set(arrays) == {"audio", "index", "labels"}
    assert arrays["audio"].dtype == np.float16
    _, audio, _ = expected(shards, checkpoint)
    assert np.allclose(arrays["audio"], audio.mean(axis=1), atol=2e-3)


def test_an_interrupted_run_goes_on_and_gives_the_same_bytes(
    shards, checkpoint, tmp_path, small_parts, monkeypatch
):
    whole, resumed = tmp_path / "whole.npz", tmp_path / "resumed.npz"
    succeed(shards, checkpoint, whole)
    write, written = embedding.storage.write_atomic, []

    def fail_later(path, data):
        if len(written) == 3:
            raise KeyboardInterrupt
        written.append(path)
        write(path, data)

    with monkeypatch.context() as patch:
        patch.setattr(embedding.storage, "write_atomic", fail_later)
        assert command(shards, checkpoint, resumed).exit_code != 0
    assert not resumed.exists()
    kept = {path: path.stat().st_mtime_ns for path in written}
    assert [path.name for path in kept] == [f"part-00000{n}.safetensors" for n in range(3)]

    made = []
    with monkeypatch.context() as patch:
        patch.setattr(
            embedding.storage, "write_atomic", lambda p, d: (made.append(p.name), write(p, d))
        )
        succeed(shards, checkpoint, resumed)
    assert [name for name in made if name.startswith("part")] == [
        f"part-00000{n}.safetensors" for n in (3, 4, 5)
    ]
    assert resumed.read_bytes() == whole.read_bytes()
    assert "complete already" in succeed(shards, checkpoint, resumed)


def in_small_parts() -> None:
    """The command in a process of its own, as the fixture `small_parts` has it in this one."""
    embedding._PART_CLIPS = 8
    group.main(prog_name="cavmae")


def start(shards, checkpoint, out, environment=None):
    words = ("embed", *arguments_for(shards, checkpoint, out))
    return forks.start(*words, call=in_small_parts, environment=environment)


def test_ranks_and_a_kill_change_no_byte(shards, checkpoint, tmp_path, small_parts):
    alone, ranks, killed = (tmp_path / f"{n}.safetensors" for n in ("alone", "ranks", "killed"))
    running = [start(shards, checkpoint, ranks, place) for place in forks.rank_environments(2)]
    victim = start(shards, checkpoint, killed)
    parts = tmp_path / "killed.safetensors.parts"
    deadline = time.monotonic() + 600
    while not list(parts.glob("part-*")) and victim.is_alive():
        assert time.monotonic() < deadline
        time.sleep(0.005)
    victim.kill()
    for process in (victim, *running):
        process.join(600)
    assert [process.exitcode for process in running] == [0, 0]
    for out in (alone, killed):
        succeed(shards, checkpoint, out)
    assert ranks.read_bytes() == alone.read_bytes() == killed.read_bytes()
    assert read(ranks)[1] == [f"clip.{n}" for n in range(CLIPS)]


def test_two_runs_are_not_mixed(shards, checkpoint, tmp_path, small_parts):
    out = tmp_path / "f.safetensors"
    succeed(shards, checkpoint, out)
    other = command(shards, checkpoint, out, "--frames", "0")
    assert isinstance(other.exception, UserError)
    assert "not what this command would write" in str(other.exception)
    out.write_text("something of yours")
    assert isinstance(command(shards, checkpoint, out).exception, UserError)
    assert out.read_text() == "something of yours"

    parts = tmp_path / "g.npz.parts"
    parts.mkdir()
    (parts / "plan.json").write_text("{}")
    mixed = command(shards, checkpoint, tmp_path / "g.npz")
    assert "parts of another run" in str(mixed.exception)


def test_a_selection_is_embedded_alone_and_not_mistaken_for_another(shards, checkpoint, tmp_path):
    out = tmp_path / "f.npz"
    succeed(shards, checkpoint, out, "--classes", "Ape", "--classes", "/m/d", "--split", "test")
    arrays, ids = read(out)
    assert ids == [f"clip.{n}" for n in range(0, CLIPS, 5) if n % 4 in (0, 3)]
    assert np.array_equal(arrays["index"], np.arange(len(ids)))
    again = ("--split", "test", "--classes", "/m/d", "--classes", "Ape")
    assert "complete already" in succeed(shards, checkpoint, out, *again)
    # As many clips, but others.
    other = command(
        shards, checkpoint, out, "--classes", "Ape", "--classes", "Cat", "--split", "test"
    )
    assert isinstance(other.exception, UserError)
    assert "not what this command would write" in str(other.exception)


def test_parts_left_by_a_kill_behind_a_whole_file_are_deleted(
    shards, checkpoint, tmp_path, monkeypatch
):
    out, parts = tmp_path / "f.npz", tmp_path / "f.npz.parts"

    def killed(parts, about):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(embedding, "drop", killed)
        assert command(shards, checkpoint, out).exit_code != 0
    assert out.exists()
    assert list(parts.glob("part-*"))
    assert "complete already" in succeed(shards, checkpoint, out)
    assert not parts.exists()
    # Those of another run are not this command's to delete.
    parts.mkdir()
    (parts / "plan.json").write_text("{}")
    (parts / "part-000000.safetensors").write_text("yours")
    succeed(shards, checkpoint, out)
    assert (parts / "part-000000.safetensors").read_text() == "yours"


def test_what_cannot_be_is_said(shards, checkpoint, tmp_path):
    assert ".npz" in str(command(shards, checkpoint, tmp_path / "f.csv").exception)
    every = command(
        shards, checkpoint, tmp_path / "f.npz", "--frames", "all", "--tokens", "patches"
    )
    assert "--tokens patches" in str(every.exception)
    model = CAVMAEClassifier(TINY, 4)
    model.drop_images()
    save_model(tmp_path / "audio.safetensors", model)
    images = command(shards, tmp_path / "audio.safetensors", tmp_path / "f.npz")
    assert "no image features" in str(images.exception)
    assert not list(tmp_path.glob("f.*"))
    succeed(shards, tmp_path / "audio.safetensors", tmp_path / "a.npz", "--modality", "audio")


def test_unreadable_clips_are_left_out_and_counted(checkpoint, tmp_path, small_parts):
    tiny = write_tiny_shards(tmp_path / "shards", samples=CLIPS)
    damage(ShardSet.open(tiny.folder), 9, "flac", lambda data: bytes(len(data)))
    out = tmp_path / "f.safetensors"
    assert "44 clips, 1 clip could not be read" in succeed(tiny.folder, checkpoint, out)
    arrays, ids = read(out)
    assert "clip.9" not in ids
    assert len(arrays["audio"]) == len(ids) == 44
    assert 9 not in arrays["index"]
    strict = command(tiny.folder, checkpoint, tmp_path / "g.npz", "--max-bad-samples", 0)
    assert isinstance(strict.exception, WorkFailed)
