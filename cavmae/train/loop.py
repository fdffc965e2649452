"""The training loop, the same for pretraining and finetuning.

A step is: read a batch, make inputs on the device, loss, gradients, optimiser. Everything random
about it follows from (seed, step), and everything else is in the checkpoint, so a run that was
killed goes on as if it had not been.
"""

from __future__ import annotations

import math
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from avprep.errors import WorkFailed
from cavmae.data import Batch, ShardLoader
from cavmae.frontend import FrontEnd
from cavmae.model import CAVMAE, CAVMAEClassifier
from cavmae.train.checkpoint import list_checkpoints, load_state, save_checkpoint
from cavmae.train.distributed import World
from cavmae.train.optim import build_optimizer, learning_rate, set_learning_rate
from cavmae.train.options import OptimOptions, TrainOptions
from cavmae.train.records import ProgressLine, RunRecords
from cavmae.train.tasks import Task

_AUTOCAST = {"bf16": torch.bfloat16, "fp16": torch.float16}


@dataclass
class Position:
    """How far a run is; saved with every checkpoint."""

    step: int = 0  # optimiser steps done
    epoch: int = 0
    samples: int = 0  # read in this epoch, over all ranks
    sums: dict[str, float] = field(default_factory=dict)  # of this epoch's losses, by samples
    rows: list[dict[str, Any]] = field(default_factory=list)  # of the log


