"""Each command that uses a trained model is a function with a result, which prints nothing."""

from __future__ import annotations

import json

import click
import numpy as np
import pytest
import torch
from click.testing import CliRunner

import cavmae
from avprep.cli.flags import Flag
from avprep.errors import UserError
from avprep.progress import Progress
from cavmae.checkpoints import save_model
from cavmae.checkpoints.usage import labels_metadata
from cavmae.cli import COMMANDS, group
from cavmae.model import CAVMAE, CAVMAEClassifier
from tests.cavmae.tiny_models import TINY
from tests.cavmae.tiny_shards import CLASSES, write_tiny_shards

NAMES = ("eval", "retrieve", "inpaint", "embed", "knn", "predict", "export")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A shard set of nine clips, a pretrained model and a classifier."""
    folder = tmp_path_factory.mktemp("api")
    write_tiny_shards(folder / "shards", samples=9)
    torch.manual_seed(3)
    facts = {"criterion": "bce", "mode": "multimodal", "norm_pix_loss": "1"}
    save_model(folder / "pretrained.safetensors", CAVMAE(TINY), facts)
    save_model(
        folder / "classifier.safetensors",
        CAVMAEClassifier(TINY, 4),
        {**facts, **labels_metadata(CLASSES)},
    )
    return folder


class Listener:
    """Hears of progress, and checks that it makes sense."""

    def __init__(self) -> None:
        self.heard: list[Progress] = []

    def __call__(self, progress: Progress) -> None:
        if self.heard:
            assert progress.done >= self.heard[-1].done
            assert progress.total == self.heard[-1].total
        self.heard.append(progress)

    def ends(self) -> tuple[int, int, int | None]:
        return self.heard[0].done, self.heard[-1].done, self.heard[-1].total


def given(folder, model, **more):
    options = {"shards": str(folder / "shards"), "checkpoint": folder / f"{model}.safetensors"}
    return {**options, "workers": 0, "batch_size": 4, "device": "cpu", **more}


def test_functions_return_results_say_how_far_they_are_and_print_nothing(folder, tmp_path, capfd):
    heard = Listener()
    evaluated = cavmae.evaluate(
        cavmae.EvaluateOptions(**given(folder, "classifier", frames="each")), on_progress=heard
    )
    assert (evaluated.clips, len(evaluated.each_frame), len(evaluated.scores.classes)) == (9, 3, 4)
    assert evaluated.notes == ()
    assert heard.ends() == (0, 9, 9)

    retrieved = cavmae.retrieve(
        cavmae.RetrieveOptions(**given(folder, "pretrained", splits=["train"])), heard := Listener()
    )
    assert (retrieved.clips, len(retrieved.audio_to_image.better)) == (7, 7)
    assert heard.ends() == (0, 7, 7)

    voted = cavmae.knn(
        cavmae.KnnOptions(
            **given(folder, "pretrained", splits=["train"]),
            val_shards=str(folder / "shards"),
            val_splits=["test"],
        ),
        heard := Listener(),
    )
    assert (voted.clips, voted.known_clips, voted.leave_one_out) == (2, 7, False)
    assert heard.ends() == (0, 9, 9)

    options = cavmae.EmbedOptions(**given(folder, "pretrained"), out=tmp_path / "f.npz")
    embedded = cavmae.embed(options, heard := Listener())
    assert (embedded.clips, embedded.was_complete) == (9, False)
    assert heard.ends() == (0, 9, 9)
    again = cavmae.embed(options)
    assert (again.clips, again.clips_unreadable, again.was_complete) == (9, 0, True)
    with np.load(options.out) as arrays:
        assert len(arrays["audio"]) == 9

    drawn = cavmae.inpaint(
        cavmae.InpaintOptions(
            shards=str(folder / "shards"),
            checkpoint=folder / "pretrained.safetensors",
            out=tmp_path / "drawn",
            clips=2,
            device="cpu",
        ),
        heard := Listener(),
    )
    assert [clip.video_id for clip in drawn.clips] == ["clip.0", "clip.1"]
    assert all((drawn.folder / clip.file).is_file() for clip in drawn.clips)
    assert drawn.norm_pix_loss
    assert heard.ends() == (0, 2, 2)

    exported = cavmae.export(folder / "classifier.safetensors", tmp_path / "c.pt2")
    assert (exported.inputs, exported.classes) == (("waveform", "lengths", "frames"), 4)
    assert exported.largest_difference <= 1e-5
    assert exported.file.is_file()
    assert capfd.readouterr() == ("", "")


def test_a_command_prints_what_its_function_returns(folder):
    result = cavmae.evaluate(cavmae.EvaluateOptions(**given(folder, "classifier")))
    words = ["eval", "--shards", folder / "shards", "--checkpoint", result.checkpoint, "--json"]
    words += ["--workers", 0, "--batch-size", 4, "--device", "cpu"]
    printed = CliRunner().invoke(group, list(map(str, words)))
    assert printed.exit_code == 0, printed.exception
    facts = json.loads(printed.stdout)
    assert (facts["map"], facts["clips"]) == (result.scores.map, result.clips)


def test_what_is_assumed_is_a_warning_before_the_work_and_a_note_of_the_result(folder, tmp_path):
    torch.manual_seed(0)
    save_model(tmp_path / "silent.safetensors", CAVMAEClassifier(TINY, 4))
    options = cavmae.EvaluateOptions(
        **given(folder, "classifier", checkpoint=tmp_path / "silent.safetensors")
    )
    with pytest.warns(UserWarning, match="stores no mode; multimodal is assumed") as caught:
        result = cavmae.evaluate(options)
    assert {str(one.message) for one in caught} >= set(result.notes)
    told: list[str] = []
    cavmae.evaluate(options, on_note=told.append)
    assert tuple(told) == result.notes


@pytest.mark.parametrize(
    ("made", "said"),
    [
        (lambda: cavmae.EvaluateOptions(shards="s", checkpoint="c", frames="some"), "--frames"),
        (lambda: cavmae.RetrieveOptions(shards="s", checkpoint="c", frames="each"), "--frames"),
        (lambda: cavmae.KnnOptions(shards="s", checkpoint="c", neighbours=0), "--neighbours"),
        (lambda: cavmae.PredictOptions(checkpoint="c", start=2.0, end=1.0), "--end 1 is not after"),
        (lambda: cavmae.ExportOptions(waveform="int8"), "--waveform"),
    ],
)
def test_values_that_a_flag_refuses_are_refused_in_python(made, said):
    with pytest.raises(UserError, match=said):
        made()


@pytest.mark.parametrize(
    "options",
    [
        cavmae.EvaluateOptions, cavmae.RetrieveOptions, cavmae.InpaintOptions,
        cavmae.EmbedOptions, cavmae.KnnOptions, cavmae.PredictOptions, cavmae.ExportOptions,
    ],
)  # fmt: skip
def test_a_misspelt_name_fails(options):
    with pytest.raises(TypeError, match="chekpoint"):
        options(chekpoint="c")


@pytest.mark.parametrize("name", NAMES)
def test_every_flag_is_made_from_a_statement(name):
    params = [one for one in COMMANDS[name].load().params if isinstance(one, click.Option)]
    assert {one.opts[0] for one in params if not isinstance(one, Flag)} <= {"--config"}
