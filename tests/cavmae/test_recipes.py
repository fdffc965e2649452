"""The recipes say what the paper's runs were, in words the commands understand."""

from __future__ import annotations

import importlib
from pathlib import Path

import click
import pytest

from avprep.errors import UserError
from cavmae.cli import COMMANDS
from cavmae.options import pick
from cavmae.train.optim import learning_rate
from cavmae.train.options import OptimOptions, TrainOptions
from tests.conftest import REPOSITORY

PIPELINES = REPOSITORY / "pipelines"
PROCESSES = 4  # the published runs' GPUs

# Epochs, clips a step, rate, epochs at the full rate, epochs between decays.
PRETRAINING = {
    "pretrain-base": (25, 48, 5e-5, 10, 5),
    "pretrain-scale-plus": (25, 120, 1e-4, 10, 5),
    "pretrain-scale-plus-plus": (25, 256, 2e-4, 10, 5),
    "pretrain-vggsound-from-mae": (25, 120, 1e-4, 10, 5),
    "pretrain-vggsound-from-audioset": (10, 120, 5e-5, 10, 5),
}
# The same, then: head's ratio, balanced, loss, mode, epochs averaged, frames of the evaluation.
AUDIOSET_20K = (15, 36, 5e-5, 5, 1, 100, False, "bce")
FINETUNING = {
    "finetune-audioset-20k": (*AUDIOSET_20K, "multimodal", (3, 15), "all"),
    "finetune-audioset-20k-audio": (*AUDIOSET_20K, "audioonly", (3, 15), "middle"),
    "finetune-audioset-20k-visual": (*AUDIOSET_20K, "videoonly", (3, 15), "all"),
    "finetune-audioset-2m": (10, 48, 1e-5, 2, 1, 50, True, "bce", "multimodal", (1, 10), "all"),
    "finetune-vggsound": (10, 48, 1e-4, 2, 1, 10, True, "ce", "multimodal", (3, 10), "all"),
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


def assert_published_optimiser(values: dict) -> None:
    assert values["optimizer"] == "adam"
    assert (values["beta1"], values["beta2"]) == (0.95, 0.999)
    assert (values["weight_decay"], values["clip_grad"]) == (5e-7, 0)
    assert (values["schedule"], values["decay_rate"]) == ("multistep", 0.5)
    assert (values["warmup_epochs"], values["precision"]) == (0, "fp16")
    assert (values["ema"], pick(TrainOptions, values).parallel) == (0, "ddp")


def test_a_recipes_rate_halves_at_the_published_epochs():
    values = parse("finetune", PIPELINES / "finetune-vggsound.toml")
    options = pick(OptimOptions, values)
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
        ("[fintune]\nepochs = 3\n", r"\[fintune\] is no table of a recipe"),
        ("[finetune]\nbatch-size = 3\nbatch_size = 4\n", r"sets 'batch_size' twice"),
        ('[finetune]\ninit = "s3://bucket/run"\n', r"--init s3://bucket/run is a URL"),
        ("[finetune\n", "not TOML"),
    ],
)
def test_a_recipe_with_a_mistake_says_where(tmp_path, text, message):
    (tmp_path / "x.toml").write_text(text)
    with pytest.raises(UserError, match=message):
        parse("finetune", tmp_path / "x.toml")


def test_an_impossible_value_in_a_recipe_is_refused_like_a_flag(tmp_path):
    (tmp_path / "x.toml").write_text('[finetune]\nprecision = "int8"\n')
    with pytest.raises(click.BadParameter, match="int8"):
        parse("finetune", tmp_path / "x.toml")


def test_lists_in_a_recipe_are_options_given_several_times(tmp_path):
    (tmp_path / "x.toml").write_text('[finetune]\nclasses = ["Dog", "Cat"]\nsplit = ["train"]\n')
    values = parse("finetune", tmp_path / "x.toml")
    assert (values["classes"], values["splits"]) == (("Dog", "Cat"), ("train",))
