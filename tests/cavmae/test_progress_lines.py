"""Without a terminal every long command says how far it is."""

from __future__ import annotations

import re

import pytest
import torch
from click.testing import CliRunner

from cavmae.checkpoints import save_model
from cavmae.cli import group
from cavmae.model import CAVMAE, CAVMAEClassifier
from tests.cavmae.tiny_models import TINY
from tests.cavmae.tiny_shards import write_tiny_shards

FACTS = {"criterion": "bce", "mode": "multimodal", "fbank_mean": "-5.0", "fbank_std": "4.0"}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A shard set of nine clips, a pretrained model and a classifier."""
    folder = tmp_path_factory.mktemp("progress")
    write_tiny_shards(folder / "shards", samples=9)
    torch.manual_seed(3)
    save_model(folder / "pretrained.safetensors", CAVMAE(TINY), FACTS)
    save_model(folder / "classifier.safetensors", CAVMAEClassifier(TINY, 4), FACTS)
    return folder


@pytest.mark.parametrize(
    "command",
    [
        "stats shards",
        "eval --shards shards --checkpoint classifier.safetensors",
        "retrieve --shards shards --checkpoint pretrained.safetensors",
        "knn --shards shards --checkpoint pretrained.safetensors",
        "embed --shards shards --checkpoint pretrained.safetensors --out OUT.safetensors",
    ],
    ids=lambda command: command.split()[0],
)
def test_lines_count_the_clips(folder, command, write_every, tmp_path, monkeypatch):
    monkeypatch.chdir(folder)
    write_every(1e-6)
    words = command.replace("OUT", str(tmp_path / "out")).split()
    result = CliRunner().invoke(group, [*words, "--workers", "0"])
    assert result.exit_code == 0, result.output
    name = words[0]
    assert re.search(rf"^{name}: 9/9 clips, .*clip/s, 00:00 left$", result.stderr, re.MULTILINE)


def test_prediction_counts_files_and_failures(folder, demo_clip, write_every, tmp_path):
    write_every(1e-6)
    (tmp_path / "broken.mp4").write_text("no video")
    paths = (demo_clip, tmp_path / "broken.mp4", "--checkpoint", folder / "classifier.safetensors")
    result = CliRunner().invoke(group, ["predict", *map(str, paths)])
    assert re.search(r"^predict: 2/2 files, 1 failed, ", result.stderr, re.MULTILINE), result.output
