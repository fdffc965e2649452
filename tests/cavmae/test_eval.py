"""`cavmae eval` counts every clip once and says on what its figures stand."""

from __future__ import annotations

import csv
import json
from dataclasses import replace

import numpy as np
import pytest
import torch

from avprep.shards.format import read_dataset, write_dataset
from cavmae.checkpoints import save_model
from cavmae.data import LoaderOptions, ShardLoader, ShardSet
from cavmae.evaluation.metrics import score
from cavmae.frontend import FrontEnd, FrontEndOptions
from cavmae.model import CAVMAEClassifier
from cavmae.options import MODES
from tests.cavmae.test_shardset import damage
from tests.cavmae.tiny_models import SMALL
from tests.cavmae.tiny_shards import write_tiny_shards
from tests.conftest import run
from tests.forks import on_ranks

SAMPLES = 13  # does not divide by two ranks


def save_classifier(path, criterion, mode="multimodal"):
    torch.manual_seed(1)
    model = CAVMAEClassifier(SMALL, 4)
    with torch.no_grad():
        model.mlp_head[1].weight.normal_(std=3.0)
    facts = {"criterion": criterion, "mode": mode, "fbank_mean": "1.0", "fbank_std": "4.0"}
    save_model(path, model, facts)
    return model.eval()


@pytest.fixture(scope="module")
def shards(tmp_path_factory):
    folder = tmp_path_factory.mktemp("eval") / "shards"
    write_tiny_shards(folder, samples=SAMPLES)
    return folder


def evaluate(shards, checkpoint, *flags, ranks=1):
    words = ["eval", "--shards", shards, "--checkpoint", checkpoint, "--workers", "0"]
    words += ["--batch-size", "4", "--device", "cpu", *flags]
    result = run("cavmae", *words) if ranks == 1 else on_ranks(ranks, *words)
    assert result.returncode == 0, result.stderr
    return result.stdout


def by_hand(model, shards, frame, squash, mode="multimodal"):
    """Scores and labels of every clip by the plainest loop."""
    frontend = FrontEnd(FrontEndOptions(target_length=SMALL.audio_frames, mean=1.0, std=4.0))
    loader = ShardLoader(
        ShardSet.open(shards), LoaderOptions(1, workers=0, shuffle=False, frame=frame)
    )
    rows = []
    with torch.no_grad():
        for batch in loader.epoch():
            inputs = frontend(batch)
            logits = model(inputs.audio, inputs.image, mode)
            rows.append((squash(logits)[0].double().numpy(), batch.labels[0].double().numpy()))
    return tuple(np.stack(column) for column in zip(*rows, strict=True))


SQUASH = {"ce": lambda x: x.softmax(-1), "bce": torch.sigmoid}


def test_files_of_scores_are_named(shards, tmp_path):
    save_classifier(tmp_path / "model.safetensors", "ce")
    flags = ("--modes", "all", "--scores", tmp_path / "scores.npz")
    printed = evaluate(shards, tmp_path / "model.safetensors", *flags).splitlines()
    assert sorted(printed[-len(MODES) :]) == sorted(map(str, tmp_path.glob("scores.*.npz")))


@pytest.mark.parametrize("criterion", ["ce", "bce"])
def test_two_ranks_count_each_clip_once_and_average_the_frames(shards, tmp_path, criterion):
    model = save_classifier(tmp_path / "model.safetensors", criterion)
    ranks = 2 if criterion == "bce" else 1
    table = tmp_path / "classes.csv"
    flags = ("--frames", "each", "--json", "--per-class-csv", table)
    found = json.loads(evaluate(shards, tmp_path / "model.safetensors", *flags, ranks=ranks))
    assert found["clips"] == found["clips_selected"] == SAMPLES
    frames = [by_hand(model, shards, frame, SQUASH[criterion]) for frame in range(3)]
    truth = frames[0][1]
    for number, (scores, _) in enumerate(frames):
        expected = score(scores, truth)
        assert found["each_frame"][number]["map"] == pytest.approx(expected.map, abs=1e-6)
    together = score(np.mean([scores for scores, _ in frames], axis=0), truth)
    for name in ("accuracy", "map", "auc", "d_prime"):
        assert found[name] == pytest.approx(getattr(together, name), abs=1e-6)
    with table.open() as file:
        rows = list(csv.DictReader(file))
    assert [int(row["positives"]) for row in rows] == truth.sum(0).astype(int).tolist()
    for row, one in zip(rows, together.classes, strict=True):
        assert float(row["average_precision"]) == pytest.approx(one.average_precision, abs=1e-6)
    assert [row["display_name"] for row in rows] == ["Ape", "Bell, big", "Cat", "Dog"]


def test_what_a_figure_stands_on_is_printed_with_it(tmp_path):
    folder = tmp_path / "shards"
    write_tiny_shards(folder, samples=SAMPLES)
    # Two never got into a shard.
    write_dataset(folder, replace(read_dataset(folder), clips=SAMPLES + 2))
    damage(ShardSet.open(folder), 8, "flac", lambda data: bytes(len(data)))
    save_classifier(tmp_path / "model.safetensors", "ce", "audioonly")
    flags = ("--classes", "Ape", "--classes", "/m/c", "--frames", "1")
    out = evaluate(folder, tmp_path / "model.safetensors", *flags)
    assert "6 of 7 clips (1 unreadable)" in out
    assert "2 of the manifest's 15 clips could not be decoded" in out
    assert "Mode audioonly, frames none, fbank mean 1.000 std 4.000" in out
    assert "2 of 4 classes have no clip and are left out" in out
    assert "nan" not in out


def test_splits_are_evaluated_apart(shards, tmp_path):
    save_classifier(tmp_path / "model.safetensors", "ce")
    found = json.loads(
        evaluate(shards, tmp_path / "model.safetensors", "--split", "test", "--json")
    )
    assert found["clips"] == 3  # every fifth clip
