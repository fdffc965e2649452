"""`cavmae pretrain --val-shards`: what is measured on clips that are not trained on."""

from __future__ import annotations

import csv
import json
import math
from dataclasses import replace

import pytest
import torch
from click.testing import CliRunner
from safetensors.torch import load_file
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from avprep.errors import UserError
from cavmae.checkpoints import save_model
from cavmae.cli import group
from cavmae.data import LoaderOptions, ShardLoader, ShardSet
from cavmae.distributed import World
from cavmae.evaluation.held_out import HeldOutOptions, evaluate_pretraining, spread_subset
from cavmae.frontend import FrontEnd, FrontEndOptions
from cavmae.model import CAVMAE, PretrainOptions
from cavmae.model.cavmae import draw_noise
from tests.cavmae.tiny_models import SMALL
from tests.cavmae.tiny_shards import write_tiny_shards

ALONE = World(0, 1, torch.device("cpu"))
FRONT_END = FrontEndOptions(target_length=SMALL.audio_frames, noise=True)
MEASURED = [
    *("loss", "loss_mae_audio", "loss_mae_image", "loss_contrast", "contrast_accuracy"),
    *("audio_to_image_recall_at_10", "image_to_audio_recall_at_10", "knn_accuracy"),
]


@pytest.fixture(scope="module")
def shards(tmp_path_factory):
    folder = tmp_path_factory.mktemp("held-out") / "shards"
    write_tiny_shards(folder, samples=60)
    return folder


@pytest.fixture(scope="module")
def init(tmp_path_factory):
    torch.manual_seed(0)
    file = tmp_path_factory.mktemp("init") / "init.safetensors"
    save_model(file, CAVMAE(SMALL))
    return file


def run(*words: object) -> str:
    """What a command prints."""
    result = CliRunner().invoke(group, [str(word) for word in words], catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return result.stdout


def pretrain(shards, init, out, *flags: object, epochs: int = 2) -> str:
    """Train on the split `train`."""
    return run(
        *("pretrain", "--shards", shards, "--split", "train", "--init", init, "--out", out),
        *(
            "--epochs",
            epochs,
            "--batch-size",
            16,
            "--lr",
            "1e-3",
            "--workers",
            0,
            "--device",
            "cpu",
        ),
        *("--contrast-weight", 0.1, *flags),
    )


@pytest.fixture(scope="module")
def watched(shards, init, tmp_path_factory):
    """A run that is evaluated on the split `test`, and what it printed."""
    out = tmp_path_factory.mktemp("watched") / "run"
    return out, pretrain(shards, init, out, "--val-shards", shards, "--val-split", "test")


def rows_of(out, split: str) -> list[dict[str, float]]:
    with (out / "log.csv").open() as file:
        rows = [row for row in csv.DictReader(file) if row["split"] == split]
    return [{name: float(row[name]) for name in ("epoch", *MEASURED)} for row in rows]


def test_held_out_figures_are_logged_and_printed_from_the_start_on(watched):
    out, printed = watched
    rows = rows_of(out, "validation")
    assert [row["epoch"] for row in rows] == [0, 1, 2]
    events = EventAccumulator(str(out / "tensorboard"))
    events.Reload()
    for name in MEASURED:
        logged = [event.value for event in events.Scalars(f"validation/{name}")]
        assert logged == pytest.approx([row[name] for row in rows])
        assert f"{name} {rows[-1][name]:.4g}" in printed.splitlines()[-2].split("validation:")[1]
    assert printed.splitlines()[1].startswith("pretrain: before the first step  validation:  loss ")
    result = json.loads((out / "result.json").read_text())
    assert result["validation"]["knn_accuracy"] == rows[-1]["knn_accuracy"]


def test_retrieval_and_knn_are_what_the_commands_measure(watched, shards):
    out, _ = watched
    row = rows_of(out, "validation")[-1]
    where = ("--shards", shards, "--split", "test", "--checkpoint", out, "--workers", 0, "--json")
    found = json.loads(run("retrieve", *where))
    for direction in ("audio_to_image", "image_to_audio"):
        assert row[f"{direction}_recall_at_10"] == found[direction]["recall_at_10"]
    assert row["knn_accuracy"] == json.loads(run("knn", *where))["accuracy"]


def test_losses_are_those_of_the_untouched_inputs_under_fixed_masks(shards):
    torch.manual_seed(0)
    model = CAVMAE(SMALL)
    options = HeldOutOptions(
        loss=PretrainOptions(contrast_weight=0.1), contrasted=12, batch_size=12, workers=0
    )
    chosen = ShardSet.open(shards).select(splits=["test"])
    found = evaluate_pretraining(model, FrontEnd(FRONT_END), chosen, options, ALONE)
    loader = ShardLoader(chosen, LoaderOptions(12, workers=0, shuffle=False, frame="middle"))
    (batch,) = loader.epoch()
    inputs = FrontEnd(FRONT_END)(batch)
    noise = [
        draw_noise(SMALL, options.loss, 1, torch.Generator().manual_seed(n)) for n in range(12)
    ]
    audio, image = map(torch.cat, zip(*noise, strict=True))
    with torch.no_grad():
        out = model(inputs.audio, inputs.image, options.loss, noise_audio=audio, noise_image=image)
    for name in MEASURED[:5]:
        assert found[name] == pytest.approx(float(getattr(out, name)), abs=1e-6)
    smaller = replace(options, batch_size=5)
    again = evaluate_pretraining(model, FrontEnd(FRONT_END), chosen, smaller, ALONE)
    assert again == pytest.approx(found, abs=1e-6)


def test_contrast_is_among_as_many_clips_as_in_training(shards):
    torch.manual_seed(0)
    model = CAVMAE(SMALL)  # whose features are all alike
    chosen = ShardSet.open(shards).select(splits=["test"])
    for size, choices in ((1, 1), (4, 4), (100, 12)):
        options = HeldOutOptions(loss=PretrainOptions(), contrasted=size, batch_size=5, workers=0)
        found = evaluate_pretraining(model, FrontEnd(FRONT_END), chosen, options, ALONE)
        assert found["loss_contrast"] == pytest.approx(math.log(choices), abs=0.2)


def test_watching_a_run_changes_nothing_about_it(watched, shards, init, tmp_path):
    out, _ = watched
    pretrain(shards, init, tmp_path / "run")
    ours, theirs = (load_file(folder / "model.safetensors") for folder in (tmp_path / "run", out))
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)


