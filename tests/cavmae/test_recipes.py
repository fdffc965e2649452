"""The recipes say what the paper's runs were, in words the commands understand."""

from __future__ import annotations

import importlib
import re
from pathlib import Path

import click
import pytest

from avprep.errors import UserError
from avprep.option import options_of
from cavmae.checkpoints import save_model
from cavmae.cli import COMMANDS
from cavmae.model import CAVMAE
from cavmae.options import FIT, OBJECTIVES
from cavmae.recipes import Expected, read_recipe
from cavmae.train.optim import learning_rate
from cavmae.train.options import OptimOptions
from tests.cavmae.tiny_models import SMALL
from tests.cavmae.tiny_shards import write_tiny_shards
from tests.conftest import REPOSITORY, succeed

PIPELINES = REPOSITORY / "pipelines"
PROCESSES = 4  # the published runs' GPUs

# Epochs, clips per step, rate, epochs at the full rate, epochs between decays.
PRETRAINING = {
    "pretrain-base": (25, 48, 5e-5, 10, 5),
    "pretrain-scale-plus": (25, 120, 1e-4, 10, 5),
    "pretrain-scale-plus-plus": (25, 256, 2e-4, 10, 5),
    "pretrain-vggsound-from-mae": (25, 120, 1e-4, 10, 5),
    "pretrain-vggsound-from-audioset": (10, 120, 5e-5, 10, 5),
    **{f"pretrain-{name}": (25, 48, 5e-5, 10, 5) for name in OBJECTIVES if name != "cav-mae"},
}
# The same, then: head's ratio, balanced, loss, mode, epochs averaged, frames of the evaluation.
AUDIOSET_20K = (15, 36, 5e-5, 5, 1, 100, False, "bce")
AUDIOSET_2M = (10, 48, 1e-5, 2, 1, 50, True, "bce")
VGGSOUND = (10, 48, 1e-4, 2, 1, 10, True, "ce")
FINETUNING = {
    "finetune-audioset-20k": (*AUDIOSET_20K, "multimodal", (3, 15), "all"),
    "finetune-audioset-20k-audio": (*AUDIOSET_20K, "audioonly", (3, 15), "middle"),
    "finetune-audioset-20k-visual": (*AUDIOSET_20K, "videoonly", (3, 15), "all"),
    "finetune-audioset-2m": (*AUDIOSET_2M, "multimodal", (1, 10), "all"),
    "finetune-audioset-2m-audio": (*AUDIOSET_2M, "audioonly", (1, 10), "middle"),
    "finetune-audioset-2m-visual": (*AUDIOSET_2M, "videoonly", (1, 10), "all"),
    "finetune-vggsound": (*VGGSOUND, "multimodal", (3, 10), "all"),
    "finetune-vggsound-audio": (*VGGSOUND, "audioonly", (3, 10), "middle"),
    "finetune-vggsound-visual": (*VGGSOUND, "videoonly", (3, 10), "all"),
}
NEEDED = {
    "pretrain": ["--shards", "s", "--out", "o"],
    "finetune": ["--shards", "s", "--val-shards", "v", "--out", "o"],
    "eval": ["--shards", "s", "--checkpoint", "c"],
}


def parse(name: str, recipe: Path | str, *flags: str) -> dict:
    """What the command would work with."""
    module, _, attribute = COMMANDS[name].target.partition(":")
    command: click.Command = getattr(importlib.import_module(module), attribute)
    arguments = ["--config", str(recipe), *NEEDED[name], *flags]
    return command.make_context(name, arguments).params


def test_every_recipe_has_a_row_here_and_a_head_that_says_what_it_is():
    files = {path.stem: path.read_text() for path in PIPELINES.glob("*.toml")}
    assert files.keys() == {*PRETRAINING, *FINETUNING}
    for name, text in files.items():
        head = text.split("\n\n")[0]
        for word in ("torchrun", f"pipelines/{name}.toml", "Reproduces:", "Hardware:", "Time:"):
            assert word in head
        assert "Published result:" in head
        assert name in (PIPELINES.parent / "docs" / "recipes.md").read_text()
        if name in FINETUNING:  # the curve is the released log's, the paper's figure another's
            assert "--init runs/pretrain-scale-plus-plus " in head
            assert "starts from scale+" in head.replace("\n#  ", "")


# Seconds per epoch, and the last published value of what says most.
CURVES = {
    "pretrain-base": (77_600, "train", "loss", 0.857),
    "pretrain-scale-plus": None,
    "pretrain-scale-plus-plus": None,
    **{f"pretrain-{name}": None for name in OBJECTIVES if name != "cav-mae"},
    **{
        f"finetune-{data}-{modality}": None
        for data in ("audioset-2m", "vggsound")
        for modality in ("audio", "visual")
    },
    "pretrain-vggsound-from-mae": (1_421, "train", "loss", 0.914),
    "pretrain-vggsound-from-audioset": (1_499, "train", "loss", 0.902),
    "finetune-audioset-20k": (430, "validation", "map", 0.407),
    "finetune-audioset-20k-audio": (1_350, "validation", "map", 0.377),
    "finetune-audioset-20k-visual": (970, "validation", "map", 0.170),
    "finetune-audioset-2m": (86_100, "validation", "map", 0.497),
    "finetune-vggsound": (2_000, "validation", "accuracy", 0.650),
}


