"""A dry run: real steps, true numbers, the largest batch that fits, and nothing written."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import fields, replace
from pathlib import Path

import pytest
import torch
from torch.optim.optimizer import register_optimizer_step_pre_hook

from avprep.errors import WorkFailed
from cavmae.checkpoints import save_model
from cavmae.cli.training import describe_dry_run
from cavmae.data import Batch, LoaderOptions, ShardLoader, ShardSet
from cavmae.frontend import FrontEnd, FrontEndOptions
from cavmae.model import CAVMAE, CAVMAEClassifier
from cavmae.train.dry_run import (
    DryRun,
    does_not_fit,
    dry_run,
    largest_that_fits,
    made_up_batch,
    search_batch,
)
from cavmae.train.loop import Trainer
from cavmae.train.options import TrainOptions
from cavmae.train.tasks import FinetuneTask
from tests.cavmae.test_train import CPU, pretrainer
from tests.cavmae.tiny_models import SMALL
from tests.cavmae.tiny_shards import write_tiny_shards
from tests.conftest import run, succeed
from tests.forks import on_ranks

FOUND = DryRun(
    device="NVIDIA H100 80GB HBM3",
    processes=1,
    batch_size=48,
    accumulate=1,
    precision="bf16",
    epochs=25,
    steps=1000,
    hours=7.5,
    samples_per_second=1777.7,
    data_wait=0.014,
    memory_gb=12.3,
    device_gb=85.0,
    largest_batch=400,
    too_large_batch=424,
)


@pytest.fixture(scope="module")
def shards(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("dry") / "shards"
    write_tiny_shards(folder, samples=16)
    return folder


def finetuner(shards: Path, folder: Path, mixup: float) -> Trainer:
    model = CAVMAEClassifier.from_pretraining(SMALL, 4)
    options = LoaderOptions(5, workers=0, mixup=mixup, longest=2000)
    return Trainer(
        model,
        FinetuneTask("multimodal", "bce"),
        FrontEnd(FrontEndOptions(target_length=16, label_smooth=0.1)),
        ShardLoader(ShardSet.open(shards), options),
        CPU,
        TrainOptions(batch_size=5),
        folder,
    )


@contextmanager
def memory_of(model: torch.nn.Module, samples: int, place: str) -> Iterator[list[int]]:
    """A stand-in for a GPU's memory: from here on a step with more samples runs out of it.

    Args:
        model: whose steps count.
        samples: that have room.
        place: where in a step it happens.

    Yields:
        The sizes of all batches that the model was given.
    """
    sizes: list[int] = []

    def allocate() -> None:
        if sizes and sizes[-1] > samples:
            raise torch.OutOfMemoryError(f"CUDA out of memory: room for {samples} samples")

    def note(_: object, inputs: tuple[torch.Tensor, ...]) -> None:
        sizes.append(len(inputs[0]))

    handles = [model.register_forward_pre_hook(note)]
    if place == "forward":
        handles.append(model.norm.register_forward_hook(lambda *_: allocate()))
    elif place == "backward":
        handles.append(model.norm.weight.register_hook(lambda _: allocate()))
    else:
        handles.append(register_optimizer_step_pre_hook(lambda *_: allocate()))
    try:
        yield sizes
    finally:
        for handle in handles:
            handle.remove()


@pytest.mark.parametrize("start", [1, 5, 48])
def test_the_search_ends_at_the_edge_of_what_fits(start):
    for room in range(200):
        tried: list[int] = []

        def fits(size: int, room: int = room, tried: list[int] = tried) -> bool:
            tried.append(size)
            return size <= room

        fitting, too_large = largest_that_fits(fits, start, 128)
        assert fitting <= room
        assert fitting in {*tried, 0}
        assert len(tried) == len(set(tried)) < 14
        if room >= 128:
            assert (fitting, too_large) == (128, None)
        else:
            assert too_large is not None
            assert too_large in tried
            assert room < too_large <= fitting + max(1, fitting // 16)


@pytest.mark.parametrize("precision", ["fp32", "fp16"])
@pytest.mark.parametrize("place", ["forward", "backward", "optimizer"])
def test_the_largest_batch_is_found_by_steps_that_run_out_of_memory(
    shards, tmp_path, place, precision
):
    trainer = pretrainer(shards, tmp_path / "run", precision=precision)
    with memory_of(trainer.model, 11, place) as sizes:
        fitting, too_large = search_batch(trainer)
    assert (fitting, too_large) == (11, 12)
    assert sizes[:4] == [5, 5, 5, 10]
    assert trainer.optimizer.state == {}
    assert not any(parameter.grad is not None for parameter in trainer.model.parameters())


def test_a_batch_that_does_not_fit_is_searched_downwards(shards, tmp_path):
    trainer = pretrainer(shards, tmp_path / "run", batch_size=24, accumulate=2)
    with memory_of(trainer.model, 9, "backward"):
        assert search_batch(trainer) == (9, 10)
    with memory_of(trainer.model, 0, "forward"):
        assert search_batch(trainer) == (0, 1)


@pytest.mark.parametrize("mixup", [0.0, 1.0])
def test_made_up_batches_are_as_large_as_read_ones_can_be(tmp_path, mixup):
    write_tiny_shards(tmp_path / "shards", samples=16, lengths=(2100, 2500))
    trainer = finetuner(tmp_path / "shards", tmp_path, mixup)
    read = next(trainer.loader.epoch())
    made_up = made_up_batch(trainer.loader, 5)
    assert len(made_up) == len(read) == 5
    for one, other in ((made_up, read), (made_up.partners, read.partners)):
        assert (one is None) == (other is None)
        for field in fields(one) if one is not None else ():
            mine, theirs = getattr(one, field.name), getattr(other, field.name)
            if isinstance(theirs, torch.Tensor):
                assert (mine.dtype, mine.shape) == (theirs.dtype, theirs.shape), field.name
    with memory_of(trainer.model, 8, "forward"):
        assert search_batch(trainer) == (8, 9)


@pytest.mark.parametrize("accumulate", [1, 3])
def test_a_dry_run_tells_what_the_whole_run_would_take(shards, tmp_path, accumulate):
    run = tmp_path / "run"
    trainer = pretrainer(shards, run, epochs=2, accumulate=accumulate)
    seen = []
    trainer.model.register_forward_hook(lambda *_: seen.append(1))
    found = dry_run(trainer, seconds=0.0)
    assert found is not None
    assert len(seen) == 7 * accumulate  # 3 + 1 + 3 steps
    assert found.steps == 2 * math.ceil(4 / accumulate)
    assert (found.epochs, found.batch_size, found.accumulate) == (2, 5, accumulate)
    assert found.hours == pytest.approx(2 * 16 / found.samples_per_second / 3600)
    assert 0 < found.data_wait < 1
    assert 0.05 < found.memory_gb < 50
    assert (found.device, found.processes, found.device_gb) == ("cpu", 1, None)
    assert (found.largest_batch, found.too_large_batch) == (None, None)
    assert not any(run.iterdir())


def test_measured_steps_are_at_most_a_hundred(shards, tmp_path):
    trainer = pretrainer(shards, tmp_path / "run")
    dry_run(trainer, seconds=600.0)
    assert trainer.position.step == 104


def test_what_was_loaded_ahead_does_not_count(shards, tmp_path):
    """Loading processes fill their queues during the first steps, which are slow."""
    trainer = pretrainer(shards, tmp_path / "run")
    trainer.options = replace(trainer.options, workers=3)
    plain, read = trainer.loader.epoch, []

    def epoch(number: int) -> Iterator[Batch]:
        for batch in plain(number):
            read.append(batch)
            yield batch

    trainer.loader.epoch = epoch
    dry_run(trainer, seconds=0.0)
    assert len(read) == (3 + 1) + 2 * 3 + (1 + 1) + (3 + 1)  # each time one batch ahead


@pytest.mark.parametrize("fault", ["not finite", "unreadable", "too large"])
def test_what_would_end_the_run_ends_the_dry_run_and_nothing_is_written(tmp_path, fault):
    write_tiny_shards(tmp_path / "shards", samples=16)
    if fault == "unreadable":
        for shard in (tmp_path / "shards").glob("*.tar"):
            os.truncate(shard, 0)
    trainer = pretrainer(tmp_path / "shards", tmp_path / "run")
    if fault == "not finite":
        torch.nn.init.constant_(trainer.model.norm.weight, math.nan)
    room = 4 if fault == "too large" else 5
    said = {
        "not finite": "not finite within .* steps. Lower --lr, .* names the samples",
        "unreadable": "samples could not be read",
        "too large": "--batch-size 5 does not fit into the GPU's memory",
    }
    with (
        memory_of(trainer.model, room, "forward"),
        pytest.raises(WorkFailed, match=said[fault]),
    ):
        dry_run(trainer, seconds=0.0)
    assert not any((tmp_path / "run").iterdir())


@pytest.mark.parametrize(
    ("largest", "said"),
    [
        (None, "start the dry run as one process"),
        (0, "nor does a single sample"),
        (
            50,
            "50 does. Give --batch-size 48 --accumulate 4 for the same number of samples per step",
        ),
    ],
)
def test_a_batch_that_does_not_fit_is_refused_with_what_to_type(largest, said):
    message = does_not_fit(TrainOptions(batch_size=96, accumulate=2), largest)
    assert message.startswith("--batch-size 96 does not fit into the GPU's memory")
    assert said in message


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({}, "largest batch  400 fits, 424 does not"),
        ({"too_large_batch": None}, "largest batch  400 fits; no larger one was tried"),
        ({"largest_batch": None, "processes": 2}, "not searched with several processes"),
        ({"largest_batch": None, "device_gb": None}, "not searched on a CPU"),
        ({}, "time           7.5 hours without"),
        ({"hours": 0.25}, "time           15.0 minutes without"),
        ({}, "memory         12.3 GB at the peak, of 85.0 GB per GPU"),
        ({}, "data wait      1% of the time"),
        ({"accumulate": 4}, "batch          48 samples × 4 per step per process"),
        ({"processes": 8}, "device         NVIDIA H100 80GB HBM3, 8 processes, bf16"),
    ],
)
def test_what_was_found_is_said_in_lines(changes, said):
    assert said in describe_dry_run(replace(FOUND, **changes))


@pytest.fixture
def place(tmp_path, shards):
    """A folder with `shards` and `init.safetensors`."""
    (tmp_path / "shards").symlink_to(shards)
    save_model(tmp_path / "init.safetensors", CAVMAE(SMALL))
    return tmp_path


def test_a_dry_run_beside_a_run_leaves_it_as_it_is(place):
    words = ["pretrain", "--shards", "shards", "--init", "init.safetensors", "--out", "run"]
    succeed("cavmae", *words, "--batch-size", "8", "--epochs", "1", cwd=place)
    before = {path: path.read_bytes() for path in place.rglob("*") if path.is_file()}
    # Options that the run could not be resumed with are no matter: it is not resumed.
    flags = ["--batch-size", "5", "--epochs", "2", "--dry-run", "--json"]
    found = json.loads(succeed("cavmae", *words, *flags, cwd=place))
    assert found.keys() == {field.name for field in fields(DryRun)}
    assert (found["steps"], found["epochs"], found["batch_size"]) == (8, 2, 5)
    assert {path: path.read_bytes() for path in place.rglob("*") if path.is_file()} == before


def test_ranks_measure_together_and_one_speaks(place):
    words = "finetune --shards shards --val-shards shards --init init.safetensors --out run"
    flags = "--batch-size 4 --accumulate 2 --precision bf16 --epochs 1 --dry-run --parallel fsdp"
    said = on_ranks(2, *words.split(), *flags.split(), cwd=place).stdout
    assert said.count("dry run: nothing was written") == 1
    assert "device         cpu, 2 processes, bf16\n" in said
    assert "batch          4 samples × 2 per step per process\n" in said
    assert "steps          1 in 1 epoch\n" in said
    assert not (place / "run").exists()


def test_json_of_a_run_that_is_not_dry_is_refused(place):
    result = run("cavmae", "pretrain", "--shards", "shards", "--out", "run", "--json", cwd=place)
    assert result.returncode == 2
    assert "--json: give --dry-run too" in result.stderr
    assert not (place / "run").exists()
