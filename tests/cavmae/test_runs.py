"""What a run starts from and goes on with: the same data and options, wherever they lie."""

from __future__ import annotations

import csv
import json
import re
import shutil
import subprocess
from dataclasses import replace
from pathlib import Path

import click
import pytest
import torch
from safetensors.torch import load_file, save_file

from avprep.errors import UserError
from avprep.shards.format import read_dataset, update_dataset, write_dataset
from cavmae.checkpoints import read_metadata, save_model
from cavmae.cli.finetune import finetune as finetune_command
from cavmae.frontend import FrontEnd
from cavmae.model import CAVMAE
from cavmae.train.checkpoint import list_checkpoints
from cavmae.train.folder import way_to_batch
from tests.cavmae.tiny_models import SMALL
from tests.cavmae.tiny_shards import write_tiny_shards
from tests.conftest import run
from tests.forks import on_ranks


@pytest.fixture
def place(tmp_path):
    """A folder with `shards` and `init.safetensors`."""
    write_tiny_shards(tmp_path / "shards", samples=8)
    torch.manual_seed(0)
    save_model(tmp_path / "init.safetensors", CAVMAE(SMALL))
    return tmp_path


def finetune(place: Path, *flags: object, shards: str = "shards") -> Path:
    """Train in this process; later flags win."""
    run = place / "run"
    arguments = ["--shards", place / shards, "--val-shards", place / shards, "--out", run]
    arguments += ["--init", place / "init.safetensors", "--epochs", 1, "--batch-size", 4]
    arguments += ["--workers", 0, "--device", "cpu", *flags]
    finetune_command.main([str(word) for word in arguments], standalone_mode=False)
    return run


def config_of(run: Path) -> dict:
    return json.loads((run / "config.json").read_text())


def test_a_run_goes_on_with_shards_that_have_moved(place):
    finetune(place)
    shutil.move(place / "shards", place / "elsewhere")
    run = finetune(place, "--epochs", 2, shards="elsewhere")
    assert json.loads((run / "result.json").read_text())["epochs"] == 2


def test_a_run_refuses_other_shards_in_the_same_place(place):
    finetune(place)
    info = read_dataset(place / "shards")
    write_dataset(place / "shards", replace(info, fingerprint="other"))
    with pytest.raises(
        UserError, match=r"with lr = .*; shards_fingerprint = tiny, not other; val_sh.*\. Give the"
    ):
        finetune(place, "--epochs", 2, "--lr", 0.5)


def more_than_the_machine_has(*_: object) -> torch.Tensor:
    return torch.empty(2**50)


def more_than_a_gpu_has(*_: object) -> torch.Tensor:
    raise torch.OutOfMemoryError(
        "CUDA out of memory. Tried to allocate 20.00 GiB. GPU 0 has a total capacity of 79.11 GiB."
    )


def more_than_a_loading_process_has(*_: object) -> torch.Tensor:
    raise MemoryError(
        "Caught MemoryError in process 0.\nTraceback:\nMemoryError: Unable to allocate"
    )


@pytest.mark.parametrize(
    ("exhaust", "said"),
    [
        (more_than_the_machine_has, r"\(.*can't allocate memory: you tried to allocate .*\)"),
        (more_than_a_gpu_has, r"\(CUDA out of memory. Tried to allocate 20.00 GiB\)"),
        (more_than_a_loading_process_has, r"\(MemoryError: Unable to allocate\)"),
    ],
)
def test_a_run_that_is_out_of_memory_names_what_resumes_it(place, monkeypatch, exhaust, said):
    arguments = ["--shards", place / "shards", "--val-shards", place / "shards", "--workers", 0]
    arguments += ["--init", place / "init.safetensors", "--device", "cpu"]
    arguments += ["--out", place / "run"]

    def train(batch: int, epochs: int, *flags: object) -> subprocess.CompletedProcess[str]:
        given = ("--batch-size", batch, "--epochs", epochs, *flags)
        return run("cavmae", "finetune", *arguments, *given)

    with monkeypatch.context() as patch:
        patch.setattr(FrontEnd, "forward", exhaust)
        failed = train(4, 2)
    assert failed.returncode == 1
    assert "No checkpoint was written yet. Give --batch-size 2 --accumulate 2" in failed.stderr
    assert train(4, 1).returncode == 0
    with monkeypatch.context() as patch:
        patch.setattr(FrontEnd, "forward", exhaust)
        failed = train(4, 2)
    checkpoint = place / "run" / "checkpoints" / "step-00000002"
    assert failed.returncode == 1
    (line,) = (line for line in failed.stderr.splitlines() if line.startswith("Failed: "))
    assert re.match(rf"Failed: out of memory with --batch-size 4 {said}\. The last", line)
    assert f"The last checkpoint, {checkpoint}, is complete. Give --batch-size 2 --acc" in line
    assert train(2, 2, "--accumulate", 2).returncode == 0


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("retrieve", "--batch-size", 7), "with --batch-size 7 .* Use a smaller one, fewer --work"),
        (
            ("inpaint", "--norm-pix-loss"),
            r"\. Close other programs, or use fewer",
        ),
    ],
)
def test_other_commands_that_are_out_of_memory_say_what_helps(place, monkeypatch, words, said):
    monkeypatch.setattr(FrontEnd, "forward", more_than_the_machine_has)
    given = ("--checkpoint", place / "init.safetensors", "--device", "cpu", "--out", place / "x")
    failed = run("cavmae", *words, "--shards", place / "shards", *given)
    assert failed.returncode == 1
    assert re.search(rf"^Failed: out of memory .*{said}", failed.stderr, re.MULTILINE)