@pytest.mark.parametrize("name", CURVES)
def test_recipes_come_with_the_published_curve(name):
    expected = read_recipe(str(PIPELINES / f"{name}.toml")).expected
    if CURVES[name] is None:
        assert expected == Expected()
        return
    seconds, split, measure, last = CURVES[name]
    curve = expected.curves[split][measure]
    assert expected.seconds_per_epoch == seconds
    assert (min(curve), max(curve)) == (1, {**PRETRAINING, **FINETUNING}[name][0])
    assert curve[max(curve)] == last


def test_the_base_runs_losses_are_those_of_one_process_and_add_up():
    """The published log sums four GPUs; its contrastive column is weighted."""
    curves = read_recipe("pretrain-base").expected.curves["train"]
    parts = [curves[f"loss_{part}"][25] for part in ("mae_audio", "mae_image", "contrast")]
    assert parts[0] + parts[1] + 0.01 * parts[2] == pytest.approx(curves["loss"][25], abs=1e-3)


def test_values_between_published_epochs_are_shown_with_the_epochs_around_them():
    expected = Expected(None, {"train": {"loss": {2: 0.5, 10: 0.25}}})
    assert expected.beside("train", "loss", 2) == " (published 0.5)"
    assert expected.beside("train", "loss", 1) == " (published 0.5 at epoch 2)"
    assert expected.beside("train", "loss", 4) == " (published 0.5 at epoch 2, 0.25 at epoch 10)"
    assert expected.beside("train", "loss", 12) == " (published 0.25 at epoch 10)"
    assert expected.beside("validation", "loss", 2) == expected.beside("train", "map", 2) == ""


@pytest.mark.parametrize("command", ["pretrain", "finetune"])
def test_a_run_of_a_recipe_prints_its_values_beside_the_published_ones(tmp_path, command):
    write_tiny_shards(tmp_path / "shards", samples=8)
    save_model(tmp_path / "init.safetensors", CAVMAE(SMALL))
    (tmp_path / "x.toml").write_text(
        f"[{command}]\nepochs = 2\nbatch-size = 4\n[expected.train]\nloss = {{ 1 = 0.927 }}\n"
        "[expected.validation]\naccuracy = { 2 = 0.5 }\n"
    )
    words = [command, "--config", "x.toml", "--shards", "shards", "--out", "run", "--workers", "0"]
    words += ["--init", "init.safetensors", "--device", "cpu"]
    words += ["--val-shards", "shards"] if command == "finetune" else []
    said = succeed("cavmae", *words, cwd=tmp_path)
    first, second = [line for line in said.splitlines() if ": epoch " in line]
    assert re.search(r" loss [\d.]+ \(published 0.927\)  ", first)
    assert re.search(r" loss [\d.]+ \(published 0.927 at epoch 1\)", second)
    is_validated = command == "finetune"
    assert ("(published 0.5 at epoch 2)" in first) == ("(published 0.5)" in second) == is_validated
    assert "0.927" not in (tmp_path / "run" / "config.json").read_text()


@pytest.mark.parametrize(
    "text",
    ["loss = 3", "train = 3", "[expected.train.loss]\none = 3", "[expected.train]\nloss = [1]"],
)
def test_a_mistake_in_an_expected_curve_is_named(tmp_path, text):
    (tmp_path / "x.toml").write_text(f"[expected]\n{text}\n")
    with pytest.raises(UserError, match=r"x\.toml: \[expected\] holds seconds-per-epoch"):
        read_recipe(str(tmp_path / "x.toml"))


@pytest.mark.parametrize("name", PRETRAINING)
def test_pretraining_recipes_are_the_published_runs(name):
    values = parse("pretrain", PIPELINES / f"{name}.toml")
    epochs, batch, rate, start, step = PRETRAINING[name]
    assert (values["epochs"], values["lr"]) == (epochs, rate)
    assert values["batch_size"] * values["accumulate"] * PROCESSES == batch
    assert (values["decay_start"], values["decay_step"]) == (start, step)
    assert_published_optimiser(values)
    assert values["noise"]
    assert values["norm_pix_loss"]
    assert (values["mae_weight"], values["contrast_weight"]) == (1.0, 0.01)
    assert (values["mask_ratio"], values["mask_mode"]) == (0.75, "unstructured")
    assert (values["contrast_scope"], values["bidirectional"]) == ("per-rank", False)
    assert values["model"] == "base"
    assert values["objective"] in (None, name.removeprefix("pretrain-"))


