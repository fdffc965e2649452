"""The training loop, the same for pretraining and finetuning.

A step is: read batches, agree with the other ranks, make inputs on the device, loss, gradients,
optimiser, and a step later a look at the losses. Everything random about it follows from (seed,
step), and everything else is in the checkpoint, so a run that was killed resumes as if it had not
been.
"""

from __future__ import annotations

import functools
import math
import signal
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, NoReturn

import torch
from torch import Tensor, nn
from torch.distributed.tensor import DTensor

from avprep.errors import WorkFailed
from cavmae.data import Batch, Mixture, ShardLoader
from cavmae.distributed import World
from cavmae.frontend import FrontEnd
from cavmae.model import CAVMAE, CAVMAEClassifier
from cavmae.train.ahead import LaunchedStep, Share, StepFeed, Verdict, agree
from cavmae.train.averaging import WeightAverage
from cavmae.train.background import BackgroundWriter, Snapshot
from cavmae.train.checkpoint import list_checkpoints, load_state, save_checkpoint
from cavmae.train.curves import LATEST
from cavmae.train.events import Measured, Note, OnEvent, Steps, ignore
from cavmae.train.not_finite import WHAT_HELPS, end_not_finite
from cavmae.train.optim import build_optimizer, freeze_base, learning_rate, set_learning_rate
from cavmae.train.options import TrainOptions, TransferOptions
from cavmae.train.parallel import (
    load_whole_optimizer,
    spread_model,
    whole,
    whole_weights,
    without_gradient_exchange,
)
from cavmae.train.place import CHECKPOINTS, RunFolder
from cavmae.train.records import Meter, RunRecords, written_together
from cavmae.train.set_losses import SetLosses, shown
from cavmae.train.tasks import StepLoss, Task, forward_flops, freeze_unused
from cavmae.train.utilisation import autocast, measured_flops, model_precision, profiled


@dataclass
class Position:
    """How far a run is; saved with every checkpoint."""

    step: int = 0  # optimiser steps done
    epoch: int = 0
    samples: int = 0  # read in this epoch, over all ranks
    lr: float = 0.0  # of the last step
    sums: dict[str, float] = field(default_factory=dict)  # of this epoch's losses, by samples
    rows: list[dict[str, Any]] = field(default_factory=list)  # of the log


