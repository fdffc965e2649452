"""The exported program gives the model's numbers, from raw samples and frames, without our code."""

from __future__ import annotations

import copy
import json
import subprocess
import sys

import numpy as np
import pytest
import torch
from click.testing import CliRunner

from avprep.errors import UserError, WorkFailed
from cavmae.checkpoints import save_model
from cavmae.cli.export import export
from cavmae.data import Batch, LoaderOptions, ShardLoader, ShardSet
from cavmae.distributed import World
from cavmae.evaluation import export as exporting
from cavmae.evaluation.classify import ClassifyOptions, classify_together
from cavmae.evaluation.trained import load_trained
from cavmae.frontend import FrontEnd
from cavmae.model import CAVMAE, CAVMAEClassifier, ModelConfig
from tests.cavmae.tiny_shards import SIZE, write_tiny_shards

CONFIG = ModelConfig(
    embed_dim=32, depth=3, modality_depth=2, num_heads=2, patch_size=16, image_size=SIZE,
    audio_frames=32,
)  # fmt: skip
CLASSES = 4


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    torch.manual_seed(1)
    model = CAVMAEClassifier(CONFIG, CLASSES)
    torch.nn.init.normal_(model.mlp_head[1].weight, std=0.5)
    path = tmp_path_factory.mktemp("export") / "classifier.safetensors"
    metadata = {
        "fbank_mean": "-6.5",
        "fbank_std": "3.5",
        "mode": "multimodal",
        "criterion": "ce",
        "labels": json.dumps(["/m/a", "/m/b", "/m/c", "/m/d"]),
        "label_names": json.dumps(["Ape", "Bell, big", "Cat", "Dog"]),
    }
    save_model(path, model, metadata)
    return path


@pytest.fixture(scope="module")
def shards(tmp_path_factory):
    """Clips from below one fbank window to more than the model has room for (5360 samples)."""
    folder = tmp_path_factory.mktemp("export shards") / "shards"
    write_tiny_shards(folder, samples=24, lengths=(300, 9000))
    return ShardSet.open(folder)


def command(*arguments):
    return CliRunner().invoke(export, list(map(str, arguments)))


def load(path):
    facts = {exporting.FACTS_FILE: ""}
    program = torch.export.load(path, extra_files=facts)
    return program.module(), json.loads(facts[exporting.FACTS_FILE])


def only_batch(shards, count, longest=100_000) -> Batch:
    options = LoaderOptions(count, 0, shuffle=False, frame="middle", longest=longest)
    return next(ShardLoader(shards, options).epoch())


@pytest.mark.parametrize(
    ("mode", "waveform", "inputs"),
    [
        ("multimodal", "int16", ["waveform", "lengths", "frames"]),
        ("missingaudioonly", "float32", ["waveform", "lengths"]),
        ("videoonly", "int16", ["frames"]),
    ],
)
def test_probabilities_are_those_of_eval(checkpoint, shards, tmp_path, mode, inputs, waveform):
    result = command(checkpoint, tmp_path / "m.pt2", "--mode", mode, "--waveform", waveform)
    assert result.exit_code == 0, result.exception
    program, facts = load(tmp_path / "m.pt2")
    assert facts["inputs"] == inputs
    trained = load_trained(checkpoint)
    evaluated = classify_together(
        trained.model, trained.frontend, shards,
        ClassifyOptions(mode=mode, criterion="ce", batch_size=24, workers=0),
        World(0, 1, torch.device("cpu")),
    )  # fmt: skip
    for count in (1, 5, 24):
        batch = only_batch(shards, count)
        available = {
            "waveform": batch.waveform if waveform == "int16" else batch.waveform / 32768,
            "lengths": batch.lengths,
            "frames": batch.image.permute(0, 2, 3, 1).contiguous(),
        }
        with torch.no_grad():
            logits = program(**{name: available[name] for name in inputs})
        expected = evaluated.probabilities[:count]
        assert np.abs(logits.softmax(1).numpy() - expected).max() <= 1e-5