@pytest.mark.parametrize("name", FINETUNING)
def test_finetuning_recipes_are_the_published_runs(name):
    values = parse("finetune", PIPELINES / f"{name}.toml")
    epochs, batch, rate, start, step, head, balanced, loss, mode, averaged, frames = FINETUNING[
        name
    ]
    assert (values["epochs"], values["lr"]) == (epochs, rate)
    assert values["batch_size"] * values["accumulate"] * PROCESSES == batch
    assert (values["decay_start"], values["decay_step"]) == (start, step)
    assert_published_optimiser(values)
    assert (values["head_lr_ratio"], values["balanced"]) == (head, balanced)
    assert (values["criterion"], values["mode"]) == (loss, mode)
    assert values["average_epochs"] == averaged
    assert (values["mixup"], values["label_smooth"], values["noise"]) == (0.5, 0.1, True)
    assert (values["freq_mask"], values["time_mask"]) == (48, 192)
    assert (values["freeze_base"], values["layer_decay"]) == (False, 1.0)
    evaluation = parse("eval", PIPELINES / f"{name}.toml")
    assert (evaluation["mode"], evaluation["frames"]) == (mode, frames)
    assert evaluation["criterion"] == loss


def assert_published_optimiser(values: dict) -> None:
    assert values["optimizer"] == "adam"
    assert (values["beta1"], values["beta2"]) == (0.95, 0.999)
    assert (values["weight_decay"], values["clip_grad"]) == (5e-7, 0)
    assert (values["schedule"], values["decay_rate"]) == ("multistep", 0.5)
    assert (values["warmup_epochs"], values["precision"]) == (0, "fp16")
    assert (values["ema"], values["parallel"]) == (0, "ddp")


def test_a_recipes_rate_halves_at_the_published_epochs():
    values = parse("finetune", PIPELINES / "finetune-vggsound.toml")
    options = OptimOptions(**{o.name: values[o.name] for o in options_of(OptimOptions)})
    rates = [learning_rate(options, epoch * 7, 7, 10) for epoch in range(10)]
    assert rates == [1e-4 * 0.5 ** max(0, epoch - 1) for epoch in range(10)]


def test_flags_win_over_the_recipe():
    recipe = PIPELINES / "finetune-audioset-2m.toml"
    flags = ["--lr", "3e-4", "--uniform", "--average-epochs", "2", "4", "--loss", "ce"]
    values = parse("finetune", recipe, *flags)
    assert (values["lr"], values["balanced"], values["criterion"]) == (3e-4, False, "ce")
    assert values["average_epochs"] == (2, 4)
    assert values["head_lr_ratio"] == 50


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[finetune]\nepoch = 3\n", r"\[finetune\] sets 'epoch', which is not an option.*'epochs'"),
        ("[fintune]\nepochs = 3\n", r"\[fintune\] is not a table of a recipe"),
        ("[finetune]\nbatch-size = 3\nbatch_size = 4\n", r"sets 'batch_size' twice"),
        ('[finetune]\nselect = "s3://bucket/x.csv"\n', r"--select s3://bucket/x.csv is a URL"),
        ("[finetune\n", "not TOML"),
    ],
)
def test_a_recipe_with_a_mistake_says_where(tmp_path, text, message):
    (tmp_path / "x.toml").write_text(text)
    with pytest.raises(UserError, match=message):
        parse("finetune", tmp_path / "x.toml")


def test_a_recipe_that_is_not_text_is_named(tmp_path):
    (tmp_path / "r.toml").write_bytes(b"[finetune]\nlr = \xff")
    with pytest.raises(UserError, match=r"r\.toml: not TOML \('utf-8' codec can't decode"):
        read_recipe(str(tmp_path / "r.toml"))


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ('precision = "int8"', "precision = 'int8': must be one of fp32, tf32, bf16, fp16"),
        ("epochs = 2.5", "epochs = 2.5: must be a whole number"),
        ("epochs = true", "epochs = True: must be a whole number"),
        ("balanced = 1", "balanced = 1: must be true or false"),
        ("mixup = 1.5", "mixup = 1.5: must be at most 1"),
        ("average-epochs = [3]", r"average-epochs = \[3\]: must be 2 values"),
        ('classes = "Dog"', "classes = 'Dog': must be a list of values"),
        ("audio-frames = 8", "audio-frames = 8: must be at least 16"),
    ],
)
def test_an_impossible_value_in_a_recipe_is_named_with_its_place(tmp_path, line, message):
    (tmp_path / "x.toml").write_text(f"[finetune]\n{line}\n")
    with pytest.raises(UserError, match=rf"x\.toml: \[finetune\] {message}\."):
        parse("finetune", tmp_path / "x.toml")


def test_rows_in_a_recipe_are_a_number_or_fit(tmp_path):
    for value, found in (("512", 512), ('"fit"', FIT)):
        (tmp_path / "x.toml").write_text(f"[pretrain]\naudio-frames = {value}\n")
        assert parse("pretrain", tmp_path / "x.toml")["audio_frames"] == found


def test_lists_in_a_recipe_are_options_given_several_times(tmp_path):
    (tmp_path / "x.toml").write_text('[finetune]\nclasses = ["Dog", "Cat"]\nsplit = ["train"]\n')
    values = parse("finetune", tmp_path / "x.toml")
    assert (values["classes"], values["splits"]) == (("Dog", "Cat"), ("train",))
