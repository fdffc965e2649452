"""Training from Python: typed options, results and events; nothing is printed."""

from __future__ import annotations

import dataclasses
import inspect
import json
from pathlib import Path

import click
import pytest
import torch

import cavmae
from avprep.cli.flags import Flag
from avprep.errors import UserError
from cavmae import FinetuneRun, PretrainRun
from cavmae.checkpoints import load_checkpoint, save_model
from cavmae.cli.average import average as average_command
from cavmae.cli.convert import convert as convert_command
from cavmae.cli.demo import demo
from cavmae.cli.finetune import finetune
from cavmae.cli.pretrain import pretrain
from cavmae.cli.stats import stats
from cavmae.model import CAVMAE
from cavmae.train.folder import _FREE, _WATCHING
from tests.cavmae.tiny_models import SMALL
from tests.cavmae.tiny_shards import write_tiny_shards

FUNCTIONS = ["average", "convert", "finetune", "pretrain", "rehearse", "stats"]


@pytest.fixture
def place(tmp_path, monkeypatch) -> Path:
    """The working folder, with `shards` and `init.safetensors`."""
    write_tiny_shards(tmp_path / "shards", samples=8)
    torch.manual_seed(0)
    save_model(tmp_path / "init.safetensors", CAVMAE(SMALL))
    monkeypatch.chdir(tmp_path)
    return tmp_path


def small(**changes) -> dict:
    return {
        "shards": "shards",
        "init": "init.safetensors",
        "workers": 0,
        "device": "cpu",
        "batch_size": 4,
        "epochs": 2,
        **changes,
    }


def test_clips_become_a_classifier_without_a_word(place, capfd):
    events: list[cavmae.Event] = []
    measured = cavmae.stats("shards", cavmae.StatsOptions(target_length=16, workers=0))
    pretrained = cavmae.pretrain(
        PretrainRun(out="pre", val_shards="shards", **small()), events.append
    )
    assert (pretrained.folder, pretrained.epochs, pretrained.steps) == ("pre", 2, 4)
    assert pretrained.train["epoch"] == pretrained.validation["epoch"] == 2
    assert pretrained.unreadable == {}

    steps = [event for event in events if isinstance(event, cavmae.Steps)]
    assert [(event.done, event.total) for event in steps] == [(n, 4) for n in range(5)]
    assert steps[-1].facts["loss"] > 0
    epochs = [event for event in events if isinstance(event, cavmae.Measured)]
    assert [event.epoch for event in epochs] == [0, 1, 2]
    assert epochs[-1].train["loss"] == pretrained.train["loss"]
    (fbank,) = (event for event in events if isinstance(event, cavmae.Normalisation))
    assert (fbank.mean, fbank.std) == (measured.mean, measured.std)

    tuned = cavmae.finetune(
        FinetuneRun(out="tuned", val_shards="shards", **small(init=pretrained.folder))
    )
    assert tuned.metric == "accuracy"
    assert tuned.best >= tuned.validation["accuracy"]
    assert json.loads(Path("tuned/result.json").read_text())["best_accuracy"] == tuned.best
    average = cavmae.average(sorted(Path("tuned/checkpoints").iterdir()), "mean.safetensors")
    assert average.count == 2
    converted = cavmae.convert(average.file, "copy.safetensors")
    assert converted.model.num_classes == load_checkpoint("tuned").num_classes == 4
    assert capfd.readouterr() == ("", "")


def test_a_run_resumes_and_says_from_where(place):
    cavmae.pretrain(PretrainRun(out="run", **small(epochs=1)))
    events: list[cavmae.Event] = []
    again = cavmae.pretrain(PretrainRun(out="run", **small()), events.append)
    assert again.steps == 4
    notes = [event.text for event in events if isinstance(event, cavmae.Note)]
    assert "resuming from step-00000002: epoch 1, step 2" in notes
    with pytest.raises(UserError, match=r"mask_ratio = 0\.75, not 0\.5"):
        cavmae.pretrain(PretrainRun(out="run", mask_ratio=0.5, **small()))


def test_a_rehearsal_writes_nothing(place):
    found = cavmae.rehearse(FinetuneRun(out="run", val_shards="shards", **small()))
    assert (found.steps, found.batch_size, found.epochs) == (4, 4, 2)
    assert not Path("run").exists()


def test_config_json_has_every_option(place):
    options = PretrainRun(out="run", **small(epochs=1))
    cavmae.pretrain(options)
    config = json.loads(Path("run/config.json").read_text())
    assert config.keys() >= {field.name for field in dataclasses.fields(options)}
    assert config["mask_ratio"] == options.mask_ratio
    assert config["audio_frames"] == SMALL.audio_frames


@pytest.mark.parametrize("kind", [PretrainRun, FinetuneRun])
def test_what_may_change_when_a_run_is_resumed_are_options(kind):
    facts = {"contrasted_clips"}
    known = {field.name for field in dataclasses.fields(PretrainRun)} | facts
    assert {*_FREE, *_WATCHING} <= known
    with pytest.raises(TypeError, match="epoch"):
        kind(shards="s", val_shards="v", out="o", epoch=3)


def test_options_that_contradict_each_other_are_refused():
    with pytest.raises(UserError, match="--average-epochs 2 4: with --epochs 3"):
        PretrainRun(shards="s", out="o", epochs=3, average_epochs=(2, 4))
    with pytest.raises(UserError, match="--val-shards, which is not given"):
        PretrainRun(shards="s", out="o", val_splits=["test"])
    with pytest.raises(UserError, match="--mode missingaudioonly: must be one of"):
        FinetuneRun(shards="s", val_shards="v", out="o", mode="missingaudioonly")
    with pytest.raises(UserError, match="at least one checkpoint"):
        cavmae.average([], "mean.safetensors")


@pytest.mark.parametrize(
    "command", [average_command, convert_command, demo, finetune, pretrain, stats]
)
def test_every_flag_is_a_stated_option(command):
    for parameter in command.params:
        stated = isinstance(parameter, (Flag, click.Argument))
        assert stated or parameter.opts == ["--config"]


@pytest.mark.parametrize("name", FUNCTIONS)
def test_every_function_is_typed_and_documented(name):
    function = getattr(cavmae, name)
    signature = inspect.signature(function)
    assert function.__doc__
    assert signature.return_annotation is not inspect.Signature.empty
    for parameter in signature.parameters.values():
        assert parameter.annotation is not inspect.Parameter.empty