def test_logits_are_the_models_within_1e_5(checkpoint, shards, tmp_path):
    assert command(checkpoint, tmp_path / "m.pt2").exit_code == 0
    program, _ = load(tmp_path / "m.pt2")
    trained = load_trained(checkpoint)
    batch = only_batch(shards, 24, trained.longest)
    with torch.no_grad():
        inputs = trained.frontend(batch)
        expected = trained.model(inputs.audio, inputs.image)
        found = program(
            waveform=batch.waveform, lengths=batch.lengths, frames=batch.image.permute(0, 2, 3, 1)
        )
    assert (found - expected).abs().max() <= 1e-5


def test_the_program_runs_without_this_project(checkpoint, tmp_path):
    assert command(checkpoint, tmp_path / "m.pt2").exit_code == 0
    code = (
        "import sys, torch\n"
        "facts = {'cavmae.json': ''}\n"
        "program = torch.export.load('m.pt2', extra_files=facts).module()\n"
        f"frames = torch.zeros(2, {SIZE}, {SIZE}, 3, dtype=torch.uint8)\n"
        "waveform = torch.zeros(2, 4000, dtype=torch.int16)\n"
        "lengths = torch.tensor([4000, 1000])\n"
        "print(*program(waveform=waveform, lengths=lengths, frames=frames).shape)\n"
        "print(facts['cavmae.json'])\n"
        "assert not {'cavmae', 'avprep'} & set(sys.modules)\n"
    )
    result = subprocess.run(
        [sys.executable, "-I", "-c", code],
        cwd=tmp_path, capture_output=True, text=True, check=True,
    )  # fmt: skip
    shape, facts = result.stdout.splitlines()
    assert shape == f"2 {CLASSES}"
    facts = json.loads(facts)
    assert facts["labels"][1] == ["/m/b", "Bell, big"]
    assert (facts["longest"], facts["frame_size"], facts["criterion"]) == (5360, SIZE, "ce")


def test_what_cannot_be_exported_is_said(checkpoint, tmp_path):
    onnx = command(checkpoint, tmp_path / "m.onnx")
    assert isinstance(onnx.exception, UserError)
    assert ".pt2" in str(onnx.exception)
    save_model(tmp_path / "pretrained.safetensors", CAVMAE(CONFIG))
    pretrained = command(tmp_path / "pretrained.safetensors", tmp_path / "m.pt2")
    assert "cavmae finetune" in str(pretrained.exception)
    model = CAVMAEClassifier(CONFIG, 4)
    model.drop_images()
    save_model(tmp_path / "audio.safetensors", model)
    images = command(tmp_path / "audio.safetensors", tmp_path / "m.pt2")
    assert "--mode audioonly" in str(images.exception)
    assert not (tmp_path / "m.pt2").exists()
    audio = command(tmp_path / "audio.safetensors", tmp_path / "m.pt2", "--mode", "audioonly")
    assert audio.exit_code == 0


def test_a_program_that_gives_other_numbers_is_not_written(checkpoint, tmp_path, monkeypatch):
    whole = exporting.export_program

    def of_another_model(trained, options):
        other = copy.deepcopy(trained)
        with torch.no_grad():
            other.model.mlp_head[1].bias.add_(1e-3)
        return whole(other, options)

    monkeypatch.setattr(exporting, "export_program", of_another_model)
    result = command(checkpoint, tmp_path / "m.pt2")
    assert isinstance(result.exception, WorkFailed)
    assert "differ" in str(result.exception)
    assert not (tmp_path / "m.pt2").exists()


def test_a_front_end_that_changed_is_noticed(checkpoint, tmp_path, monkeypatch):
    log_mel = FrontEnd.log_mel
    monkeypatch.setattr(
        FrontEnd, "log_mel", lambda self, waveform, lengths: log_mel(self, waveform, lengths) + 0.1
    )
    result = command(checkpoint, tmp_path / "new" / "c.pt2")
    assert isinstance(result.exception, WorkFailed)
    assert "differ from the model's by" in str(result.exception)
    assert not (tmp_path / "new" / "c.pt2").exists()