def test_a_run_refuses_a_normalisation_measured_since(place):
    finetune(place)
    update_dataset(place / "shards", fbank={"mean": -4.0, "std": 3.0})
    with pytest.raises(UserError, match=r"fbank_mean = -5\.081, not -4\.0"):
        finetune(place, "--epochs", 2)


def test_a_balanced_run_refuses_other_class_weights(place):
    finetune(place, "--balanced")
    update_dataset(place / "shards", weights={"classes": [1.0, 2.0, 3.0, 4.0]})
    with pytest.raises(UserError, match="class_weights_sha256"):
        finetune(place, "--balanced", "--epochs", 2)


def test_epochs_may_change_only_where_the_rate_does_not_depend_on_them(place):
    finetune(place, "--schedule", "cosine")
    with pytest.raises(UserError, match="epochs = 1, not 2"):
        finetune(place, "--schedule", "cosine", "--epochs", 2)


def test_checkpoints_of_an_unknown_run_are_never_gone_on_from(place):
    run = finetune(place)
    for damaged in ("", "[]", "{"):
        (run / "config.json").write_text(damaged)
        with pytest.raises(UserError, match=r"config\.json: is damaged .* start another run"):
            finetune(place)
    (run / "config.json").unlink()
    with pytest.raises(UserError, match="holds a run already"):
        finetune(place, "--resume", "never")
    with pytest.raises(UserError, match=r"config\.json: missing beside checkpoints"):
        finetune(place)
    assert list_checkpoints(run / "checkpoints")


def test_a_shard_set_does_not_become_a_run(place):
    before = sorted((place / "shards").iterdir())
    with pytest.raises(UserError, match=r"shards: is a shard set, not a folder for a run"):
        finetune(place, "--out", place / "shards")
    assert sorted((place / "shards").iterdir()) == before


def test_the_normalisation_is_that_of_the_shards_else_of_the_init_else_audiosets(place, capfd):
    run = finetune(place, "--loss", "ce")
    assert float(read_metadata(run)["fbank_mean"]) == -5.081
    assert "fbank mean -5.081, std 4.485: those of AudioSet" in capfd.readouterr().err
    trained = {"fbank_mean": "-3.5", "fbank_std": "2.5"}
    save_model(place / "init.safetensors", CAVMAE(SMALL), trained)
    run = finetune(place, "--out", place / "as-init")
    assert read_metadata(place / "as-init").items() >= trained.items()
    assert "fbank mean -3.5, std 2.5: as" in capfd.readouterr().err
    update_dataset(place / "shards", fbank={"mean": -4.0, "std": 3.0})
    finetune(place, "--out", place / "measured")
    assert float(read_metadata(place / "measured")["fbank_std"]) == 3.0
    found = capfd.readouterr().err
    assert "fbank mean -4, std 3: measured on" in found
    assert "init.safetensors was trained with -3.5 and 2.5" in found


def test_an_init_that_lacks_a_part_of_the_encoder_is_refused(place):
    file = place / "init.safetensors"
    weights = load_file(file)
    del weights["blocks_u.0.attn.qkv.weight"]
    save_file(weights, file, read_metadata(file))
    with pytest.raises(UserError, match=r"1 missing \(blocks_u\.0\.attn\.qkv\.weight"):
        finetune(place)


def test_it_is_said_what_an_init_gave(place, capfd):
    finetune(place)
    weights = load_file(place / "init.safetensors")
    unused = sum(name.startswith(("decoder_", "mask_token")) for name in weights)
    loaded = f"{len(weights) - unused} tensors loaded, {unused} not used, 4 tensors of the model "
    assert f"{loaded}stay random" in capfd.readouterr().out


def test_a_model_size_beside_an_init_must_be_its_own(place):
    with pytest.raises(UserError, match=r"--model base: .*init\.safetensors is of another size"):
        finetune(place, "--model", "base")


def test_config_json_says_what_the_options_came_to(place):
    found = config_of(finetune(place))
    assert (found["model"], found["audio_frames"], found["criterion"]) == ("custom", 16, "ce")


