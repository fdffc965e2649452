"""Probes of a pretrained model: nearest neighbours, and a linear head on frozen features."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from sklearn.neighbors import KNeighborsClassifier

from avprep.errors import UserError
from avprep.shards.format import read_dataset, write_dataset
from cavmae.checkpoints import load_checkpoint, save_model
from cavmae.cli.finetune import finetune
from cavmae.cli.knn import knn
from cavmae.cli.retrieve import retrieve
from cavmae.data import ShardSet
from cavmae.evaluation.knn import vote
from cavmae.evaluation.metrics import score
from cavmae.evaluation.options import VoteOptions
from cavmae.model import CAVMAE
from tests.cavmae.test_shardset import damage
from tests.cavmae.tiny_models import TINY
from tests.cavmae.tiny_shards import write_tiny_shards


def unit(*shape):
    return torch.nn.functional.normalize(torch.randn(*shape), dim=-1)


def one_hot(classes, count):
    return torch.nn.functional.one_hot(torch.as_tensor(classes), count).float()


@pytest.mark.parametrize("neighbours", [1, 5, 20])
@pytest.mark.parametrize("memory", [1, 3000, 2**30])
def test_votes_equal_scikit_learns(neighbours, memory):
    torch.manual_seed(neighbours)
    known, queries = unit(70, 8), unit(30, 8)
    classes = torch.randint(0, 4, (70,))
    classes[:4] = torch.arange(4)
    reference = KNeighborsClassifier(
        neighbours, metric="cosine", weights=lambda distance: np.exp((1 - distance) / 0.07)
    ).fit(known, classes)
    found = vote(queries, known, one_hot(classes, 4), VoteOptions(neighbours), memory=memory)
    assert np.allclose(found, reference.predict_proba(queries), atol=1e-4)


def test_each_clip_by_all_others_is_a_loop_that_leaves_one_out():
    torch.manual_seed(0)
    known = unit(25, 6)
    labels = (torch.rand(25, 3) < 0.5).float()  # several labels a clip, or none
    options = VoteOptions(neighbours=7, temperature=0.2)
    found = vote(known, known, labels, options, torch.arange(25), memory=2000)
    for clip in range(25):
        others = [other for other in range(25) if other != clip]
        alone = vote(known[clip : clip + 1], known[others], labels[others], options)
        assert torch.allclose(found[clip], alone[0], atol=1e-6)


def test_fewer_clips_than_neighbours_all_vote():
    known = unit(3, 4)
    found = vote(known, known, one_hot([0, 1, 1], 2), VoteOptions(20), torch.arange(3))
    assert torch.allclose(found.sum(1), torch.ones(3))
    assert found[0].tolist() == pytest.approx([0, 1])


@pytest.fixture(scope="module")
def sets(tmp_path_factory):
    folder = tmp_path_factory.mktemp("probes")
    write_tiny_shards(folder / "train", samples=24, seed=1)
    write_tiny_shards(folder / "test", samples=10, seed=2)
    torch.manual_seed(0)
    save_model(folder / "pretrained.safetensors", CAVMAE(TINY), {"norm_pix_loss": "1"})
    return folder


def command(sets, *arguments):
    line = ("--shards", sets / "train", "--checkpoint", sets / "pretrained.safetensors")
    more = ("--device", "cpu", "--workers", "0", "--json")
    return CliRunner().invoke(knn, list(map(str, (*line, *more, *arguments))))


@pytest.mark.parametrize("modality", ["audio", "image", "both"])
def test_the_command_measures_the_features_that_embed_stores(sets, tmp_path, modality):
    from cavmae.cli.embed import embed

    arrays = {}
    for name in ("train", "test"):
        out = tmp_path / f"{name}.npz"
        line = ("--shards", sets / name, "--checkpoint", sets / "pretrained.safetensors")
        arguments = (*line, "--out", out, "--modality", modality, "--device", "cpu")
        made = CliRunner().invoke(embed, list(map(str, (*arguments, "--workers", "0"))))
        assert made.exit_code == 0, made.exception
        with np.load(out) as stored:
            arrays[name] = dict(stored)

    def vectors(stored):
        kinds = [stored[kind] for kind in ("audio", "image") if kind in stored]
        kinds = [kind / np.linalg.norm(kind, axis=1, keepdims=True) for kind in kinds]
        return np.concatenate(kinds, axis=1) / len(kinds) ** 0.5

    reference = KNeighborsClassifier(
        5, metric="cosine", weights=lambda distance: np.exp((1 - distance) / 0.07)
    ).fit(vectors(arrays["train"]), arrays["train"]["labels"].argmax(axis=1))
    expected = score(
        reference.predict_proba(vectors(arrays["test"])), arrays["test"]["labels"].astype(float)
    )
    result = command(
        sets, "--val-shards", sets / "test", "--neighbours", "5", "--modality", modality
    )
    assert result.exit_code == 0, result.exception
    facts = json.loads(result.output.splitlines()[-1])
    assert facts["accuracy"] == pytest.approx(expected.accuracy)
    assert facts["map"] == pytest.approx(expected.map, abs=1e-3)
    assert (facts["clips"], facts["known_clips"], facts["leave_one_out"]) == (10, 24, False)


def test_without_a_second_set_each_clip_is_classified_by_the_others(sets):
    facts = json.loads(command(sets).output.splitlines()[-1])
    assert (facts["clips"], facts["known_clips"], facts["leave_one_out"]) == (24, 24, True)


def test_each_set_has_a_split_of_its_own_and_classes_are_for_both(sets):
    same = ("--split", "train", "--val-shards", sets / "train", "--val-split", "test")
    facts = json.loads(command(sets, *same).output.splitlines()[-1])
    assert (facts["clips"], facts["known_clips"]) == (5, 19)
    classes = ("--classes", "Ape", "--classes", "/m/b")
    facts = json.loads(command(sets, *same, *classes).output.splitlines()[-1])
    assert (facts["clips"], facts["known_clips"]) == (3, 9)
    assert "--val-shards" in str(command(sets, "--val-split", "test").exception)


def test_sets_that_do_not_belong_together_are_refused(sets, tmp_path):
    other = write_tiny_shards(tmp_path / "other", samples=5).folder
    info = read_dataset(other)
    write_dataset(other, replace(info, labels=(("/m/g", "Gibbon"), *info.labels[1:])))
    result = command(sets, "--val-shards", other)
    assert isinstance(result.exception, UserError)
    first = info.labels[0][0]
    assert f"another label set than {sets}" in str(result.exception)
    assert f"class 0 is '/m/g', not {first!r}" in str(result.exception)
    bare = write_tiny_shards(tmp_path / "bare", samples=10, unlabelled_split="test").folder
    result = command(sets, "--val-shards", bare, "--val-split", "test")
    assert isinstance(result.exception, UserError)
    assert "no labels to compare with" in str(result.exception)


def test_a_linear_probe_changes_the_head_alone(sets, tmp_path):
    start = load_checkpoint(sets / "pretrained.safetensors").state_dict()
    result = CliRunner().invoke(
        finetune,
        [
            *("--shards", str(sets / "train"), "--val-shards", str(sets / "test")),
            *("--init", str(sets / "pretrained.safetensors"), "--out", str(tmp_path / "probe")),
            *("--freeze-base", "--epochs", "2", "--batch-size", "8", "--workers", "0"),
            *("--device", "cpu", "--lr", "0.01", "--head-lr-ratio", "1"),
        ],
    )
    assert result.exit_code == 0, result.exception
    probe = load_checkpoint(tmp_path / "probe" / "model.safetensors").state_dict()
    head = {name for name in probe if name.startswith("mlp_head.")}
    assert len(head) == 4
    for name, value in probe.items():
        if name not in head:
            assert torch.equal(value, start[name]), name
    assert probe["mlp_head.1.bias"].abs().min() > 0  # zero at first
    assert not torch.equal(probe["mlp_head.0.weight"], torch.ones(16))


@pytest.mark.parametrize("command", [knn, retrieve])
def test_clips_that_cannot_be_read_are_counted_in_what_is_printed(sets, tmp_path, command):
    shutil.copytree(sets / "test", tmp_path / "test")
    damage(ShardSet.open(tmp_path / "test"), 4, "flac", lambda data: bytes(len(data)))
    words = ["--shards", tmp_path / "test", "--checkpoint", sets / "pretrained.safetensors"]
    result = CliRunner().invoke(command, [*map(str, words), "--workers", "0"])
    assert result.exit_code == 0, result.output
    assert "\n1 clip could not be read; `avprep verify` says why" in result.output
