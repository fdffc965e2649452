"""Training: the step is the plain one, a killed run loses nothing, ranks add up to one process."""

from __future__ import annotations

import copy
import csv
import itertools
import json
import math
import os
import re
import signal
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from avprep.errors import UserError, WorkFailed
from avprep.shards.format import read_dataset
from cavmae.data import LoaderOptions, ShardLoader, ShardSet
from cavmae.distributed import World, joined_world
from cavmae.frontend import FrontEnd, FrontEndOptions
from cavmae.model import CAVMAE, CAVMAEClassifier, ModelConfig, PretrainOptions
from cavmae.model.cavmae import contrastive_loss
from cavmae.train.checkpoint import list_checkpoints, load_state, save_checkpoint
from cavmae.train.loop import Position, Trainer, _mix_seed
from cavmae.train.optim import build_optimizer, freeze_base, learning_rate, lr_ratio
from cavmae.train.options import OptimOptions, TrainOptions, TransferOptions
from cavmae.train.records import TIMINGS
from cavmae.train.tasks import FinetuneTask, PretrainTask
from tests import forks
from tests.cavmae import naive_model
from tests.cavmae.tiny_models import SMALL
from tests.cavmae.tiny_shards import write_tiny_shards
from tests.conftest import succeed

CPU = World(0, 1, torch.device("cpu"))
FRONT_END = FrontEndOptions(target_length=16, noise=True, freq_mask=8, time_mask=4)


