"""How precisely a model computes, how well it uses a GPU, and the trace of some steps."""

from __future__ import annotations

import json
import time

import pytest
import torch

from cavmae.cli.training import describe_step
from cavmae.model import CAVMAE
from cavmae.train.events import Event, Note
from cavmae.train.loop import Trainer
from cavmae.train.optim import build_optimizer
from cavmae.train.options import OptimOptions
from cavmae.train.parallel import load_whole_optimizer, whole
from cavmae.train.records import Meter
from cavmae.train.utilisation import measured_flops
from tests.cavmae.test_train import pretrainer
from tests.cavmae.tiny_models import SMALL
from tests.cavmae.tiny_shards import write_tiny_shards

CPU = torch.device("cpu")


@pytest.fixture
def shards(tmp_path):
    write_tiny_shards(tmp_path / "shards", samples=16)
    return tmp_path / "shards"


@pytest.mark.parametrize(("precision", "expected"), [("fp32", "highest"), ("tf32", "high")])
def test_float32_products_are_exact_unless_tf32_is_asked_for(shards, tmp_path, precision, expected):
    trainer = pretrainer(shards, tmp_path / "run", epochs=1, precision=precision)
    seen = set()
    note = lambda *_: seen.add(torch.get_float32_matmul_precision())  # noqa: E731
    trainer.model.norm.register_forward_hook(note)
    trainer.model.norm.weight.register_hook(note)
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("medium")
    try:
        trainer.run()
        assert torch.get_float32_matmul_precision() == "medium"
    finally:
        torch.set_float32_matmul_precision(before)
    assert seen == {expected}


@pytest.mark.parametrize("precision", ["fp32", "tf32", "bf16"])
def test_the_speed_of_a_matrix_product_is_what_it_takes(precision):
    size = 256
    began = time.perf_counter()
    flops = measured_flops(CPU, precision, size)
    seconds = time.perf_counter() - began
    assert flops > 2 * size**3 * 10 / seconds  # it did ten of them in less than the whole time
    assert flops < 1e14


def test_mfu_is_the_share_of_the_time_that_the_products_alone_would_take():
    meter = Meter(CPU, ideal_seconds=0.001)
    time.sleep(0.02)
    meter.step(10)
    facts = meter.facts()
    assert facts["mfu"] == pytest.approx(0.001 * facts["samples_per_second"])
    assert 0 < facts["mfu"] <= 0.5
    assert describe_step({"mfu": 0.514}) == "MFU 51%"
    meter = Meter(CPU)
    meter.step(10)
    assert "mfu" not in meter.facts()


def notes_of(trainer: Trainer) -> list[str]:
    """What a run says in words."""
    told: list[Event] = []
    trainer.tell = told.append
    trainer.run()
    return [event.text for event in told if isinstance(event, Note)]


def test_a_trace_holds_the_steps_asked_for(shards, tmp_path):
    run = tmp_path / "run"
    said = notes_of(pretrainer(shards, run, epochs=2, profile=2))  # of 8 steps
    events = json.loads((run / "trace.json").read_text())["traceEvents"]
    steps = sorted({e["name"] for e in events if e["name"].startswith("ProfilerStep#")})
    assert steps == ["ProfilerStep#5", "ProfilerStep#6"]
    assert any(event["name"] == "aten::addmm" for event in events)
    assert any("trace.json: a trace of 2 steps" in text for text in said)
    assert not list(run.glob(".trace*"))


def test_a_run_too_short_for_a_trace_says_so(shards, tmp_path):
    said = notes_of(pretrainer(shards, tmp_path / "run", epochs=1, profile=2))
    assert not (tmp_path / "run" / "trace.json").exists()
    assert said == ["--profile 2: no trace, since fewer than 6 steps were left to do"]


def test_a_run_without_profile_leaves_no_trace(shards, tmp_path):
    assert notes_of(pretrainer(shards, tmp_path / "run", epochs=1)) == []
    assert not (tmp_path / "run" / "trace.json").exists()


def test_an_optimiser_computes_in_its_own_way_whatever_its_state_is_from():
    model = CAVMAE(SMALL)
    other = torch.optim.Adam(p for p in model.parameters() if p.requires_grad)
    for group in other.param_groups:
        group["lr_ratio"] = 1.0
    for parameter in model.parameters():
        parameter.grad = torch.ones_like(parameter)
    other.step()
    own = build_optimizer(model, OptimOptions())
    load_whole_optimizer(own, whole(other.state_dict(), keep=True))
    assert [group["fused"] for group in own.param_groups] == [True]
    ours, theirs = own.state_dict()["state"], other.state_dict()["state"]
    assert all(torch.equal(ours[n]["exp_avg"], theirs[n]["exp_avg"]) for n in theirs)
