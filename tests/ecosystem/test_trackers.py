"""Real trackers hold the rows of log.csv, also of a run that was interrupted and resumed."""

from __future__ import annotations

import csv
import importlib.util
import json
import math
import sqlite3
import struct
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch

import cavmae
from cavmae import PretrainRun
from cavmae.checkpoints import save_model
from cavmae.model import CAVMAE
from tests.cavmae.tiny_models import SMALL
from tests.cavmae.tiny_shards import write_tiny_shards

Rows = dict[tuple[int, str], float]  # by step and "split/name"


def logged(run: Path) -> Rows:
    """The figures of log.csv."""
    with (run / "log.csv").open() as file:
        return {
            (int(row["step"]), f"{row['split']}/{name}"): float(value)
            for row in csv.DictReader(file)
            for name, value in row.items()
            if value and name not in ("step", "split")
        }


def train(shards: Path, out: Path, tracker: str, epochs: int) -> None:
    torch.manual_seed(0)
    save_model(out.parent / "init.safetensors", CAVMAE(SMALL))
    options = {"init": out.parent / "init.safetensors", "batch_size": 8, "workers": 0}
    warnings: list[str] = []

    def hear(event: cavmae.Event) -> None:
        if isinstance(event, cavmae.Note) and event.is_warning:
            warnings.append(event.text)

    cavmae.pretrain(
        PretrainRun(
            shards=str(shards), out=out, epochs=epochs, track=(tracker,), log_steps=1, **options
        ),
        hear,
    )
    assert not [text for text in warnings if tracker in text]


def check(tmp_path: Path, tracker: str, read: Callable[[Path], Rows]) -> None:
    """Train an epoch, resume for a second one, and compare."""
    write_tiny_shards(tmp_path / "shards", samples=16)
    run = tmp_path / "run"
    train(tmp_path / "shards", run, tracker, 1)
    train(tmp_path / "shards", run, tracker, 2)
    wanted, found = logged(run), read(run)
    assert found.keys() == wanted.keys()
    assert all(math.isclose(found[key], wanted[key], rel_tol=1e-5) for key in wanted)


def test_mlflow_with_its_file_store(tmp_path, monkeypatch):
    pytest.importorskip("mlflow")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", (tmp_path / "store").as_uri())
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")  # which newer versions ask for

    def read(run: Path) -> Rows:
        from mlflow import MlflowClient

        client = MlflowClient()
        experiment = client.get_experiment_by_name("cavmae")
        (found,) = client.search_runs([experiment.experiment_id])
        assert found.info.status == "FINISHED"
        assert found.data.params["epochs"] == "1"  # as it was begun
        return {
            (metric.step, name): metric.value
            for name in found.data.metrics
            for metric in client.get_metric_history(found.info.run_id, name)
        }

    check(tmp_path, "mlflow", read)


def test_wandb_offline(tmp_path, monkeypatch):
    pytest.importorskip("wandb")
    monkeypatch.setenv("WANDB_MODE", "offline")

    def read(run: Path) -> Rows:
        from wandb.proto.wandb_internal_pb2 import Record

        found: Rows = {}
        files = sorted(run.glob("wandb/offline-run-*/run-*.wandb"))
        assert len({file.stem for file in files}) == 1  # one run, begun twice
        for file in files:
            for data in log_records(file.read_bytes()):
                record = Record.FromString(data)
                items = {
                    item.key or "/".join(item.nested_key): item.value_json
                    for item in record.history.item
                }
                for name, value in items.items():
                    if "/" in name:
                        found[int(items["step"]), name] = float(value)
        return found

    check(tmp_path, "wandb", read)


def log_records(data: bytes) -> Iterator[bytes]:
    """The records of an offline run's file: LevelDB's log format behind a head of 7 bytes."""
    place, parts = 7, b""
    while place + 7 <= len(data):
        left = 32768 - place % 32768
        if left < 7:
            place += left
            continue
        size, kind = struct.unpack_from("<HB", data, place + 4)
        parts += data[place + 7 : place + 7 + size]
        place += 7 + size
        if kind in (1, 4):  # whole, or the last of several parts
            yield parts
            parts = b""


def test_trackio(tmp_path, monkeypatch):
    if importlib.util.find_spec("trackio") is None:
        pytest.skip("needs trackio")
    monkeypatch.setenv("TRACKIO_DIR", str(tmp_path / "trackio"))  # read when it is imported

    def read(run: Path) -> Rows:
        (file,) = (tmp_path / "trackio").glob("cavmae*.db")
        found: Rows = {}
        with sqlite3.connect(file) as database:
            for step, metrics in database.execute("select step, metrics from metrics"):
                found |= {(step, name): value for name, value in json.loads(metrics).items()}
        return found

    check(tmp_path, "trackio", read)