@pytest.fixture(scope="module")
def shards(demo_videos: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    from avprep.jobs import PoolOptions
    from avprep.manifest.sources.folder import folder_manifest
    from avprep.options import IsolationOptions, SampleOptions
    from avprep.shards.build import ShardSetOptions, build_shard_set

    out = tmp_path_factory.mktemp("train") / "shards"
    options = ShardSetOptions(SampleOptions(audio="wav"), IsolationOptions())
    build_shard_set(*folder_manifest(demo_videos / "train"), str(out), options, PoolOptions(2))
    assert read_dataset(out).samples == 16
    return out


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """16 small samples, for what is trained in this process."""
    folder = tmp_path_factory.mktemp("tiny") / "shards"
    write_tiny_shards(folder, samples=16)
    return folder


def pretrainer(
    shards: Path,
    folder: Path,
    epochs: int = 2,
    schedule: str = "cosine",
    batch_size: int = 5,
    after_epoch: Callable[[Position], dict[str, float]] | None = None,
    **options,
) -> Trainer:
    torch.manual_seed(0)
    model = CAVMAE(SMALL)
    loader = ShardLoader(
        ShardSet.open(shards), LoaderOptions(batch_size, workers=0, seed=3, longest=2500)
    )
    task = PretrainTask(PretrainOptions(contrast_weight=0.1))
    train = TrainOptions(
        epochs=epochs,
        batch_size=batch_size,
        seed=3,
        lr=1e-3,
        schedule=schedule,
        warmup_epochs=float(schedule == "cosine"),
        decay_start=2,
        decay_step=1,
        **options,
    )
    folder.mkdir(exist_ok=True)
    front_end = FrontEnd(FRONT_END)
    return Trainer(model, task, front_end, loader, CPU, train, folder, after_epoch)


@pytest.mark.parametrize("schedule", ["cosine", "multistep"])
def test_twenty_steps_equal_a_plain_loop(tiny, tmp_path, schedule):
    """The plain loop has its own model, losses, optimiser and schedule; batches and masks are
    handed to it."""
    epochs = 5  # 16 samples in batches of 5 make 4 steps an epoch
    trainer = pretrainer(tiny, tmp_path / "run", epochs, schedule=schedule, log_steps=1)
    torch.manual_seed(0)
    weights = {n: p.detach().clone() for n, p in trainer.model.state_dict().items()}
    trained = {n for n, p in trainer.model.named_parameters() if p.requires_grad}
    trainer.run()
    assert trainer.position.step == 20

    loader = ShardLoader(ShardSet.open(tiny), LoaderOptions(5, workers=0, seed=3))
    frontend = FrontEnd(FRONT_END)
    options = PretrainOptions(contrast_weight=0.1)
    first = {n: torch.zeros_like(weights[n]) for n in trained}
    second = {n: torch.zeros_like(weights[n]) for n in trained}
    logged = iter([row for row in trainer.position.rows if row["split"] == "epoch so far"])
    step = 0
    for epoch in range(epochs):
        total = count = 0
        for batch in loader.epoch(epoch):
            generator = torch.Generator().manual_seed(_mix_seed(3, step))
            inputs = frontend(batch, generator)
            noise = {
                "a": torch.rand(len(batch), SMALL.patches("audio"), generator=generator),
                "v": torch.rand(len(batch), SMALL.patches("image"), generator=generator),
            }
            for name in trained:
                weights[name].requires_grad_()
            losses = naive_model.forward(weights, SMALL, inputs.audio, inputs.image, noise, options)
            slopes = torch.autograd.grad(
                losses["loss"], [weights[n] for n in trained], allow_unused=True
            )
            rate = 1e-3
            if schedule == "multistep":
                rate *= 0.5 ** max(0, epoch - 1)
            elif step < 4:
                rate *= (step + 1) / 4
            else:
                rate *= 0.5 * (1 + math.cos(math.pi * (step - 4) / (20 - 4)))
            step += 1
            with torch.no_grad():
                for name, slope in zip(trained, slopes, strict=True):
                    if slope is None:
                        continue
                    slope = slope + 5e-7 * weights[name]
                    first[name] = 0.95 * first[name] + 0.05 * slope
                    second[name] = 0.999 * second[name] + 0.001 * slope**2
                    mean = first[name] / (1 - 0.95**step)
                    spread = (second[name] / (1 - 0.999**step)).sqrt() + 1e-8
                    weights[name] = weights[name] - rate * mean / spread
            total, count = total + losses["loss"].item() * len(batch), count + len(batch)
            row = next(logged)
            assert row["loss"] == pytest.approx(total / count, abs=1e-5)
            assert row["lr"] == pytest.approx(rate)
    assert step == 20


COMMAND = [
    *("finetune", "--model", "tiny", "--audio-frames", "96"),
    *("--batch-size", "3", "--epochs", "3", "--workers", "0", "--checkpoint-steps", "1"),
    *("--accumulate", "2", "--log-steps", "1", "--lr", "1e-3", "--device", "cpu"),
    *("--ema", "0.9", "--average-epochs", "2", "3"),
]


def finetune(shards: Path, out: Path) -> list[str]:
    return [*COMMAND, "--shards", str(shards), "--val-shards", str(shards), "--out", str(out)]


def rows(run: Path) -> list[dict[str, str]]:
    """The log without what says how fast the run was."""
    with (run / "log.csv").open() as file:
        return [
            {name: value for name, value in row.items() if name not in TIMINGS}
            for row in csv.DictReader(file)
        ]


@pytest.fixture(scope="module")
def undisturbed(shards, tmp_path_factory):
    out = tmp_path_factory.mktemp("runs") / "undisturbed"
    succeed("cavmae", *finetune(shards, out))
    return out


def assert_same_run(run: Path, expected: Path) -> None:
    for kind in ("model", "best", "ema", "average"):
        ours, theirs = (load_file(run / f"{kind}.safetensors") for run in (run, expected))
        assert all(torch.equal(ours[name], theirs[name]) for name in theirs)
    assert rows(run) == rows(expected)


def test_a_run_killed_at_random_steps_ends_bit_equal(shards, undisturbed, tmp_path):
    out = tmp_path / "killed"
    kills = 0
    for target in (1, 4, 8):
        process = forks.start(*finetune(shards, out))
        deadline = time.monotonic() + 600
        while process.is_alive() and time.monotonic() < deadline:
            saved = list_checkpoints(out / "checkpoints")
            if saved and int(saved[-1].name[5:]) >= target:
                process.kill()
                kills += 1
                break
            time.sleep(0.005)
        process.join()
    succeed("cavmae", *finetune(shards, out))
    assert kills >= 2
    assert_same_run(out, undisturbed)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_run_told_to_stop_saves_exits_130_and_goes_on(shards, undisturbed, tmp_path, number):
    out = tmp_path / "stopped"
    process = forks.start(*finetune(shards, out), errors=tmp_path / "errors")
    deadline = time.monotonic() + 600
    while not list_checkpoints(out / "checkpoints") and time.monotonic() < deadline:
        time.sleep(0.005)
    assert process.pid is not None
    os.kill(process.pid, number)
    process.join(600)
    errors = (tmp_path / "errors").read_text()
    assert process.exitcode == 130, errors
    assert "Traceback" not in errors
    succeed("cavmae", *finetune(shards, out))
    assert_same_run(out, undisturbed)


@pytest.mark.parametrize("is_lost", [True, False], ids=["workers died", "finished"])
def test_a_signal_in_validation_loses_nothing(tiny, tmp_path, is_lost):
    def validate(position: Position) -> dict[str, float]:
        if signalled:
            os.kill(os.getpid(), signal.SIGTERM)
            if is_lost:
                raise WorkFailed("a loading process died")
        return {"accuracy": position.epoch / 4}

    def figures(trainer: Trainer) -> list[dict[str, float]]:
        return [
            {name: value for name, value in row.items() if name not in TIMINGS}
            for row in trainer.position.rows
        ]

    signalled = False
    whole = pretrainer(tiny, tmp_path / "whole", after_epoch=validate)
    whole.run()
    signalled = True
    stopped = pretrainer(tiny, tmp_path / "stopped", after_epoch=validate)
    with pytest.raises(KeyboardInterrupt):
        stopped.run()
    signalled = False
    resumed = pretrainer(tiny, tmp_path / "stopped", after_epoch=validate)
    saved = resumed.resume()
    assert saved == tmp_path / "stopped" / "checkpoints" / "step-00000004"
    assert (resumed.position.epoch, resumed.position.samples) == ((0, 16) if is_lost else (1, 0))
    resumed.run()
    assert figures(resumed) == figures(whole)
    assert all(
        torch.equal(value, resumed.model.state_dict()[name])
        for name, value in whole.model.state_dict().items()
    )


@pytest.mark.parametrize("schedule", ["cosine", "multistep"])
def test_the_learning_rate_goes_on_where_it_was_with_other_steps_an_epoch(tiny, tmp_path, schedule):
    """Twice as many ranks do half as many steps; so does a batch of twice the size."""
    trained = pretrainer(tiny, tmp_path / "run", 2, schedule, batch_size=4)
    trained.run()
    resumed = pretrainer(tiny, tmp_path / "run", 4, schedule, batch_size=8, log_steps=1)
    assert resumed.resume() is not None
    resumed.run()
    rates = [row["lr"] for row in resumed.position.rows if row["split"] == "epoch so far"]
    undisturbed = pretrainer(tiny, tmp_path / "other", 4, schedule, batch_size=8, log_steps=1)
    undisturbed.run()
    expected = [row["lr"] for row in undisturbed.position.rows if row["split"] == "epoch so far"]
    assert rates == expected[-4:]


def test_a_stopped_run_shows_the_rows_that_its_checkpoint_holds(tiny, tmp_path):
    class Stops(FrontEnd):
        def forward(self, batch, generator=None):
            self.calls = getattr(self, "calls", 0) + 1
            if self.calls == 3:
                os.kill(os.getpid(), signal.SIGINT)
            return super().forward(batch, generator)

    trainer = pretrainer(tiny, tmp_path / "run", log_steps=1)
    trainer.frontend = Stops(FRONT_END)
    with pytest.raises(KeyboardInterrupt):
        trainer.run()
    assert [row["step"] for row in rows(tmp_path / "run")] == ["1", "2", "3"]
    events = EventAccumulator(str(tmp_path / "run" / "tensorboard"))
    events.Reload()
    assert [event.step for event in events.Scalars("epoch so far/loss")] == [1, 2, 3]


def test_two_ranks_have_the_losses_of_one_process_on_the_same_batch(shards, tmp_path):
    words = ["finetune", "--model", "tiny", "--audio-frames", "96", "--shards", shards]
    words += ["--val-shards", shards, "--epochs", "2", "--workers", "0", "--device", "cpu"]
    words += ["--no-noise", "--mixup", "0", "--freq-mask", "0", "--time-mask", "0", "--lr", "1e-4"]
    for ranks, batch in ((1, 8), (2, 4)):
        place = ("--batch-size", batch, "--out", tmp_path / f"{ranks}")
        result = forks.on_ranks(ranks, *words, *place)
        assert result.returncode == 0, result.stderr[-2000:]
        warnings = [line for line in result.stderr.splitlines() if "arning" in line]
        assert len(warnings) == 1  # PyTorch has none
        assert warnings[0].startswith("warning: random weights learn little in 4 steps")
    ours, theirs = rows(tmp_path / "2"), rows(tmp_path / "1")
    for split in ("train", "validation"):
        for two, one in zip(ours, theirs, strict=True):
            if two["split"] == one["split"] == split:
                name = "loss" if split == "train" else "map"
                assert float(two[name]) == pytest.approx(float(one[name]), abs=1e-5)


def contrast_over_ranks() -> None:
    """Ends without an error on a rank whose part of a batch has the whole one's loss and slopes."""
    torch.manual_seed(0)
    audio, image = torch.randn(5, 8), torch.randn(5, 8)
    whole = [audio.clone().requires_grad_(), image.clone().requires_grad_()]
    expected, _ = contrastive_loss(*whole)
    expected.backward()
    with joined_world("cpu") as world:
        mine = slice(0, 3) if world.rank == 0 else slice(3, 5)  # ranks may hold unequal parts
        own = [audio[mine].clone().requires_grad_(), image[mine].clone().requires_grad_()]
        loss, _ = contrastive_loss(*own, gather=partial(world.gather_rows, counts=[3, 2]))
        loss.backward()
        torch.testing.assert_close(loss, expected)
        for part, full in zip(own, whole, strict=True):
            # DDP averages over the ranks; every rank's loss is the whole loss.
            torch.testing.assert_close(part.grad / world.size, full.grad[mine])


def test_global_contrast_has_the_loss_and_gradients_of_one_batch():
    result = forks.on_ranks(2, call=contrast_over_ranks)
    assert result.returncode == 0, result.stderr[-2000:]


def test_checkpoints_are_kept_up_to_the_limit_and_whole(tmp_path):
    model = CAVMAE(SMALL)
    for step in (1, 2, 3):
        save_checkpoint(tmp_path, step, model, {"step": step}, keep=2)
    assert [path.name for path in list_checkpoints(tmp_path)] == ["step-00000002", "step-00000003"]
    assert not [path for path in tmp_path.iterdir() if path.name.startswith(".tmp")]


def test_a_checkpoint_that_cannot_be_written_leaves_the_old_one(tmp_path):
    model = CAVMAE(SMALL)
    save_checkpoint(tmp_path, 1, model, {"step": 1}, keep=2)
    with pytest.raises(Exception, match=r"pickle|local object"):
        save_checkpoint(tmp_path, 2, model, {"bad": lambda: None}, keep=2)
    assert [path.name for path in tmp_path.iterdir()] == ["step-00000001"]


CHANGES = ("os.mkdir", "os.rename", "os.remove", "os.rmdir", "shutil.rmtree")


def test_a_writer_killed_at_any_moment_leaves_a_whole_checkpoint_of_the_step(tmp_path):
    """It is killed when it has made, renamed or deleted its first file or folder, its second, …"""
    folder = tmp_path / "checkpoints"
    save_checkpoint(folder, 7, CAVMAE(SMALL), {"time": 1}, keep=1)
    times = []
    for survived in range(30):
        pid = os.fork()
        if not pid:
            count = itertools.count()

            def die(event: str, _: object, count=count, survived=survived) -> None:
                if event in CHANGES and next(count) >= survived:
                    os.kill(os.getpid(), signal.SIGKILL)

            sys.addaudithook(die)
            save_checkpoint(folder, 7, CAVMAE(SMALL), {"time": 2}, keep=1)
            os._exit(0)
        is_killed = os.waitpid(pid, 0)[1] != 0
        (only,) = list_checkpoints(folder)
        times.append(load_state(only, CAVMAE(SMALL))["time"])
        if not is_killed:
            break
        save_checkpoint(folder, 7, CAVMAE(SMALL), {"time": 1}, keep=1)
        assert [path.name for path in folder.iterdir()] == ["step-00000007"]
    assert not is_killed
    assert set(times) == {1, 2}


def test_a_checkpoint_with_an_empty_file_is_told_from_a_good_one(tmp_path):
    saved = save_checkpoint(tmp_path, 1, CAVMAE(SMALL), {"step": 1}, keep=1)
    (saved / "state.pt").write_bytes(b"")
    with pytest.raises(UserError, match=r"step-00000001: cannot resume from this checkpoint \("):
        load_state(saved, CAVMAE(SMALL))


def test_a_checkpoint_that_memory_is_too_small_for_is_not_called_damaged(tmp_path, monkeypatch):
    saved = save_checkpoint(tmp_path, 1, CAVMAE(SMALL), {"step": 1}, keep=1)
    monkeypatch.setattr(CAVMAE, "load_state_dict", lambda *_, **__: torch.empty(2**50))
    with pytest.raises(RuntimeError, match="can't allocate memory"):
        load_state(saved, CAVMAE(SMALL))


def test_a_loss_that_is_not_a_number_names_the_samples(tiny, tmp_path):
    trainer = pretrainer(tiny, tmp_path / "run")
    with torch.no_grad():
        trainer.model.norm.weight.fill_(float("nan"))
    with pytest.raises(WorkFailed, match=r"at step 1: .*loss.*samples clip"):
        trainer.run()
    report = json.loads((tmp_path / "run" / "not-finite.json").read_text())
    assert len(report["video_ids"]) == 5
    assert "loss" in report["not_finite"]


class NanFor(FrontEnd):
    """A front end that breaks one clip's spectrogram."""

    broken = "train_0"

    def forward(self, batch, generator=None):
        inputs = super().forward(batch, generator)
        for row, video_id in enumerate(batch.video_ids):
            if video_id.endswith(self.broken):
                inputs.audio[row, 3, 3] = float("nan")
        return inputs


def test_the_sample_whose_input_is_not_finite_is_named_alone(tiny, tmp_path):
    trainer = pretrainer(tiny, tmp_path / "run")
    name = ShardSet.open(tiny).entry(7).video_id
    trainer.frontend = NanFor(FRONT_END)
    trainer.frontend.broken = name
    with pytest.raises(WorkFailed, match=rf"samples {re.escape(name)}; all of them"):
        trainer.run()
    assert json.loads((tmp_path / "run" / "not-finite.json").read_text())["video_ids"] == [name]


def test_gradients_that_are_not_finite_end_the_run_before_a_checkpoint_is_written(tiny, tmp_path):
    trainer = pretrainer(tiny, tmp_path / "run", checkpoint_steps=1)
    explode = lambda gradient: gradient * math.inf  # noqa: E731
    trainer.model.norm.weight.register_hook(explode)
    with pytest.raises(WorkFailed, match="grad_norm"):
        trainer.run()
    assert not list_checkpoints(tmp_path / "run" / "checkpoints")


@pytest.mark.parametrize("bad", [1, 2, 3, 4, 5, 8])
def test_a_run_stops_within_one_step_of_a_loss_that_is_not_finite(tiny, tmp_path, bad):
    """Steps 1 to 4 are the first epoch's, 5 to 8 the second's."""
    trainer = pretrainer(tiny, tmp_path / "run", log_steps=1)
    breaks = trainer.model.norm.register_forward_hook(
        lambda *args: args[-1] * (math.nan if trainer.position.step == bad - 1 else 1)
    )
    with pytest.raises(WorkFailed, match=rf"not finite at step {bad}: .*loss_mae_audio"):
        trainer.run()
    breaks.remove()
    assert trainer.position.step in (bad, bad + 1)
    assert all(row["step"] < bad for row in trainer.position.rows)
    saved = list_checkpoints(tmp_path / "run" / "checkpoints")
    assert [path.name for path in saved] == ["step-00000004"] * (bad > 4)
    resumed = pretrainer(tiny, tmp_path / "run", log_steps=1)
    resumed.resume()
    resumed.run()
    undisturbed = pretrainer(tiny, tmp_path / "other", log_steps=1)
    undisturbed.run()
    assert [row["loss"] for row in resumed.position.rows] == [
        row["loss"] for row in undisturbed.position.rows
    ]


@pytest.mark.parametrize("minutes", [10.0, 1e-9])
def test_no_checkpoint_holds_a_step_whose_loss_is_not_finite(tiny, tmp_path, minutes):
    trainer = pretrainer(tiny, tmp_path / "run", checkpoint_steps=1, checkpoint_minutes=minutes)
    trainer.model.norm.register_forward_hook(
        lambda *args: args[-1] * (math.nan if trainer.position.step == 2 else 1)
    )
    with pytest.raises(WorkFailed, match="not finite at step 3"):
        trainer.run()
    saved = list_checkpoints(tmp_path / "run" / "checkpoints")
    assert [path.name for path in saved] == ["step-00000001", "step-00000002"]
    assert trainer.position.step == 3


@pytest.mark.parametrize(("epoch", "factor"), [(0, 1), (9, 1), (10, 0.5), (14, 0.5), (15, 0.25)])
def test_multistep_rate_is_the_published(epoch, factor):
    options = OptimOptions(lr=1.0, decay_start=10, decay_step=5)
    assert learning_rate(options, epoch * 7 + 3, 7, 25) == factor


def test_updates_are_those_of_the_published_optimiser():
    torch.manual_seed(0)
    ours = CAVMAE(SMALL)
    theirs = copy.deepcopy(ours)
    options = OptimOptions(lr=1e-3)
    optimizer = build_optimizer(ours, options)
    trained = [parameter for parameter in theirs.parameters() if parameter.requires_grad]
    published = torch.optim.Adam(
        trained, options.lr, betas=(0.95, 0.999), weight_decay=5e-7, fused=False
    )
    for _ in range(3):
        for own, other in zip(ours.parameters(), theirs.parameters(), strict=True):
            if own.requires_grad:
                own.grad = torch.randn_like(own)
                other.grad = own.grad.clone()
        optimizer.step()
        published.step()
    for own, other in zip(ours.parameters(), theirs.parameters(), strict=True):
        torch.testing.assert_close(own, other)


def test_head_gets_its_own_rate_and_frozen_bases_get_none():
    model = CAVMAEClassifier(SMALL, 3)
    optimizer = build_optimizer(model, OptimOptions(), TransferOptions(head_lr_ratio=50.0))
    base, head = optimizer.param_groups
    assert (base["lr_ratio"], head["lr_ratio"]) == (1.0, 50.0)
    assert {id(p) for p in head["params"]} == {id(p) for p in model.mlp_head.parameters()}
    freeze_base(model)
    (only,) = build_optimizer(model, OptimOptions()).param_groups
    assert {id(p) for p in only["params"]} == {id(p) for p in model.mlp_head.parameters()}


def test_layer_decay_slows_a_block_the_more_the_lower_it_is():
    config = ModelConfig.preset("tiny", depth=5, modality_depth=3)
    options = TransferOptions(layer_decay=0.5, head_lr_ratio=10.0)
    expected = {
        "mlp_head.1.weight": 10.0,
        "norm_a.weight": 1.0,
        "blocks_u.1.attn.qkv.weight": 0.5,
        "blocks_u.0.attn.qkv.weight": 0.5**2,
        "blocks_v.2.mlp.fc1.bias": 0.5**3,
        "blocks_a.0.norm1.weight": 0.5**5,
        "patch_embed_v.proj.weight": 0.5**6,
        "pos_embed_a": 0.5**6,
    }
    model = CAVMAEClassifier(config, 3)
    names = dict(model.named_parameters())
    for name, ratio in expected.items():
        assert name in names
        assert lr_ratio(name, config, options) == ratio
    groups = build_optimizer(model, OptimOptions(), options).param_groups
    assert sorted(group["lr_ratio"] for group in groups) == sorted({*expected.values(), 0.5**4})
    assert sum(len(group["params"]) for group in groups) == sum(
        parameter.requires_grad for parameter in names.values()
    )


def test_soft_targets_are_learned_by_both_criteria():
    torch.manual_seed(0)
    model = CAVMAEClassifier(SMALL, 3)
    audio, image = torch.randn(4, 16, 128), torch.randn(4, 3, 16, 16)
    targets = torch.eye(3)[[0, 1, 2, 0]] * 0.9
    from cavmae.frontend import Inputs

    inputs = Inputs(audio, image, targets)
    logits = model(audio, image)
    expected = {
        "ce": -(targets * logits.log_softmax(1)).sum(1).mean(),
        "bce": -(
            targets * logits.sigmoid().log() + (1 - targets) * (1 - logits.sigmoid()).log()
        ).mean(),
    }
    for criterion, value in expected.items():
        task = FinetuneTask("multimodal", criterion)
        loss = task.loss(model, inputs, torch.Generator()).loss
        torch.testing.assert_close(loss, value)


def test_result_json_says_what_was_reached(undisturbed):
    result = json.loads((undisturbed / "result.json").read_text())
    assert result["epochs"] == 3
    assert result["best_accuracy"] == max(
        float(row["accuracy"]) for row in rows(undisturbed) if row["split"] == "validation"
    )