class Trainer:
    """Trains a model on the batches of a loader, for a task."""

    def __init__(
        self,
        model: CAVMAE | CAVMAEClassifier,
        task: Task,
        frontend: FrontEnd,
        loader: ShardLoader,
        world: World,
        options: TrainOptions,
        optim: OptimOptions,
        folder: Path,
        after_epoch: Callable[[Position], dict[str, float]] | None = None,
    ) -> None:
        """Args:
        model: on the world's device.
        task: gives the loss.
        frontend: on the same device.
        loader: of this rank.
        world: this process among its peers.
        options: of the loop.
        optim: of the optimiser.
        folder: the run directory; exists.
        after_epoch: called on every rank at the end of each epoch; what it returns is logged as
            validation.
        """
        self.model = model
        self.task = task
        self.frontend = frontend
        self.loader = loader
        self.world = world
        self.options = options
        self.optim = optim
        self.folder = folder
        self.after_epoch = after_epoch
        self.position = Position()
        self.optimizer = build_optimizer(model, optim)
        self.scaler = torch.amp.GradScaler(world.device.type, enabled=options.precision == "fp16")
        self._wrapped: nn.Module = model
        if world.size > 1:
            self._wrapped = DistributedDataParallel(model, find_unused_parameters=True)

    @property
    def steps_per_epoch(self) -> int:
        """Optimiser steps of an epoch."""
        return math.ceil(self.loader.steps_per_epoch / self.options.accumulate)

    def resume(self) -> Path | None:
        """Go on from the newest whole checkpoint of the run, if there is one."""
        checkpoints = list_checkpoints(self.folder / "checkpoints")
        if not checkpoints:
            return None
        state = load_state(checkpoints[-1], self.model)
        self.optimizer.load_state_dict(state["optimizer"])
        self.scaler.load_state_dict(state["scaler"])
        self.position = Position(**state["position"])
        return checkpoints[-1]

    def run(self) -> None:
        """Train to the last epoch.

        Raises:
            KeyboardInterrupt: SIGINT or SIGTERM came; a checkpoint has been written.
            WorkFailed: the loss is not a number, or too many samples are unreadable.
        """
        position, options = self.position, self.options
        records = RunRecords(self.folder, position.rows) if self.world.is_main else None
        progress = ProgressLine(
            options.epochs * self.steps_per_epoch, position.step, self.task.name, self.world.is_main
        )
        with _stop_requests() as stop:
            while position.epoch < options.epochs:
                self._run_epoch(progress, records, stop)
                self._finish_epoch(progress, records)
        progress.close()
        if records is not None:
            records.publish(final=True)
            records.close()

    def _run_epoch(
        self, progress: ProgressLine, records: RunRecords | None, stop: list[int]
    ) -> None:
        position = self.position
        self._wrapped.train()
        saved, waited, began = time.monotonic(), 0.0, time.monotonic()
        group: list[Batch] = []
        batches = self.loader.epoch(position.epoch, position.samples)
        while True:
            before = time.monotonic()
            try:
                batch = next(batches, None)
            except WorkFailed:
                if not stop:
                    raise
                # A signal to the whole process group ended the loading processes as well.
                self._save()
                raise KeyboardInterrupt from None
            waited += time.monotonic() - before
            if batch is not None:
                group.append(batch)
            if group and (batch is None or len(group) == self.options.accumulate):
                facts = self._step(group)
                group = []
                share = waited / max(time.monotonic() - began, 1e-9)
                progress.update(f"{facts} data-wait {share:.0%}")
                self._maybe_log(records)
                interrupted = self.world.any(bool(stop)) if self.world.size > 1 else bool(stop)
                if interrupted or self._is_due(saved):
                    self._save()
                    saved = time.monotonic()
                if interrupted:
                    raise KeyboardInterrupt
            if batch is None:
                return

    def _step(self, group: list[Batch]) -> str:
        """One optimiser step over one or more batches; returns facts to show."""
        position, world = self.position, self.world
        rate = learning_rate(self.optim, position.step, self.steps_per_epoch, self.options.epochs)
        set_learning_rate(self.optimizer, rate)
        generator = torch.Generator(world.device)
        dtype = _AUTOCAST.get(self.options.precision)
        shown = ""
        for number, batch in enumerate(group):
            seed = (position.step * self.options.accumulate + number) * world.size + world.rank
            generator.manual_seed(_mix_seed(self.options.seed, seed))
            batch = batch.to(world.device)
            inputs = self.frontend(batch, generator)
            with torch.autocast(world.device.type, dtype, enabled=dtype is not None):
                result = self.task.loss(self._wrapped, inputs, generator, world)
            self._check(result.loss, batch)
            self.scaler.scale(result.loss / len(group)).backward()
            self._add_to_sums(batch, {"loss": result.loss.detach(), **result.parts})
            position.samples += batch.planned
            shown = f"loss {result.loss.item():.4f} lr {rate:.2e}"
        if self.optim.clip_grad:
            self.scaler.unscale_(self.optimizer)
            nn.utils.clip_grad_norm_(self.model.parameters(), self.optim.clip_grad)
        self.scaler.step(self.optimizer)
        self.scaler.update()
        self.optimizer.zero_grad(set_to_none=True)
        position.step += 1
        return shown

    def _check(self, loss: torch.Tensor, batch: Batch) -> None:
        if not torch.isfinite(loss):
            names = ", ".join(batch.video_ids[:8]) + (" …" if len(batch) > 8 else "")
            raise WorkFailed(
                f"the loss is {loss.item()} at step {self.position.step} (samples {names}). The "
                f"last checkpoint in {self.folder / 'checkpoints'} is good; lower --lr, set "
                "--clip-grad, or use --precision fp32."
            )

    def _add_to_sums(self, batch: Batch, parts: dict[str, torch.Tensor]) -> None:
        sums = self.position.sums
        sums["samples"] = sums.get("samples", 0.0) + len(batch)
        for name, value in parts.items():
            sums[name] = sums.get(name, 0.0) + value.item() * len(batch)

    def _finish_epoch(self, progress: ProgressLine, records: RunRecords | None) -> None:
        position = self.position
        means = self._epoch_means()
        position.epoch += 1
        position.samples = 0
        position.sums = {}
        row = {"step": position.step, "epoch": position.epoch}
        validation = self.after_epoch(position) if self.after_epoch else {}
        if records is not None:
            records.add({**row, "split": "train", **means})
            if validation:
                records.add({**row, "split": "validation", **validation})
            records.publish()
        shown = "  ".join(f"{name} {value:.4g}" for name, value in {**means, **validation}.items())
        progress.say(f"{self.task.name}: epoch {position.epoch}/{self.options.epochs}  {shown}")
        self._save()

    def _epoch_means(self) -> dict[str, float]:
        names = list(self.position.sums)
        sums = dict(zip(names, self.world.sum([self.position.sums[n] for n in names]), strict=True))
        count = sums.pop("samples", 0.0) or 1.0
        return {name: value / count for name, value in sums.items()}

    def _maybe_log(self, records: RunRecords | None) -> None:
        """A row of the log inside a long epoch."""
        every = self.options.log_steps
        if records is None or not every or self.position.step % every:
            return
        sums = self.position.sums
        means = {n: v / sums["samples"] for n, v in sums.items() if n != "samples"}
        row = {"step": self.position.step, "epoch": self.position.epoch, "split": "epoch so far"}
        records.add({**row, **means, "lr": self.optimizer.param_groups[0]["lr"]})

    def _is_due(self, saved: float) -> bool:
        options = self.options
        by_steps = options.checkpoint_steps and not self.position.step % options.checkpoint_steps
        by_time = time.monotonic() - saved > options.checkpoint_minutes * 60
        # Only one rank's clock decides, so that all ranks agree.
        return bool(by_steps) or self.world.any(self.world.is_main and by_time)

    def _save(self) -> None:
        if self.world.is_main:
            state = {
                "optimizer": self.optimizer.state_dict(),
                "scaler": self.scaler.state_dict(),
                "position": vars(self.position),
            }
            save_checkpoint(
                self.folder / "checkpoints",
                self.position.step,
                self.model,
                state,
                self.options.keep_checkpoints,
            )
        self.world.barrier()


@contextmanager
def _stop_requests() -> Iterator[list[int]]:
    """A list that SIGINT and SIGTERM add themselves to, so that a step is always finished."""
    received: list[int] = []
    previous = {
        number: signal.signal(number, lambda signum, _: received.append(signum))
        for number in (signal.SIGINT, signal.SIGTERM)
    }
    try:
        yield received
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)


def _mix_seed(seed: int, step: int) -> int:
    """One seed out of two numbers, without patterns (a round of SplitMix64)."""
    mixed = (seed * 0x9E3779B97F4A7C15 + step * 0xBF58476D1CE4E5B9 + 1) % 2**64
    mixed = (mixed ^ (mixed >> 31)) * 0x94D049BB133111EB % 2**64
    return mixed >> 1
