"""What a run shows while it goes: its losses, its speed, the time left."""

from __future__ import annotations

import csv
from types import SimpleNamespace

import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from cavmae.distributed import World
from cavmae.train import records
from cavmae.train.records import Meter, ProgressLine, describe
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
    assert describe(FACTS) == (
        "loss 2.5, contrast accuracy 0.25, lr 0.0001, 812.3 samples/s, data wait 3%, GPU 41.3 GB"
    )


def test_a_log_file_gets_a_line_now_and_then_with_the_time_left(capsys, monkeypatch):
    monkeypatch.setattr(records, "_LINE_SECONDS", 0.0)
    line = ProgressLine(total=10, initial=6, name="pretrain", shown=True)
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
    picture = (tmp_path / "run" / "curves.png").read_bytes()
    assert picture.startswith(b"\x89PNG")
