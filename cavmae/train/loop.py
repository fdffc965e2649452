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
from cavmae.recipes import Expected
from cavmae.train.averaging import WeightAverage
from cavmae.train.checkpoint import list_checkpoints, load_state, save_checkpoint
from cavmae.train.curves import LATEST
from cavmae.train.optim import build_optimizer, freeze_base, learning_rate, set_learning_rate
from cavmae.train.options import OptimOptions, TrainOptions
from cavmae.train.parallel import (
    load_whole_optimizer,
    spread_model,
    whole,
    whole_weights,
    without_gradient_exchange,
)
from cavmae.train.records import Meter, ProgressLine, RunRecords, written_together
from cavmae.train.tasks import StepLoss, Task, freeze_unused

_AUTOCAST = {"bf16": torch.bfloat16, "fp16": torch.float16}
_SMALLEST_SCALE = 2.0**-16  # of the loss in fp16; it starts at 2 ** 16
_SHOWN = 8  # samples in an error


@dataclass
class Position:
    """How far a run is; saved with every checkpoint."""

    step: int = 0  # optimiser steps done
    epoch: int = 0
    samples: int = 0  # read in this epoch, over all ranks
    lr: float = 0.0  # of the last step
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
        expected: Expected | None = None,
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
        expected: published values that the line of each epoch shows beside its own.
        """
        if optim.freeze_base:
            freeze_base(model)
        freeze_unused(model, task, world.device)
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
        self.expected = expected or Expected()
        self.position = Position()
        self._records: RunRecords | None = None
        self._saved_step = -1
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

    @property
    def schedule_step(self) -> int:
        """The step of the schedule: as many as this many ranks need for what has been read.

        A run that went on with another number of ranks has done another number of steps.
        """
        batch = self.loader.options.batch_size * self.world.size
        steps = self.position.samples // (batch * self.options.accumulate)
        return self.position.epoch * self.steps_per_epoch + steps

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
        self._saved_step = self.position.step
        if not self.world.is_main:  # the saved sums are those of all ranks
            self.position.sums = dict.fromkeys(self.position.sums, 0.0)
        return checkpoints[-1]

    def run(self) -> None:
        """Train to the last epoch.

        Raises:
            KeyboardInterrupt: SIGINT or SIGTERM came; a checkpoint has been written.
            WorkFailed: the loss is not a number, too many samples are unreadable, or the run
                directory cannot be written.
        """
        position, options = self.position, self.options
        progress = ProgressLine(
            options.epochs * self.steps_per_epoch,
            self.schedule_step,
            self.task.name,
            self.world.is_main,
        )
        if self.world.is_main:
            self._records = RunRecords(self.folder, position.rows)
        try:
            with _stop_requests() as stop:
                while position.epoch < options.epochs:
                    self._run_epoch(progress, stop)
                    self._finish_epoch(progress, stop)
            with written_together(self.world, self.folder):
                if self._records is not None:
                    self._records.publish(final=True)
        finally:
            progress.close()
            if self._records is not None:
                self._records.close()

    def _run_epoch(self, progress: ProgressLine, stop: list[int]) -> None:
        position = self.position
        self._called.train()
        meter = Meter(self.world.device)
        saved = time.monotonic()
        group: list[Batch] = []
        batches = self.loader.epoch(position.epoch, position.samples)
        while True:
            batch: Batch | None = None
            lost: WorkFailed | None = None
            with meter.waiting():
                try:
                    batch = next(batches, None)
                except WorkFailed as error:
                    lost = error
            if batch is not None:
                group.append(batch)
            if lost or (group and (batch is None or len(group) == self.options.accumulate)):
                # The others are about to begin the step, and must not wait for this rank in it.
                samples, is_lost, is_stopped = self.world.sum(
                    [sum(map(len, group)), lost is not None, bool(stop)]
                )
                if is_lost:
                    self._give_up(lost, bool(is_stopped))
                facts = self._step(group, samples)
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
                self._maybe_log(facts, meter)
                if stopped or due:
                    self._save()
                    saved = time.monotonic()
                if stopped:
                    raise KeyboardInterrupt
                group = []
            if batch is None:
                return

    def _give_up(self, lost: WorkFailed | None, is_stopped: bool) -> None:
        """End a run in which a rank, this one if `lost` is given, has no batch. All ranks call it.

        Raises:
            KeyboardInterrupt: a signal to all processes ended the loading ones as well.
            WorkFailed: the rank's own error, on every rank.
        """
        self._save()
        if is_stopped:
            raise KeyboardInterrupt
        reasons = self.world.gather(str(lost) if lost else "")
        raise WorkFailed(next(filter(None, reasons))) from lost

    def _step(self, group: list[Batch], everyone: float) -> dict[str, float]:
        """One optimiser step over one or more batches; returns the loss and its parts.

        Args:
            group: this rank's batches.
            everyone: samples in those of all ranks.

        Every sample of the step has the same weight in the gradient, however the samples are dealt
        out to batches and ranks.
        """
        position, world = self.position, self.world
        rate = learning_rate(
            self.optim, self.schedule_step, self.steps_per_epoch, self.options.epochs
        )
        set_learning_rate(self.optimizer, rate)
        position.lr = rate
        mine = sum(map(len, group))
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
            if name not in LATEST:
                sums[name] = sums.get(name, 0.0) + value * count

    def _finish_epoch(self, progress: ProgressLine, stop: list[int]) -> None:
        position = self.position
        if self.after_epoch is not None and self._saved_step != position.step:
            self._save()  # validation takes a while, in which the run may be ended
        sums = self._sums_over_ranks()
        count = sums.pop("samples", 0.0) or 1.0
        means = {name: value / count for name, value in sums.items()}
        position.epoch += 1
        position.samples = 0
        position.sums = {}
        first, last = self.options.average_epochs or (1, 0)
        if first <= position.epoch <= last:
            self.averages["average"].add_equally()
        row = {"step": position.step, "epoch": position.epoch}
        validation = self._validate(stop)
        if self._records is not None:
            self._records.add({**row, "split": "train", **means, "lr": position.lr})
            if validation:
                self._records.add({**row, "split": "validation", **validation})
        shown = self._described("train", means) + self._described("validation", validation)
        progress.say(
            f"{self.task.name}: epoch {position.epoch}/{self.options.epochs}  {'  '.join(shown)}"
        )
        self._save()
        if self.world.any(bool(stop)):
            raise KeyboardInterrupt

    def _described(self, split: str, measured: Mapping[str, float]) -> list[str]:
        """What was measured in the epoch that has just ended, beside the published values."""
        return [
            f"{name} {value:.4g}{self.expected.beside(split, name, self.position.epoch)}"
            for name, value in measured.items()
        ]

    def _validate(self, stop: list[int]) -> dict[str, float]:
        if self.after_epoch is None:
            return {}
        with self.averages["ema"].in_place() if "ema" in self.averages else nullcontext():
            try:
                return self.after_epoch(self.position)
            except WorkFailed:
                if stop:  # the signal has ended the loading processes as well
                    raise KeyboardInterrupt from None
                raise

    def _sums_over_ranks(self) -> dict[str, float]:
        names = list(self.position.sums)
        return dict(zip(names, self.world.sum([self.position.sums[n] for n in names]), strict=True))

    def _maybe_log(self, facts: dict[str, float], meter: Meter) -> None:
        """A row of the log inside a long epoch, of what the main rank has seen."""
        every = self.options.log_steps
        if self._records is None or not every or self.position.step % every:
            return
        sums = self.position.sums
        means = {n: v / sums["samples"] for n, v in sums.items() if n != "samples"}
        row = {"step": self.position.step, "epoch": self.position.epoch, "split": "epoch so far"}
        latest = {name: facts[name] for name in LATEST if name in facts}
        self._records.add({**row, **means, **latest, **meter.facts()})

    def _is_due(self, saved: float) -> bool:
        options = self.options
        by_steps = options.checkpoint_steps and not self.position.step % options.checkpoint_steps
        return bool(by_steps) or time.monotonic() - saved > options.checkpoint_minutes * 60

    def _save(self) -> None:
        """Write a checkpoint and the log; all ranks take part, since each may hold a share.

        Raises:
            WorkFailed: they could not be written; on every rank.
        """
        keep = self.world.is_main
        weights = whole_weights(self.model, keep)
        state = {
            "optimizer": whole(self.optimizer.state_dict(), keep),
            "scaler": self.scaler.state_dict(),
            "averages": {name: a.state(keep) for name, a in self.averages.items()},
            "position": {**vars(self.position), "sums": self._sums_over_ranks()},
        }
        folder, step = self.folder / "checkpoints", self.position.step
        with written_together(self.world, folder):
            if keep:
                count = self.options.keep_checkpoints
                save_checkpoint(folder, step, self.model, state, count, weights, self.metadata)
            if self._records is not None:
                self._records.publish()
        self._saved_step = step


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
