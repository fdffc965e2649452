"""However a model is spread over ranks: the same training, and the same checkpoints."""

from __future__ import annotations

import csv
import json
import os
import re
import shutil
from functools import partial
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from cavmae.distributed import World
from cavmae.train.checkpoint import list_checkpoints
from tests.cavmae.tiny_shards import write_tiny_shards
from tests.cavmae.train_ranks import (
    SAMPLES,
    WAYS,
    evaluate,
    evaluate_held_out,
    train,
    train_ranks,
)
from tests.forks import on_ranks

ALONE = World(0, 1, torch.device("cpu"))
every_way = pytest.mark.parametrize("way", WAYS)


@pytest.fixture(scope="module")
def shards(tmp_path_factory):
    folder = tmp_path_factory.mktemp("parallel") / "shards"
    write_tiny_shards(folder, samples=SAMPLES)
    return folder


@pytest.fixture(scope="module")
def ranks(shards, made_once, tmp_path_factory) -> Path:
    """What two ranks leave, a folder for each way."""

    def make(out: Path) -> None:
        damaged = tmp_path_factory.mktemp("damaged") / "shards"
        shutil.copytree(shards, damaged)
        for shard in damaged.glob("*.tar"):
            os.truncate(shard, 0)
        result = on_ranks(2, call=partial(train_ranks, shards, damaged, out))
        assert result.returncode == 0, result.stderr[-4000:]
        (out / "stderr.txt").write_text(result.stderr)

    return made_once("ranks", make)


@pytest.fixture(scope="module")
def alone(shards, tmp_path_factory):
    """The same training in this process, by way."""
    out = tmp_path_factory.mktemp("alone")
    return {way: train(way, shards, out / str(number), ALONE) for number, way in enumerate(WAYS)}


def folder_of(ranks: Path, way: str) -> Path:
    return ranks / str(list(WAYS).index(way))


@every_way
def test_ranks_have_the_losses_and_gradients_of_one_process(ranks, alone, way):
    with (folder_of(ranks, way) / "log.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == len(alone[way].position.rows) == 6
    for together, one in zip(rows, alone[way].position.rows, strict=True):
        if one["split"] == "train":  # inside an epoch the main rank logs what it saw itself
            assert float(together["loss"]) == pytest.approx(one["loss"], abs=1e-5)
        else:
            assert float(together["grad_norm"]) == pytest.approx(one["grad_norm"], abs=1e-5)


@every_way
def test_a_checkpoint_holds_the_whole_model_and_goes_on_alone(ranks, alone, shards, way, tmp_path):
    (*_, newest) = list_checkpoints(folder_of(ranks, way) / "checkpoints")
    weights, expected = load_file(newest / "model.safetensors"), alone[way].model.state_dict()
    assert weights.keys() == expected.keys()
    for name, value in expected.items():
        torch.testing.assert_close(weights[name], value, rtol=0, atol=1e-4)
    (tmp_path / "checkpoints").mkdir()
    (tmp_path / "checkpoints" / newest.name).symlink_to(newest)
    longer = train(way, shards, tmp_path, ALONE, epochs=3)
    assert longer.position.epoch == 3
    assert longer.position.rows[-1]["loss"] < alone[way].position.rows[0]["loss"]


@every_way
def test_every_clip_is_evaluated_once_with_the_whole_model(ranks, alone, shards, way):
    found = json.loads(folder_of(ranks, way).with_suffix(".json").read_text())
    expected = evaluate(alone[way], shards)
    for name in ("all", "one"):
        assert found[name]["index"] == expected[name]["index"]
        assert found[name]["video_ids"] == expected[name]["video_ids"]
        torch.testing.assert_close(
            torch.tensor(found[name]["probabilities"]),
            torch.tensor(expected[name]["probabilities"]),
            rtol=0,
            atol=1e-4,
        )
    assert len(found["all"]["index"]) == SAMPLES
    assert len(found["one"]["index"]) == 1


def test_held_out_clips_are_evaluated_as_by_one_process(ranks, shards):
    found = json.loads((ranks / "held-out.json").read_text())
    for name, expected in evaluate_held_out(shards, ALONE).items():
        assert found[name] == pytest.approx(expected, abs=1e-5)


def test_fsdp_gives_each_rank_a_share_of_weights_and_optimiser(ranks):
    for way, options in WAYS.items():
        found = json.loads(folder_of(ranks, way).with_suffix(".json").read_text())
        if options.get("parallel") == "fsdp":
            assert found["own"] < 0.6 * found["whole"]
            assert found["own_optimiser"] < 0.6 * found["whole"]
        else:
            assert found["own"] == found["whole"]


def test_averages_of_shards_are_those_of_one_process(ranks, alone):
    way = "fsdp, averaged"
    found = torch.load(folder_of(ranks, way).with_suffix(".pt"))
    for name, average in alone[way].averages.items():
        expected = average.state(keep=True)
        assert found[name]["count"] == expected["count"]
        for key, value in expected["mean"].items():
            torch.testing.assert_close(found[name]["mean"][key], value, rtol=0, atol=1e-4)


def test_pytorch_warns_of_nothing_whatever_is_trained_and_however(ranks):
    assert (ranks / "stderr.txt").read_text() == ""


@pytest.mark.parametrize(
    ("what", "error"),
    [
        ("unreadable", "WorkFailed.*could not be read, a whole batch"),
        ("unreadable, told to stop", "KeyboardInterrupt"),
        ("not finite", "WorkFailed.*not finite at step 2: .*loss"),
        ("validation", "WorkFailed.*could not be read"),
        ("full disk", "WorkFailed.*File too large"),
        ("told to stop", "KeyboardInterrupt"),
        ("resumed", ""),
    ],
)
def test_what_ends_one_rank_ends_all_of_them_alike(ranks, what, error):
    one, other = json.loads((ranks / "ends.json").read_text())[what]
    assert one == other
    assert re.match(error or "$", one)


def test_a_rank_without_a_batch_leaves_a_checkpoint_to_go_on_from(ranks):
    for name in ("unreadable", "both"):
        assert list_checkpoints(ranks / name / "checkpoints")
    assert not list_checkpoints(ranks / "full" / "checkpoints")


def test_epoch_means_of_resumed_ranks_are_those_of_an_undisturbed_run(ranks):
    def means(folder: Path) -> list[float]:
        with (folder / "log.csv").open() as file:
            return [float(row["loss"]) for row in csv.DictReader(file) if row["split"] == "train"]

    undisturbed = means(folder_of(ranks, "ddp"))
    assert means(ranks / "stopped") == pytest.approx(undisturbed, abs=1e-6)