def test_a_resumed_run_has_the_same_held_out_figures(watched, shards, init, tmp_path):
    out, _ = watched
    run = tmp_path / "run"
    pretrain(shards, init, run, "--val-shards", shards, "--val-split", "test", epochs=1)
    pretrain(shards, init, run, "--val-shards", shards, "--val-split", "test")
    assert rows_of(run, "validation") == rows_of(out, "validation")


def test_a_run_may_be_watched_from_where_it_is_resumed(shards, init, tmp_path):
    run = tmp_path / "run"
    pretrain(shards, init, run, epochs=1)
    pretrain(shards, init, run, "--val-shards", shards, "--val-split", "test")
    assert [row["epoch"] for row in rows_of(run, "validation")] == [2]


def test_without_labels_there_is_no_knn_and_without_contrast_no_contrastive_loss(tmp_path):
    write_tiny_shards(tmp_path / "shards", samples=20, unlabelled_split="test")
    chosen = ShardSet.open(tmp_path / "shards").select(splits=["test"])
    options = HeldOutOptions(
        loss=PretrainOptions(contrast_weight=0), contrasted=4, batch_size=4, workers=0
    )
    found = evaluate_pretraining(CAVMAE(SMALL), FrontEnd(FRONT_END), chosen, options, ALONE)
    assert "knn_accuracy" not in found
    assert not {"loss_contrast", "contrast_accuracy"} & found.keys()
    assert found["loss"] == pytest.approx(found["loss_mae_audio"] + found["loss_mae_image"])


def test_a_large_set_is_looked_at_in_evenly_spread_places(shards):
    whole = ShardSet.open(shards)
    few = spread_subset(whole, 4)
    assert [few.video_id(n) for n in range(4)] == [whole.video_id(n) for n in (0, 15, 30, 45)]
    for count in (0, 60, 100):
        assert len(spread_subset(whole, count)) == 60


def test_a_split_of_no_set_is_refused(shards, init, tmp_path):
    with pytest.raises(UserError, match="--val-split chooses clips of --val-shards, which is not"):
        pretrain(shards, init, tmp_path / "run", "--val-split", "test")