@pytest.mark.parametrize(
    "flags",
    ["--lr -1", "--beta1 1.5", "--beta2 1", "--weight-decay -1", "--decay-rate -1", "--seed -1"],
)
def test_numbers_out_of_range_are_refused_by_name(place, flags):
    with pytest.raises(click.BadParameter, match="not in the range"):
        finetune(place, *flags.split())


def test_a_selection_without_labels_is_refused_though_the_set_has_some(tmp_path):
    write_tiny_shards(tmp_path / "shards", samples=10, unlabelled_split="test")
    save_model(tmp_path / "init.safetensors", CAVMAE(SMALL))
    with pytest.raises(UserError, match="its samples have no labels"):
        finetune(tmp_path, "--split", "test", "--val-split", "test")


def test_a_run_keeps_its_steps_whatever_they_are_made_of(place, capfd):
    """Steps of 8 samples: one batch, two, four."""
    finetune(place, "--batch-size", 8)
    finetune(place, "--epochs", 2, "--batch-size", 4, "--accumulate", 2)
    run = finetune(place, "--epochs", 3, "--batch-size", 2, "--accumulate", 4)
    assert json.loads((run / "result.json").read_text())["steps"] == 3
    assert config_of(run)["global_batch"] == 8
    assert "warning" not in capfd.readouterr().err


@pytest.mark.parametrize(
    ("flags", "advice"),
    [
        ("--batch-size 4", r"are 4\. Give --batch-size 4 --accumulate 2, or"),
        ("--batch-size 8 --accumulate 3", r"are 24\. Give --batch-size 8 --accumulate 1, or"),
        ("--batch-size 3 --accumulate 3", r"are 9\. Give --batch-size 2 --accumulate 4, or"),
    ],
)
def test_a_run_refuses_other_steps_and_says_what_to_type(place, flags, advice):
    finetune(place, "--batch-size", 8)
    with pytest.raises(UserError, match=f"each step of its run takes 8 samples; .*{advice}"):
        finetune(place, "--epochs", 2, *flags.split())


@pytest.mark.parametrize(
    ("total", "largest", "processes", "advice"),
    [
        (16, 8, 2, "Give --batch-size 8 --accumulate 1"),
        (16, 8, 1, "Give --batch-size 8 --accumulate 2"),
        (16, 48, 1, "Give --batch-size 16 --accumulate 1"),
        (16, 8, 3, "Start a number of processes that divides 16"),
    ],
)
def test_the_way_to_the_same_steps_fits_the_processes(total, largest, processes, advice):
    assert way_to_batch(total, largest, processes) == advice


def pretrain(place: Path, ranks: int, *flags: object) -> tuple[list[dict[str, str]], str]:
    """Train in one process or two; the log's rows of whole epochs, and what was said."""
    arguments = ["--shards", place / "shards", "--init", place / "patches.safetensors"]
    arguments += ["--workers", 0, "--device", "cpu", "--no-noise", "--mask-ratio", 0.5, *flags]
    words = ("pretrain", *arguments)
    result = run("cavmae", *words) if ranks == 1 else on_ranks(ranks, *words)
    assert result.returncode == 0, result.stderr
    with (flags[-1] / "log.csv").open() as file:
        rows = [row for row in csv.DictReader(file) if row["split"] == "train"]
    return rows, result.stderr


@pytest.mark.parametrize(
    ("first", "then", "contrasted"),
    [
        ((2, "--batch-size", 4), (1, "--batch-size", 8), (4, 8)),
        ((1, "--batch-size", 8), (2, "--batch-size", 2, "--accumulate", 2), (8, 2)),
        ((2, "--batch-size", 4), (1, "--batch-size", 4, "--accumulate", 2), None),
    ],
)
def test_another_number_of_ranks_takes_the_same_steps(place, tmp_path, first, then, contrasted):
    save_model(place / "patches.safetensors", CAVMAE(SMALL))
    undisturbed, _ = pretrain(place, *first, "--epochs", 2, "--out", tmp_path / "whole")
    pretrain(place, *first, "--epochs", 1, "--out", tmp_path / "changed")
    changed, said = pretrain(place, *then, "--epochs", 2, "--out", tmp_path / "changed")
    assert [row["step"] for row in changed] == [row["step"] for row in undisturbed] == ["1", "2"]
    for name in ("loss_mae_audio", "loss_mae_image"):  # masks differ, as each rank draws its own
        ours, theirs = (float(rows[-1][name]) for rows in (changed, undisturbed))
        assert ours == pytest.approx(theirs, rel=0.1)
    if contrasted is None:
        assert "warning" not in said
    else:
        before, now = contrasted
        assert f"contrasted with {now} clips at a time, before with {before}:" in said
