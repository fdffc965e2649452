"""What is said before a run's first step: its length, and what speaks against it."""

from __future__ import annotations

import re
import sys

import pytest
from click.testing import CliRunner

from avprep.errors import UserError
from cavmae.checkpoints import save_model
from cavmae.cli import group
from cavmae.cli.training import ProgressLine, describe_outlook
from cavmae.data import ShardSet
from cavmae.model import CAVMAE, ModelConfig
from cavmae.train.options import FinetuneRun, ModelOptions, PretrainRun
from cavmae.train.outlook import FEWEST_STEPS, fitting_rows, outlook
from cavmae.train.start import fitted, starting_config
from tests.cavmae.tiny_models import SMALL
from tests.cavmae.tiny_shards import write_tiny_shards

SECOND = 16000
TINY = ModelConfig.preset("tiny")  # 1024 rows, patches of 32


@pytest.fixture(scope="module")
def shards(tmp_path_factory) -> ShardSet:
    """20 clips of 3 s, but for one of 8 s."""
    folder = tmp_path_factory.mktemp("outlook") / "shards"
    write_tiny_shards(folder, samples=20, lengths=(3 * SECOND, 3 * SECOND + 1))
    shards = ShardSet.open(folder)
    shards.table.num_samples[7] = 8 * SECOND
    return shards


def lines(shards: ShardSet, config: ModelConfig = TINY, steps: int = 2, done: int = 0, **values):
    is_finetuned = "mode" in values
    values = {"shards": "s", "out": "o", **values}
    options = FinetuneRun(val_shards="v", **values) if is_finetuned else PretrainRun(**values)
    return list(describe_outlook(outlook(options, shards, config, steps, done, held_out=0)))


def test_short_clips_in_a_long_model_are_named_with_the_rows_that_fit(shards):
    first, padding, steps = lines(shards)
    assert first == "20 clips, 50 steps in all, 2 per epoch"
    # 19 clips of 298 rows and one of 798
    share = 1 - (19 * 298 + 798) / 20 / 1024
    assert padding.startswith(f"warning: {share:.0%} of the audio input is padding. ")
    assert "--audio-frames 320 (or fit)" in padding
    assert steps.startswith("warning: random weights learn little in 50 steps. Give --epochs 125 ")
    assert FEWEST_STEPS == 250


def test_a_run_that_can_learn_is_not_warned_of(shards):
    fitting = ModelConfig.preset("tiny", audio_frames=320)
    assert lines(shards, fitting, epochs=125) == ["20 clips, 250 steps in all, 2 per epoch"]
    assert lines(shards, fitting, steps=12) == ["20 clips, 300 steps in all, 12 per epoch"]


@pytest.mark.parametrize("values", [{"init": "some.safetensors"}, {"lr": 0.0}])
def test_trained_weights_and_a_rate_of_zero_need_no_steps(shards, values):
    assert not any("steps. Give" in line for line in lines(shards, **values))


def test_a_model_whose_size_is_given_by_its_weights_gets_no_other_one_suggested(shards):
    assert lines(shards, init="some.safetensors")[1] == "68% of the audio input is padding"


def test_images_alone_have_no_padding(shards):
    assert not any("padding" in line for line in lines(shards, mode="videoonly"))


def test_a_resumed_run_says_how_much_is_done(shards):
    assert lines(shards, done=30)[0] == "20 clips, 50 steps in all, 2 per epoch; 30 done"


def test_rows_that_fit_are_whole_patches_and_at_most_the_models(shards, tmp_path):
    assert fitting_rows(shards, ModelConfig()) == 304
    assert fitting_rows(shards, ModelConfig(audio_frames=160)) == 160
    write_tiny_shards(tmp_path / "shards", samples=4, lengths=(10, 11))
    assert fitting_rows(ShardSet.open(tmp_path / "shards"), TINY) == 32


def test_lengths_of_old_indexes_are_the_sets_mean(tmp_path):
    write_tiny_shards(tmp_path / "shards", samples=4, lengths=(SECOND, SECOND + 1))
    shards = ShardSet.open(tmp_path / "shards")
    shards.table.num_samples[:] = 0
    assert shards.audio_lengths.tolist() == [SECOND] * 4


def test_the_time_left_is_told_once_after_a_few_steps(capsys):
    line = ProgressLine(total=20, initial=2, name="pretrain", out=sys.stdout)
    line.update({})
    line._first -= 5 * 3723.4 / 12  # the other steps take as long as the twelve that are left
    for _ in range(9):
        line.update({})
    assert capsys.readouterr().err == "about 1:02:03 left (h:mm:ss)\n"


def test_rows_may_be_those_that_fit_unless_trained_weights_decide(shards, tmp_path):
    options = ModelOptions(model="tiny", audio_frames="fit")
    assert fitted(starting_config(options), options, shards).audio_frames == 320
    save_model(tmp_path / "init.safetensors", CAVMAE(SMALL))
    options = ModelOptions(init=tmp_path / "init.safetensors", audio_frames="fit")
    config = fitted(starting_config(options), options, shards)
    assert config.audio_frames == SMALL.audio_frames
    for given in (304, "304"):
        assert ModelOptions(audio_frames=given).audio_frames == 304
    for wrong in (8, "8", "fits", -1):
        with pytest.raises(UserError, match=f"--audio-frames '?{wrong}'?: "):
            ModelOptions(audio_frames=wrong)


@pytest.mark.parametrize("command", ["pretrain", "finetune"])
def test_the_commands_tell_before_the_first_step(tmp_path, command):
    shards = str(tmp_path / "shards")
    write_tiny_shards(tmp_path / "shards", samples=20)
    save_model(tmp_path / "init.safetensors", CAVMAE(SMALL))
    result = CliRunner().invoke(
        group,
        [
            *(command, "--shards", shards, "--val-shards", shards, "--out", str(tmp_path / "run")),
            *("--init", str(tmp_path / "init.safetensors"), "--epochs", "2", "--batch-size", "4"),
            *("--workers", "0", "--device", "cpu"),
        ],
    )
    assert result.exit_code == 0, result.output
    said = result.stderr.splitlines()
    assert "20 clips, 10 steps in all, 5 per epoch" in said
    assert ("20 held-out clips, evaluated after each epoch" in said) == (command == "pretrain")
    assert re.fullmatch(r"about \d:\d\d:\d\d left \(h:mm:ss\)", said[-1])
