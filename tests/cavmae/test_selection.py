"""Classes, splits, retries and cache as typed: training and validation from one set at a URL."""

from __future__ import annotations

import json
import threading

import torch

from cavmae.checkpoints import save_model
from cavmae.data import ShardSet
from cavmae.model import CAVMAE
from tests.cavmae.test_reader import Server
from tests.cavmae.test_shardset import damage
from tests.cavmae.tiny_models import SMALL
from tests.cavmae.tiny_shards import write_tiny_shards
from tests.conftest import run


def test_one_set_at_a_url_gives_training_and_validation_and_is_fetched_once(tmp_path):
    folder = tmp_path / "shards"
    write_tiny_shards(folder, samples=40)
    damage(ShardSet.open(folder), 1, "flac", lambda data: bytes(len(data)))  # clip.1: a Bell
    torch.manual_seed(0)
    save_model(tmp_path / "init.safetensors", CAVMAE(SMALL))
    server = Server(folder)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    server.failing[""] = 2  # the first two requests for shards
    result = run(
        "cavmae",
        *("finetune", "--shards", server.url, "--split", "train"),
        *("--val-shards", server.url, "--val-split", "test"),
        *("--init", tmp_path / "init.safetensors"),
        *("--classes", "Bell, big", "--classes", "/m/d", "--loss", "ce", "--out", tmp_path / "run"),
        *("--cache-dir", tmp_path / "cache", "--cache-size", "0.5", "--retries", "2"),
        *("--timeout", "5", "--epochs", "2", "--batch-size", "4", "--workers", "0"),
        *("--max-bad-samples", "1", "--device", "cpu"),
    )
    server.shutdown()
    assert result.returncode == 0, result.stderr
    found = json.loads((tmp_path / "run" / "result.json").read_text())
    assert found["samples_per_epoch"] == 16  # half of the classes, four fifths of the clips
    assert list(found["unreadable_in_last_call"]) == ["clip.1"]
    assert "1 samples could not be read and were left out: clip.1" in result.stdout
    config = json.loads((tmp_path / "run" / "config.json").read_text())
    assert config["classes"] == ["Bell, big", "/m/d"]
    assert (config["splits"], config["val_splits"]) == (["train"], ["test"])
    shards = [name for name, _ in server.requests if name.endswith(".tar")]
    assert len(shards) == len(set(shards))  # each fetched once, whole, for both sets and epochs
    assert len(list((tmp_path / "cache").rglob("*.tar"))) == len(shards)


def test_an_unknown_class_or_split_is_told_with_what_there_is(tmp_path):
    folder = tmp_path / "shards"
    write_tiny_shards(folder, samples=8)
    common = ("pretrain", "--shards", folder, "--out", tmp_path / "run", "--model", "tiny")
    wrong = run("cavmae", *common, "--classes", "Dgo")
    assert wrong.returncode == 2
    assert "no class 'Dgo'. Did you mean 'Dog'?" in wrong.stderr
    wrong = run("cavmae", *common, "--split", "valid")
    assert "no split 'valid'; its splits are test, train" in wrong.stderr
