"""Averages of weights are what they are called, while training and afterwards."""

from __future__ import annotations

import json

import pytest
import torch
from safetensors.torch import load_file

from avprep.errors import UserError
from cavmae import average
from cavmae.checkpoints import read_metadata, save_model
from cavmae.distributed import World
from cavmae.model import CAVMAE, CAVMAEClassifier
from cavmae.train.averaging import WeightAverage
from tests.cavmae.tiny_models import SMALL
from tests.cavmae.tiny_shards import write_tiny_shards
from tests.cavmae.train_ranks import WAYS, train
from tests.conftest import succeed

ALONE = World(0, 1, torch.device("cpu"))


def classifier(seed):
    torch.manual_seed(seed)
    return CAVMAEClassifier(SMALL, 4)


def put(model, weights):
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            parameter.copy_(weights[name])


def test_equal_weights_give_the_mean_and_decaying_ones_the_sum_of_powers():
    model = classifier(0)
    history = [dict(classifier(seed).named_parameters()) for seed in range(40)]
    equal, decaying = WeightAverage(model), WeightAverage(model)
    expected = {name: p.detach().clone() for name, p in model.named_parameters()}
    for step, weights in enumerate(history):
        put(model, weights)
        equal.add_equally()
        decaying.add_exponentially(0.8)
        decay = min(0.8, (1 + step) / (10 + step))
        expected = {n: decay * e + (1 - decay) * weights[n].detach() for n, e in expected.items()}
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            mean = torch.stack([weights[name].detach() for weights in history]).mean(0)
            torch.testing.assert_close(equal.state(True)["mean"][name], mean)
            torch.testing.assert_close(decaying.state(True)["mean"][name], expected[name])


def test_a_model_has_its_own_weights_back_after_the_average_stood_in():
    model = classifier(0)
    average = WeightAverage(model)
    put(model, dict(classifier(1).named_parameters()))
    own = {name: value.clone() for name, value in model.state_dict().items()}
    with average.in_place():
        assert any(not torch.equal(v, own[n]) for n, v in model.state_dict().items())
    assert all(torch.equal(value, own[name]) for name, value in model.state_dict().items())


def test_the_average_over_epochs_is_the_mean_of_their_checkpoints(tmp_path, monkeypatch):
    write_tiny_shards(tmp_path / "shards", samples=10)
    monkeypatch.setitem(WAYS, "averaged", {"average_epochs": (2, 3), "keep_checkpoints": 9})
    trainer = train("averaged", tmp_path / "shards", tmp_path / "run", ALONE, epochs=4)
    saved = sorted((tmp_path / "run" / "checkpoints").iterdir())
    average(saved[1:3], tmp_path / "mean.safetensors")
    expected = load_file(tmp_path / "mean.safetensors")
    assert trainer.averages["average"].count == 2
    for name, value in trainer.averages["average"].state(True)["mean"].items():
        torch.testing.assert_close(value, expected[name])


def test_the_command_averages_and_keeps_what_a_classifier_needs(tmp_path):
    facts = {"mode": "audioonly", "labels": json.dumps(["/m/a"] * 4), "fbank_mean": "1.5"}
    models = [classifier(seed) for seed in range(3)]
    for number, model in enumerate(models):
        save_model(tmp_path / f"{number}.safetensors", model, facts)
    files = [tmp_path / f"{number}.safetensors" for number in range(3)]
    out = succeed("cavmae", "average", *files, "--out", tmp_path / "mean.safetensors")
    assert "mean of 3 checkpoints" in out
    mean = load_file(tmp_path / "mean.safetensors")
    for name, value in mean.items():
        expected = torch.stack([model.state_dict()[name] for model in models]).mean(0)
        torch.testing.assert_close(value, expected)
    assert read_metadata(tmp_path / "mean.safetensors").items() >= facts.items()


def test_what_does_not_belong_together_is_not_averaged(tmp_path):
    one, other = tmp_path / "one.safetensors", tmp_path / "other.safetensors"
    labels = {"labels": '["a", "b"]'}
    save_model(one, classifier(0), labels)
    save_model(other, classifier(0), {"labels": '["b", "a"]'})
    with pytest.raises(UserError, match="differ in labels"):
        average([one, other], tmp_path / "mean.safetensors")
    save_model(other, CAVMAE(SMALL), labels)
    with pytest.raises(UserError, match="differ in kind"):
        average([one, other], tmp_path / "mean.safetensors")
    with pytest.raises(UserError, match="name it so"):
        average([one], tmp_path / "mean.pth")
    assert not (tmp_path / "mean.safetensors").exists()
