"""What a run shows while it goes: its losses, its speed, the time left."""

from __future__ import annotations

import csv
import io
import sys
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from cavmae.cli import training
from cavmae.cli.training import ProgressLine, describe_step
from cavmae.distributed import World
from cavmae.train import records
from cavmae.train.curves import curve_figure, draw_curves
from cavmae.train.records import TIMINGS, Meter
from tests.cavmae.test_train import pretrainer
from tests.cavmae.tiny_shards import write_tiny_shards

ALONE = World(0, 1, torch.device("cpu"))
FACTS = {
    "loss": 2.5,
    "contrast_accuracy": 0.25,
    "lr": 1e-4,
    "samples_per_second": 812.3,
    "data_wait": 0.031,
    "gpu_gb": 41.26,
}


def test_a_line_says_losses_rate_speed_waiting_and_memory():
    assert describe_step(FACTS) == (
        "loss 2.5, contrast accuracy 0.25, lr 0.0001, 812.3 samples/s, data wait 3%, GPU 41.3 GB"
    )


def test_a_log_file_gets_a_line_now_and_then_with_the_time_left(capsys, monkeypatch):
    monkeypatch.setattr(training, "_LINE_SECONDS", 0.0)
    line = ProgressLine(total=10, initial=6, name="pretrain", out=sys.stdout)
    line._began -= 60  # one step took a minute, three are left
    line.update(FACTS)
    out = capsys.readouterr().out
    assert out.startswith("pretrain: step 7/10, 03:00 left, loss 2.5, contrast accuracy 0.25")


def test_the_speed_is_that_of_the_last_steps_and_waiting_is_its_share(monkeypatch):
    now = 0.0
    monkeypatch.setattr(records, "time", SimpleNamespace(monotonic=lambda: now))
    meter = Meter(torch.device("cpu"))
    for _ in range(3):
        with meter.waiting():
            now += 1.0
        now += 3.0
        meter.step(10)
    assert meter.facts() == {"samples_per_second": 2.5, "data_wait": 0.25}


def test_a_run_leaves_the_same_figures_as_csv_and_tensorboard_events(tmp_path):
    write_tiny_shards(tmp_path / "shards", samples=16)
    trainer = pretrainer(tmp_path / "shards", tmp_path / "run", log_steps=2)
    trainer.run()
    with (tmp_path / "run" / "log.csv").open() as file:
        rows = list(csv.DictReader(file))
    shown = ("loss", "loss_mae_audio", "loss_mae_image", "loss_contrast", "contrast_accuracy")
    inside = [row for row in rows if row["split"] == "epoch so far"]
    assert [int(row["step"]) for row in inside] == [2, 4, 6, 8]
    for name in (*shown, "lr", "grad_norm", "samples_per_second", "data_wait"):
        assert all(float(row[name]) >= 0 for row in inside)
    events = EventAccumulator(str(tmp_path / "run" / "tensorboard"))
    events.Reload()
    for name in shown:
        (*_, last) = events.Scalars(f"train/{name}")
        assert abs(last.value - float(rows[-1][name])) < 1e-6
        assert last.step == int(rows[-1]["step"]) == 8
    with Image.open(tmp_path / "run" / "curves.png") as picture:
        width, height = picture.size
    assert 800 <= width <= 1600
    assert 0.5 < width / height < 2


def run_rows(metrics: tuple[str, ...], epochs: int = 3) -> list[dict]:
    """A log in which every value is the step."""
    rows = []
    for epoch in range(epochs):
        for step in range(10 * epoch + 5, 10 * epoch + 15, 5):
            row = {"step": step, "epoch": epoch, "split": "epoch so far", "lr": 1e-4}
            rows.append({**row, **dict.fromkeys(metrics, step), "samples_per_second": 1.0})
        end = {"step": 10 * epoch + 10, "epoch": epoch + 1}
        rows.append({**end, "split": "train", **dict.fromkeys(metrics, end["step"]), "lr": 1e-5})
        rows.append({**end, "split": "validation", "accuracy": epoch / 4})
    return rows


def test_the_picture_shows_training_within_epochs_validation_and_rate():
    figure = curve_figure(run_rows(("grad_norm", "train_accuracy", "loss")), TIMINGS)
    panels = {axes.get_title(): axes.lines for axes in figure.axes}
    titles = ["loss", "train accuracy", "accuracy", "grad norm", "learning rate"]
    assert list(panels) == titles
    within, epochs = panels["loss"]
    assert within.get_label() == "training, mean of the epoch so far"
    assert within.get_xdata().tolist() == [5, 10, 10, 15, 20, 20, 25, 30, 30]
    assert np.isnan(within.get_ydata()).tolist() == [False, False, True] * 3  # ends each epoch
    assert epochs.get_xydata().tolist() == [[10, 10], [20, 20], [30, 30]]
    (validation,) = panels["accuracy"]
    assert validation.get_ydata().tolist() == [0, 0.25, 0.5]
    (rate,) = panels["learning rate"]
    assert rate.get_xydata().tolist()[:3] == [[5, 1e-4], [10, 1e-4], [10, 1e-5]]
    assert len(figure.legends[0].get_texts()) == 3


@pytest.mark.parametrize("panels", [0, 1, 2, 4, 7, 12])
def test_the_picture_has_the_proportions_of_a_page_however_many_panels(panels):
    rows = run_rows(tuple(f"metric_{number}" for number in range(panels)))
    rows = [row for row in rows if row["split"] == "train"] if panels else []
    width, height = Image.open(io.BytesIO(draw_curves(rows, ["lr"]))).size
    assert 400 <= width <= 1300
    assert 0.7 <= width / height <= 2.7


def test_a_loss_that_falls_far_is_drawn_so_that_its_end_can_be_seen():
    rows = [{"step": n, "epoch": n, "split": "train", "loss": v} for n, v in enumerate((0.7, 0.01))]
    (axes,) = curve_figure(rows).axes
    assert axes.get_yscale() == "log"
    rows.append({"step": 2, "epoch": 2, "split": "train", "loss": 0.0})
    (axes,) = curve_figure(rows).axes
    assert axes.get_yscale() == "linear"
