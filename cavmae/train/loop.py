"""The training loop, the same for pretraining and finetuning.

A step is: read a batch, make inputs on the device, loss, gradients, optimiser. Everything random
about it follows from (seed, step), and everything else is in the checkpoint, so a run that was
killed goes on as if it had not been.
"""

from __future__ import annotations

import math
import signal
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.distributed.tensor import DTensor

from avprep import storage
from avprep.errors import WorkFailed
from cavmae.data import Batch, ShardLoader
from cavmae.distributed import World
from cavmae.frontend import FrontEnd
from cavmae.model import CAVMAE, CAVMAEClassifier
from cavmae.train.averaging import WeightAverage
from cavmae.train.checkpoint import list_checkpoints, load_state, save_checkpoint
from cavmae.train.optim import build_optimizer, freeze_base, learning_rate, set_learning_rate
from cavmae.train.options import OptimOptions, TrainOptions
from cavmae.train.parallel import (
    load_whole_optimizer,
    spread_model,
    whole,
    whole_weights,
    without_gradient_exchange,
)
from cavmae.train.records import Meter, ProgressLine, RunRecords
from cavmae.train.tasks import StepLoss, Task

_AUTOCAST = {"bf16": torch.bfloat16, "fp16": torch.float16}
_SMALLEST_SCALE = 2.0**-16  # of the loss in fp16; it starts at 2 ** 16
_NOT_AVERAGED = ("lr", "grad_norm")
_SHOWN = 8  # samples in an error


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
        metadata: Mapping[str, str] | None = None,
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
        metadata: stored with every file of weights, see `save_model`.
        """
        if optim.freeze_base:
            freeze_base(model)
        self.model = model
        self.task = task
        self.frontend = frontend
        self.loader = loader
        self.world = world
        self.options = options
        self.optim = optim
        self.folder = folder
        self.after_epoch = after_epoch
        self.metadata = dict(metadata or {})
        self.position = Position()
        self._called = spread_model(model, world, options)
        self.optimizer = build_optimizer(model, optim)
        self.scaler = torch.amp.GradScaler(world.device.type, enabled=options.precision == "fp16")
        self.averages: dict[str, WeightAverage] = {}
        if options.ema:
            self.averages["ema"] = WeightAverage(model)
        if options.average_epochs is not None:
            self.averages["average"] = WeightAverage(model)

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
        load_whole_optimizer(self.optimizer, state["optimizer"])
        self.scaler.load_state_dict(state["scaler"])
        for name, average in self.averages.items():
            average.load_state(state["averages"][name])
        self.position = Position(**state["position"])
        return checkpoints[-1]

    def run(self) -> None:
        """Train to the last epoch.

        Raises:
            KeyboardInterrupt: SIGINT or SIGTERM came; a checkpoint has been written.
            WorkFailed: the loss is not a number, too many samples are unreadable, or the run
                directory cannot be written.
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
        self._called.train()
        meter = Meter(self.world.device)
        saved = time.monotonic()
        group: list[Batch] = []
        batches = self.loader.epoch(position.epoch, position.samples)
        while True:
            with meter.waiting():
                try:
                    batch = next(batches, None)
                except WorkFailed:
                    if not stop:
                        raise
                    # A signal to the whole process group ended the loading processes as well.
                    self._save()
                    raise KeyboardInterrupt from None
            if batch is not None:
                group.append(batch)
            if group and (batch is None or len(group) == self.options.accumulate):
                facts = self._step(group)
                is_finite = all(math.isfinite(value) for value in facts.values())
                stopped, failed, due = self.world.sum(
                    # One rank's clock decides when it is time to save.
                    [bool(stop), not is_finite, self.world.is_main and self._is_due(saved)]
                )
                if failed:
                    self._fail(group, facts)
                meter.step(sum(batch.planned for batch in group))
                self._add_to_sums(group, facts)
                progress.update({**facts, **meter.facts()})
                self._maybe_log(records, facts, meter)
                if stopped or due:
                    self._save()
                    saved = time.monotonic()
                if stopped:
                    raise KeyboardInterrupt
                group = []
            if batch is None:
                return

    def _step(self, group: list[Batch]) -> dict[str, float]:
        """One optimiser step over one or more batches; returns the loss and its parts.

        Every sample of the step has the same weight in the gradient, however the samples are dealt
        out to batches and ranks.
        """
        position, world = self.position, self.world
        rate = learning_rate(self.optim, position.step, self.steps_per_epoch, self.options.epochs)
        set_learning_rate(self.optimizer, rate)
        mine = sum(map(len, group))
        everyone = world.sum([float(mine)])[0]
        sums: dict[str, Tensor] = {}
        for number, batch in enumerate(group):
            is_last = number == len(group) - 1
            with nullcontext() if is_last else without_gradient_exchange(self._called):
                result = self._loss(batch, number)
                # Gradients are averaged over the ranks, hence their number.
                weight = len(batch) * world.size / everyone
                self.scaler.scale(result.loss * weight).backward()
            for name, value in {"loss": result.loss.detach(), **result.parts}.items():
                sums[name] = sums.get(name, 0.0) + value * (len(batch) / mine)
            position.samples += batch.planned
        sums["grad_norm"] = self._descend()
        position.step += 1
        values = torch.stack([value.float() for value in sums.values()]).tolist()
        facts = dict(zip(sums, values, strict=True))
        if not math.isfinite(facts["grad_norm"]) and self._scale_is_sought():
            del facts["grad_norm"]
        return {**facts, "lr": rate}

    def _scale_is_sought(self) -> bool:
        """Whether a step may be left out because its gradients, scaled, did not fit fp16."""
        return self.scaler.is_enabled() and self.scaler.get_scale() > _SMALLEST_SCALE

    def _loss(self, batch: Batch, number: int) -> StepLoss:
        """The loss of the step's batch of that number; all its randomness is decided here."""
        world, options = self.world, self.options
        place = (self.position.step * options.accumulate + number) * world.size + world.rank
        generator = torch.Generator(world.device)
        generator.manual_seed(_mix_seed(options.seed, place))
        inputs = self.frontend(batch.to(world.device), generator)
        dtype = _AUTOCAST.get(options.precision)
        with torch.autocast(world.device.type, dtype, enabled=dtype is not None):
            return self.task.loss(self._called, inputs, generator, world)

    def _descend(self) -> Tensor:
        """Let the optimiser use the gradients; returns their norm before clipping."""
        self.scaler.unscale_(self.optimizer)
        trained = [p for p in self.model.parameters() if p.grad is not None]
        norm = nn.utils.get_total_norm([p.grad for p in trained if p.grad is not None])
        if isinstance(norm, DTensor):
            norm = norm.full_tensor()
        if self.optim.clip_grad:
            nn.utils.clip_grads_with_norm_(trained, self.optim.clip_grad, norm)
        self.scaler.step(self.optimizer)
        self.scaler.update()
        self.optimizer.zero_grad(set_to_none=True)
        if "ema" in self.averages:
            self.averages["ema"].add_exponentially(self.options.ema)
        return norm

    def _fail(self, group: list[Batch], facts: dict[str, float]) -> None:
        """End a run whose loss or gradients are not finite (on this or another rank)."""
        step, folder = self.position.step, self.folder
        bad = [name for name, value in facts.items() if not math.isfinite(value)]
        ids = [video_id for batch in group for video_id in batch.video_ids]
        found = self.world.gather((bad, self._not_finite_inputs(group), ids))
        reasons = sorted({name for names, _, _ in found for name in names})
        suspects = [names for _, names, _ in found]
        if not any(suspects):  # then the samples of the ranks whose loss it was, else all
            suspects = [names for bad, _, names in found if set(bad) - {"grad_norm"}]
        suspects = suspects or [names for _, _, names in found]
        everyone = [name for names in suspects for name in names]
        if self.world.is_main:
            content = {"step": step, "not_finite": reasons, "video_ids": everyone}
            storage.write_json(folder / "not-finite.json", content)
        shown = ", ".join(everyone[:_SHOWN]) + (" …" if len(everyone) > _SHOWN else "")
        raise WorkFailed(
            f"not finite at step {step}: {', '.join(reasons)} (samples {shown}; all of them in "
            f"{folder / 'not-finite.json'}). The last checkpoint in {folder / 'checkpoints'} is "
            "good; lower --lr, set --clip-grad, or use --precision fp32."
        )

    def _not_finite_inputs(self, group: list[Batch]) -> list[str]:
        """The samples whose inputs are not finite by themselves."""
        names = []
        for batch in group:
            inputs = self.frontend(batch.to(self.world.device))
            sound = inputs.audio.flatten(1).isfinite().all(1)
            sound &= inputs.image.flatten(1).isfinite().all(1)
            names += [
                v for v, good in zip(batch.video_ids, sound.tolist(), strict=True) if not good
            ]
        return names

    def _add_to_sums(self, group: list[Batch], facts: dict[str, float]) -> None:
        sums, count = self.position.sums, sum(map(len, group))
        sums["samples"] = sums.get("samples", 0.0) + count
        for name, value in facts.items():
            if name not in _NOT_AVERAGED:
                sums[name] = sums.get(name, 0.0) + value * count

    def _finish_epoch(self, progress: ProgressLine, records: RunRecords | None) -> None:
        position = self.position
        means = self._epoch_means()
        position.epoch += 1
        position.samples = 0
        position.sums = {}
        first, last = self.options.average_epochs or (1, 0)
        if first <= position.epoch <= last:
            self.averages["average"].add_equally()
        row = {"step": position.step, "epoch": position.epoch}
        validation: dict[str, float] = {}
        if self.after_epoch is not None:
            with self.averages["ema"].in_place() if "ema" in self.averages else nullcontext():
                validation = self.after_epoch(position)
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

    def _maybe_log(self, records: RunRecords | None, facts: dict[str, float], meter: Meter) -> None:
        """A row of the log inside a long epoch, of what the main rank has seen."""
        every = self.options.log_steps
        if records is None or not every or self.position.step % every:
            return
        sums = self.position.sums
        means = {n: v / sums["samples"] for n, v in sums.items() if n != "samples"}
        row = {"step": self.position.step, "epoch": self.position.epoch, "split": "epoch so far"}
        latest = {name: facts[name] for name in _NOT_AVERAGED if name in facts}
        records.add({**row, **means, **latest, **meter.facts()})

    def _is_due(self, saved: float) -> bool:
        options = self.options
        by_steps = options.checkpoint_steps and not self.position.step % options.checkpoint_steps
        return bool(by_steps) or time.monotonic() - saved > options.checkpoint_minutes * 60

    def _save(self) -> None:
        """Write a checkpoint; all ranks take part, since each may hold a share of the state.

        Raises:
            WorkFailed: it could not be written.
        """
        keep = self.world.is_main
        weights = whole_weights(self.model, keep)
        state = {
            "optimizer": whole(self.optimizer.state_dict(), keep),
            "scaler": self.scaler.state_dict(),
            "averages": {name: a.state(keep) for name, a in self.averages.items()},
            "position": vars(self.position),
        }
        failure = ""
        if keep:
            folder, step = self.folder / "checkpoints", self.position.step
            count = self.options.keep_checkpoints
            try:
                save_checkpoint(folder, step, self.model, state, count, weights, self.metadata)
            except OSError as error:
                failure = f"{folder}: cannot write a checkpoint ({error.strerror or error})."
        failure = next(filter(None, self.world.gather(failure)), "")
        if failure:
            raise WorkFailed(
                f"{failure} The one before is whole: make room and run the same command again."
            )


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
