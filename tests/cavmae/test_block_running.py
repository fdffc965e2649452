"""Blocks that are compiled or recomputed compute the same, and checkpoints do not tell."""

from __future__ import annotations

import shutil

import pytest
import torch
from safetensors.torch import load_file

from cavmae.distributed import World
from cavmae.train.checkpoint import list_checkpoints
from tests.cavmae.tiny_shards import write_tiny_shards
from tests.cavmae.train_ranks import WAYS, train

ALONE = World(0, 1, torch.device("cpu"))


@pytest.mark.parametrize(
    "options",
    [
        {"activation_checkpointing": True},
        pytest.param(
            {"compile": True, "activation_checkpointing": True},
            marks=pytest.mark.skipif(not shutil.which("g++"), reason="torch.compile needs g++"),
        ),
    ],
    ids=lambda options: " ".join(options),
)
def test_training_is_the_same(tmp_path, monkeypatch, options):
    write_tiny_shards(tmp_path / "shards", samples=8)
    monkeypatch.setitem(WAYS, "other", options)
    plain = train("ddp", tmp_path / "shards", tmp_path / "plain", ALONE)
    other = train("other", tmp_path / "shards", tmp_path / "other", ALONE)
    for ours, theirs in zip(other.position.rows, plain.position.rows, strict=True):
        assert ours["loss"] == pytest.approx(theirs["loss"], abs=1e-5)
    (saved,) = list_checkpoints(tmp_path / "other" / "checkpoints")[-1:]
    weights = load_file(saved / "model.safetensors")
    assert weights.keys() == plain.model.state_dict().keys()
    for name, value in plain.model.state_dict().items():
        torch.testing.assert_close(weights[name], value, rtol=0, atol=1e-4)


def test_recomputed_blocks_keep_fewer_activations(tmp_path, monkeypatch):
    write_tiny_shards(tmp_path / "shards", samples=8)
    monkeypatch.setitem(WAYS, "recomputed", {"activation_checkpointing": True})
    kept = {}
    for way in ("ddp", "recomputed"):
        sizes = []

        def note(tensor, sizes=sizes):
            sizes.append(tensor.numel())
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
            train(way, tmp_path / "shards", tmp_path / way, ALONE, epochs=1)
        kept[way] = sum(sizes)
    assert kept["recomputed"] < 0.6 * kept["ddp"]