AfterEpoch = Callable[[Position], dict[str, float]]


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
        folder: Path | RunFolder,
        after_epoch: AfterEpoch | None = None,
        metadata: Mapping[str, str] | None = None,
        transfer: TransferOptions | None = None,
        tell: OnEvent = ignore,
    ) -> None:
        """Args:
        model: on the world's device.
        task: gives the loss.
        frontend: on the same device.
        loader: of this rank.
        world: this process among its peers.
        options: of the loop and the optimiser.
        folder: the run directory; exists.
        after_epoch: called on every rank at the end of each epoch; gives the logged validation.
        metadata: stored with every file of weights, see `save_model`.
        transfer: what a classifier's base may learn.
        tell: called with the events of steps and epochs.
        """
        transfer = transfer or TransferOptions()
        if transfer.freeze_base:
            freeze_base(model)
        freeze_unused(model, task, world.device)
        is_gpu = world.device.type == "cuda"
        self._forward_flops = forward_flops(model, task, world.device) if is_gpu else 0
        self.model = model
        self.task = task
        self.frontend = frontend
        self.loader = loader
        self.world = world
        self.options = options
        self.transfer = transfer
        self.folder = folder if isinstance(folder, RunFolder) else RunFolder(folder)
        self.after_epoch = after_epoch
        self.metadata = dict(metadata or {})
        self.tell = tell
        self.at_start: AfterEpoch | None = None  # the same, before the first step of a run
        self.position = Position()
        self._records: RunRecords | None = None  # of the main rank
        self._steps: Steps | None = None  # that were told of
        self._meter = Meter(world.device)
        self._ideal_seconds = 0.0
        self._note_step: Callable[[], object] = lambda: None
        self._saved_step, self._saved_at = 0, time.monotonic()
        self._snapshot, self._writer = Snapshot(world.device), BackgroundWriter()
        self._launched: deque[LaunchedStep] = deque()
        self._seen: LaunchedStep | None = None  # the last one whose losses were read …
        self._failed: dict[str, float] | None = None  # … and those, if they are not finite
        shards = loader.shards
        self._sets = SetLosses(shards, world.device) if isinstance(shards, Mixture) else None
        self._called = spread_model(model, world, options)
        self.optimizer = build_optimizer(model, options, transfer)
        self.scaler = torch.amp.GradScaler(world.device.type, enabled=options.precision == "fp16")
        wanted = {"ema": options.ema, "average": options.average_epochs}
        self.averages = {name: WeightAverage(model) for name, given in wanted.items() if given}

    @property
    def steps_per_epoch(self) -> int:
        """Optimiser steps of an epoch."""
        return math.ceil(self.loader.steps_per_epoch / self.options.accumulate)

    @property
    def schedule_step(self) -> int:
        """The step of the schedule: as many as this many ranks need for what has been read.

        A run that was resumed with another number of ranks has done another number of steps.
        """
        batch = self.loader.options.batch_size * self.world.size
        steps = self.position.samples // (batch * self.options.accumulate)
        return self.position.epoch * self.steps_per_epoch + steps

    def resume(self) -> Path | None:
        """Resume from the newest whole checkpoint of the run, if there is one."""
        checkpoints = list_checkpoints(self.folder.path / CHECKPOINTS)
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
        total = options.epochs * self.steps_per_epoch
        self._steps = Steps("step", self.schedule_step, total, stage=self.task.name)
        self.tell(self._steps)
        if self.world.is_main:
            self._records = RunRecords(self.folder, position.rows, options.track, self.tell)
        try:
            self._ideal_seconds = self._measure_ideal_seconds()
            with _stop_requests() as stop, self._profiled() as self._note_step:
                if not position.step and not position.rows:
                    self._record_start(stop)
                while position.epoch < options.epochs:
                    self._run_epoch(stop)
                    self._finish_epoch(stop)
            self._finish_saving()
            with written_together(self.world, self.folder.place):
                if self._records is not None:
                    self._records.publish(position.rows, final=True)
        finally:
            self._close()

    def _profiled(self) -> AbstractContextManager[Callable[[], object]]:
        """See `profiled`."""
        name, steps = "trace.json", self.options.profile * self.world.is_main
        return profiled(self.folder.path / name, self.folder.shown(name), steps, self.tell)

    def _close(self) -> None:
        """Finish background work. The run may be ending with an error; other ranks learn of it."""
        work: list[Callable[[], None]] = [self._writer.finish]
        if self._records is not None:
            work += [self._records.close, self.folder.push_rest]
        for finish in work:
            try:
                finish()
            except Exception as error:
                self.tell(Note(str(error), is_warning=True))

    def _measure_ideal_seconds(self) -> float:
        """Seconds per sample if the GPUs did the model's matrix products at full speed."""
        if not self._forward_flops:
            return 0.0
        passes = 1 if self.transfer.freeze_base else 3  # gradients take twice the forward pass
        best = measured_flops(self.world.device, self.options.precision)
        torch.cuda.reset_peak_memory_stats(self.world.device)
        return passes * self._forward_flops / (best * self.world.size)

    def _record_start(self, stop: list[int]) -> None:
        """Log how good the weights are that training starts from."""
        if validation := self._validate(self.at_start, stop):
            if self._records is not None:
                self._records.add({"step": 0, "epoch": 0, "split": "validation", **validation})
            self.tell(Measured(self.task.name, 0, self.options.epochs, {}, validation))

    def _run_epoch(self, stop: list[int]) -> None:
        """Launch the steps of an epoch, each while the device works on the one before."""
        position = self.position
        self._meter = Meter(self.world.device, self._ideal_seconds)
        batches = self.loader.epoch(position.epoch, position.samples)
        for share, verdict in self._shares(batches, stop, self._is_due):
            self._obey(verdict, share)
            if not share.batches:
                return
            with model_precision(self.options.precision):
                self._launch(share.batches_on_device(), verdict)
            self._note_step()

    def rehearse(
        self, batches: Iterator[Batch], steps: int, seconds: float = math.inf, fewest: int = 1
    ) -> dict[str, float]:
        """Do some steps as `run` does; log, validate and save nothing. All ranks call it together.

        Args:
            batches: of this rank; they never end.
            steps: to do.
            seconds: after which fewer will do …
            fewest: … but not fewer than these.

        Returns:
            How fast it went, see `Meter.facts`.

        Raises:
            WorkFailed: a loss is not finite, or a rank has no batch; on every rank.
            torch.OutOfMemoryError: the GPU's memory is too small.
        """
        self._meter = Meter(self.world.device, remembered=None)
        first, began = self.position.step, time.monotonic()

        def is_enough() -> bool:
            done = self.position.step - first
            return done >= (steps if time.monotonic() - began < seconds else fewest)

        try:
            for share, verdict in self._shares(batches, [], is_enough):
                if verdict.is_lost:
                    self._tell_lost(share.lost)
                if verdict.has_failed or verdict.is_due:
                    break
                with model_precision(self.options.precision):
                    self._launch(share.batches_on_device(), verdict)
            self._look_at_losses()
        finally:
            self._launched.clear()
        if self.world.any(self._failed is not None):
            raise WorkFailed(
                f"not finite within {self.position.step} steps. {WHAT_HELPS} A run without "
                "--dry-run names the samples."
            )
        return self._meter.facts()

    def _shares(
        self, batches: Iterator[Batch], stop: list[int], is_due: Callable[[], bool]
    ) -> Iterator[tuple[Share, Verdict]]:
        """What to launch next, each while the device works on the step before.

        Args:
            batches: of this rank.
            stop: the signals received.
            is_due: asked on the main rank, whose clock decides for all.
        """
        accumulate = self.options.accumulate
        self._called.train()
        feed = StepFeed(batches, accumulate, self.world.device)
        while True:
            with self._meter.waiting():
                share = feed.read()
            self._look_at_losses(but=1)
            verdict = agree(
                self.world,
                share,
                accumulate,
                is_stopped=bool(stop),
                is_due=self.world.is_main and is_due(),
                has_failed=self._failed is not None,
                is_unsaved=self._writer.has_failed,
            )
            yield share, verdict

    def _obey(self, verdict: Verdict, share: Share) -> None:
        """Save the run or end it, where the ranks agreed on that.

        Raises:
            KeyboardInterrupt: a rank was told to stop.
            WorkFailed: a loss is not finite, a rank has no batch, or a checkpoint is not written.
        """
        if verdict.has_failed:
            self._end_not_finite()
        if verdict.is_unsaved:
            self._finish_saving()
        if verdict.is_lost:
            self._give_up(share.lost, verdict.is_stopped)
        step, every = self.position.step, self.options.checkpoint_steps
        is_due = verdict.is_stopped or verdict.is_due or (every and not step % every)
        if is_due and step != self._saved_step:
            self._save()
        if verdict.is_stopped:
            self._end_stopped()

    def _give_up(self, lost: WorkFailed | None, is_stopped: bool) -> None:
        """End a run in which a rank, this one if `lost` is given, has no batch. All ranks call it.

        Raises:
            KeyboardInterrupt: a signal to all processes ended the loading ones as well.
            WorkFailed: the rank's own error, on every rank.
        """
        self._save()
        if is_stopped:
            self._end_stopped()
        self._finish_saving()
        self._tell_lost(lost)

    def _tell_lost(self, lost: WorkFailed | None) -> NoReturn:
        """Raises WorkFailed on every rank: the error of one that has no batch."""
        reasons = self.world.gather(str(lost) if lost else "")
        raise WorkFailed(next(filter(None, reasons))) from lost

    def _launch(self, batches: list[Batch], verdict: Verdict) -> None:
        """Give the device one optimiser step over this rank's batches.

        Every sample of the step has the same weight in the gradient, however the samples are dealt
        out to batches and ranks.
        """
        position, world = self.position, self.world
        rate = learning_rate(
            self.options, self.schedule_step, self.steps_per_epoch, self.options.epochs
        )
        set_learning_rate(self.optimizer, rate)
        position.lr = rate
        mine = sum(map(len, batches))
        sums: dict[str, Tensor] = {}
        for number, batch in enumerate(batches):
            is_last = number == len(batches) - 1
            with nullcontext() if is_last else without_gradient_exchange(self._called):
                result = self._loss(batch, number, [sizes[number] for sizes in verdict.sizes])
                # Gradients are averaged over the ranks, hence their number.
                weight = len(batch) * world.size / verdict.samples
                self.scaler.scale(result.loss * weight).backward()
            for name, value in {"loss": result.loss.detach(), **result.parts}.items():
                sums[name] = sums.get(name, 0.0) + value * (len(batch) / mine)
            position.samples += batch.planned
        sums["grad_norm"] = self._descend()
        if self.scaler.is_enabled():
            sums["scale"] = self.scaler.scale(torch.ones((), device=world.device))
        position.step += 1
        self._launched.append(LaunchedStep(position.step, batches, sums, rate))

    def _look_at_losses(self, but: int = 0) -> None:
        """Read and record the losses of the launched steps, except the newest ones."""
        while len(self._launched) > but and self._failed is None:
            self._seen = step = self._launched.popleft()
            facts = step.facts()
            if not all(map(math.isfinite, facts.values())):
                self._failed = facts
                return
            self._meter.step(step.planned)
            self._add_to_sums(step.samples, facts)
            if self._steps is not None:
                done, measured = self._steps.done + 1, self._meter.facts()
                self._steps = replace(self._steps, done=done, facts={**shown(facts), **measured})
                self.tell(self._steps)
            self._maybe_log(step.number, facts)

    def _catch_up(self) -> None:
        """Look at the losses of all launched steps, before anything is made of them.

        Raises:
            WorkFailed: one is not finite; on every rank.
        """
        self._look_at_losses()
        if self.world.any(self._failed is not None):
            self._end_not_finite()

    def _end_not_finite(self) -> NoReturn:
        assert self._seen is not None
        bad = [name for name, value in (self._failed or {}).items() if not math.isfinite(value)]
        end_not_finite(self._seen, bad, self.frontend, self.world, self.folder)

    def _loss(self, batch: Batch, number: int, sizes: list[int]) -> StepLoss:
        """The loss of the step's batch of that number; all its randomness is decided here.

        Args:
            batch: on the device.
            number: from 0.
            sizes: of the batches of that number of all ranks.
        """
        world, options = self.world, self.options
        place = (self.position.step * options.accumulate + number) * world.size + world.rank
        generator = torch.Generator(world.device)
        generator.manual_seed(_mix_seed(options.seed, place))
        inputs = self.frontend(batch, generator)
        gather = functools.partial(world.gather_rows, counts=sizes) if world.size > 1 else None
        with autocast(world.device, options.precision):
            result = self.task.loss(self._called, inputs, generator, gather, self._sets is not None)
        if self._sets is not None and result.by_clip is not None:
            result.parts.update(self._sets.of(batch, result.by_clip))
        return result

    def _descend(self) -> Tensor:
        """Let the optimiser use the gradients; returns their norm before clipping."""
        self.scaler.unscale_(self.optimizer)
        trained = [p for p in self.model.parameters() if p.grad is not None]
        norm = nn.utils.get_total_norm([p.grad for p in trained if p.grad is not None])
        if isinstance(norm, DTensor):
            norm = norm.full_tensor()
        if self.options.clip_grad:
            nn.utils.clip_grads_with_norm_(trained, self.options.clip_grad, norm)
        self.scaler.step(self.optimizer)
        self.scaler.update()
        self.optimizer.zero_grad(set_to_none=True)
        if "ema" in self.averages:
            self.averages["ema"].add_exponentially(self.options.ema)
        return norm

    def _add_to_sums(self, count: int, facts: dict[str, float]) -> None:
        sums = self.position.sums
        sums["samples"] = sums.get("samples", 0.0) + count
        for name, value in facts.items():
            if name not in LATEST:
                sums[name] = sums.get(name, 0.0) + value * count

    def _finish_epoch(self, stop: list[int]) -> None:
        position = self.position
        self._catch_up()
        if self.after_epoch is not None and self._saved_step != position.step:
            self._save()  # validation takes a while, in which the run may be ended
        sums = self._sums_over_ranks()
        count = sums.pop("samples", 0.0) or 1.0
        means = shown({name: value / count for name, value in sums.items()})
        position.epoch += 1
        position.samples = 0
        position.sums = {}
        first, last = self.options.average_epochs or (1, 0)
        if first <= position.epoch <= last:
            self.averages["average"].add_equally()
        row = {"step": position.step, "epoch": position.epoch}
        validation = self._validate(self.after_epoch, stop)
        if self._records is not None:
            self._records.add({**row, "split": "train", **means, "lr": position.lr})
            if validation:
                self._records.add({**row, "split": "validation", **validation})
        epochs = self.options.epochs
        self.tell(Measured(self.task.name, position.epoch, epochs, means, validation))
        self._save()
        if self.world.any(bool(stop)):
            self._end_stopped()

    def _validate(self, evaluate: AfterEpoch | None, stop: list[int]) -> dict[str, float]:
        if evaluate is None:
            return {}
        with self.averages["ema"].in_place() if "ema" in self.averages else nullcontext():
            try:
                return evaluate(self.position)
            except WorkFailed:
                if stop:  # the signal has ended the loading processes as well
                    raise KeyboardInterrupt from None
                raise

    def _sums_over_ranks(self) -> dict[str, float]:
        names = list(self.position.sums)
        return dict(zip(names, self.world.sum([self.position.sums[n] for n in names]), strict=True))

    def _maybe_log(self, step: int, facts: dict[str, float]) -> None:
        """A row of the log inside a long epoch, of what the main rank has seen."""
        every = self.options.log_steps
        if self._records is None or not every or step % every:
            return
        sums = self.position.sums
        means = shown({n: v / sums["samples"] for n, v in sums.items() if n != "samples"})
        row = {"step": step, "epoch": self.position.epoch, "split": "epoch so far"}
        latest = {name: facts[name] for name in LATEST if name in facts}
        self._records.add({**row, **means, **latest, **self._meter.facts()})

    def _is_due(self) -> bool:
        return time.monotonic() - self._saved_at > self.options.checkpoint_minutes * 60

    def _save(self) -> None:
        """Begin to write a checkpoint and the log, when those before are written.

        All ranks take part, since each may hold a share.

        Raises:
            WorkFailed: those before could not be written, or a loss is not finite; on every rank.
        """
        self._catch_up()
        self._finish_saving()
        self._snapshot.begin()
        keep, copy = self.world.is_main, self._snapshot.copy
        weights = whole_weights(self.model, keep, copy)
        rows = list(self.position.rows)
        state = {
            "optimizer": whole(self.optimizer.state_dict(), keep, copy),
            "scaler": self.scaler.state_dict(),
            "averages": {name: a.state(keep, copy) for name, a in self.averages.items()},
            "position": {**vars(self.position), "rows": rows, "sums": self._sums_over_ranks()},
        }
        self._snapshot.finish()
        if self._records is not None:
            self._writer.begin(functools.partial(self._write, self._records, weights, state))
            self._records.tell_failures()
        self._saved_step, self._saved_at = self.position.step, time.monotonic()

    def _write(
        self, records: RunRecords, weights: dict[str, Tensor], state: dict[str, Any]
    ) -> None:
        """Write a checkpoint and the log, on the thread of the writer."""
        position, keep = state["position"], self.options.keep_checkpoints
        folder = self.folder.path / CHECKPOINTS
        save_checkpoint(folder, position["step"], self.model, state, keep, weights, self.metadata)
        records.publish(position["rows"])
        self.folder.push()

    def _finish_saving(self) -> None:
        """Wait for what is being written. All ranks call it together.

        Raises:
            WorkFailed: it could not be written; on every rank.
        """
        with written_together(self.world, self.folder.shown(CHECKPOINTS)):
            self._writer.finish()

    def _end_stopped(self) -> NoReturn:
        """Raises KeyboardInterrupt, when everything is written."""
        self._finish_saving()
        raise KeyboardInterrupt


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
