"""A set in folds is finetuned and evaluated over them by one command, which can be resumed."""

from __future__ import annotations

import csv
import json
import statistics
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch

import cavmae
from avprep.errors import UserError
from avprep.shards.format import read_dataset
from cavmae.checkpoints import save_model
from cavmae.model import CAVMAE, ModelConfig
from cavmae.train.events import Note
from cavmae.train.options import FoldsRun
from tests.cavmae.tiny_shards import write_tiny_shards
from tests.conftest import REPOSITORY, succeed
from tests.documents import commands_under

CONFIG = ModelConfig.preset("tiny", audio_frames=32, embed_dim=16, num_heads=2)
TINY = ("--epochs", "1", "--batch-size", "50", "--workers", "0", "--device", "cpu", "--json")
FOLDS, CLASSES = 5, 50


def make_esc50(folder):
    """A lookalike of ESC-50: two clips per class, each in another fold, wav alone."""
    (folder / "audio").mkdir(parents=True)
    (folder / "meta").mkdir()
    with (folder / "meta/esc50.csv").open("w", newline="") as file:
        table = csv.writer(file)
        table.writerow(["filename", "fold", "target", "category", "esc10", "src_file", "take"])
        for number in range(2 * CLASSES):
            target, fold, take = number // 2, number % FOLDS + 1, "AB"[number % 2]
            name = f"{fold}-{number:06d}-{take}-{target}.wav"
            tone = np.sin(np.arange(4410) * 2 * np.pi * (100 + 150 * target) / 22050)
            soundfile.write(folder / "audio" / name, 0.3 * tone, 22050)
            table.writerow((name, fold, target, f"class_{target}", False, number, take))


def test_the_documented_commands_evaluate_esc50_over_its_folds(tmp_path):
    make_esc50(tmp_path / "ESC-50")
    (tmp_path / "runs/pretrain").mkdir(parents=True)
    torch.manual_seed(0)
    save_model(tmp_path / "runs/pretrain/model.safetensors", CAVMAE(CONFIG))
    shown = commands_under(REPOSITORY / "docs" / "one-modality.md", "Sound in folds")
    assert [words[1] for words in shown] == ["manifest", "shard", "stats", "folds"]
    for words in shown:
        more = TINY if words[1] == "folds" else ()
        said = succeed(*words, *more, cwd=tmp_path)
    assert read_dataset(tmp_path / "shards/esc50").modalities == {"audio": 100, "image": 0}
    facts = json.loads(said)
    stored = json.loads((tmp_path / "runs/esc50/folds.json").read_text())
    assert {**stored, "out": "runs/esc50"} == facts
    assert list(stored["folds"]) == ["1", "2", "3", "4", "5"]
    accuracies = [fold["accuracy"] for fold in stored["folds"].values()]
    assert stored["mean"]["accuracy"] == pytest.approx(statistics.mean(accuracies))
    assert stored["deviation"]["accuracy"] == pytest.approx(np.std(accuracies, ddof=1))
    config = json.loads((tmp_path / "runs/esc50/fold-2/config.json").read_text())
    assert (config["splits"], config["val_splits"]) == (["1", "3", "4", "5"], ["2"])


@pytest.fixture
def options(tmp_path):
    """Two folds, train and test, of twenty clips."""
    write_tiny_shards(tmp_path / "shards", samples=20)
    return FoldsRun(
        shards=str(tmp_path / "shards"), out=str(tmp_path / "run"), model="tiny", audio_frames=32,
        mode="audioonly", epochs=1, batch_size=8, workers=0, device="cpu",
    )  # fmt: skip


def test_a_fold_is_evaluated_as_finetuning_on_the_others_does(options):
    result = cavmae.folds(options)
    assert list(result.folds) == ["test", "train"]
    alone = cavmae.finetune(
        cavmae.FinetuneRun(
            shards=options.shards, splits=("train",), val_shards=options.shards,
            val_splits=("test",), out=Path(options.out).with_name("alone"), model="tiny",
            audio_frames=32, mode="audioonly", epochs=1, batch_size=8, workers=0, device="cpu",
        )
    )  # fmt: skip
    assert result.folds["test"].validation == alone.validation
    assert result.folds["test"].samples_per_epoch == 16


def test_an_interrupted_run_does_what_is_missing(options):
    heard = []

    def stop_at_the_second(event):
        heard.append(event)
        if isinstance(event, Note) and "2 of 2" in event.text:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        cavmae.folds(options, stop_at_the_second)
    assert not (Path(options.out) / "folds.json").exists()
    first = (Path(options.out) / "fold-test/log.csv").read_bytes()
    resumed = cavmae.folds(options)
    assert (Path(options.out) / "fold-test/log.csv").read_bytes() == first
    whole = cavmae.folds(replace(options, out=Path(options.out).with_name("whole")))
    assert resumed.facts() == whole.facts()


def test_a_set_without_folds_is_one_clear_error(options):
    with pytest.raises(UserError, match=r"has only 'test'\. Make its manifest from a CSV"):
        cavmae.folds(replace(options, splits=("test",)))
