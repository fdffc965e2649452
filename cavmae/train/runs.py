"""Whole runs: from options to a trained model in a run directory."""

from __future__ import annotations

import functools
import math
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, TypeVar

import torch

from avprep import storage
from cavmae.checkpoints import save_model
from cavmae.checkpoints.usage import labels_metadata
from cavmae.data import LoaderOptions, ShardLoader
from cavmae.distributed import joined_world, memory_for
from cavmae.evaluation.classify import ClassifyOptions, classify_together
from cavmae.evaluation.held_out import HeldOutOptions, evaluate_pretraining
from cavmae.evaluation.metrics import finite, score
from cavmae.evaluation.options import VALIDATION_FRAMES
from cavmae.frontend.fbank import samples_for
from cavmae.model import CAVMAE, CAVMAEClassifier
from cavmae.train.dry_run import DryRun, dry_run
from cavmae.train.events import Note, OnEvent, ignore
from cavmae.train.folder import prepare_folder, way_to_fit
from cavmae.train.loop import Position, Trainer
from cavmae.train.options import FinetuneRun, PretrainRun, Run
from cavmae.train.outlook import modalities_read, outlook
from cavmae.train.parallel import collected, whole_weights
from cavmae.train.place import RunFolder, run_folder
from cavmae.train.records import written_together
from cavmae.train.start import Start, contrasted_clips, front_end, load_init, start_of
from cavmae.train.tasks import FinetuneTask, PretrainTask, Task


@dataclass(frozen=True)
class PretrainResult:
    """The result of a run, which is also in `result.json` in its folder.

    Attributes:
        folder: path or URL of the run directory.
        epochs: number of epochs trained, over all calls.
        steps: number of optimizer steps, over all calls.
        samples_per_epoch: number of samples that all ranks read.
        train: the last epoch's row of the log.
        validation: its validation row; empty without validation.
        unreadable: the clips that this call left out: their names and the reasons.
        seconds: duration of this call.
    """

    folder: str
    epochs: int
    steps: int
    samples_per_epoch: int
    train: Mapping[str, Any]
    validation: Mapping[str, Any]
    unreadable: Mapping[str, str]
    seconds: float

    def facts(self) -> dict[str, Any]:
        """What result.json says."""
        last = {"train": self.train, "validation": self.validation}
        return {
            "epochs": self.epochs,
            "steps": self.steps,
            "samples_per_epoch": self.samples_per_epoch,
            "unreadable_in_last_call": self.unreadable,
            "seconds_of_last_call": round(self.seconds, 2),
            **{split: row for split, row in last.items() if row},
        }


Result = TypeVar("Result", bound=PretrainResult)


@dataclass(frozen=True)
class FinetuneResult(PretrainResult):
    """The result of a finetuning run.

    Attributes:
        metric: what decides which weights are the best: "accuracy" or "map".
        best: its highest value on the validation clips.
        average: the validation of the weights' average; empty without --average-epochs.
    """

    metric: str
    best: float
    average: Mapping[str, float]

    def facts(self) -> dict[str, Any]:
        averaged = {"average": self.average} if self.average else {}
        return {f"best_{self.metric}": self.best, **averaged, **super().facts()}


def pretrain(options: PretrainRun, on_event: OnEvent = ignore) -> PretrainResult:
    """Train CAV-MAE on a shard set, or resume the run in its folder.

    Under torchrun all ranks call this together, and all get the result.

    Args:
        options: of the run.
        on_event: called with the run's events, on the main rank.

    Raises:
        UserError: inputs that do not fit together.
        WorkFailed: the loss is not finite, too many samples are unreadable, or the folder cannot
            be written.
        KeyboardInterrupt: SIGINT or SIGTERM came; a checkpoint has been written.
    """
    with begun(options, on_event) as (start, folder):
        prepare_folder(folder, options, start)
        trainer = pretrainer(options, start, folder)
        seconds = train(trainer, options, start)
        save_weights(trainer, "model")
        for name, average in trainer.averages.items():
            with average.in_place():
                save_weights(trainer, name)
        return finish(trainer, PretrainResult(**outcome(trainer, seconds)))


def finetune(options: FinetuneRun, on_event: OnEvent = ignore) -> FinetuneResult:
    """Train a classifier on a shard set, or resume the run in its folder.

    The weights that did best on the validation clips are kept as `best.safetensors`. Under torchrun
    all ranks call this together, and all get the result.

    Args:
        options: of the run.
        on_event: called with the run's events, on the main rank.

    Raises:
        UserError: inputs that do not fit together.
        WorkFailed: the loss is not finite, too many samples are unreadable, or the folder cannot
            be written.
        KeyboardInterrupt: SIGINT or SIGTERM came; a checkpoint has been written.
    """
    with begun(options, on_event) as (start, folder):
        prepare_folder(folder, options, start)
        trainer = finetuner(options, start, folder)
        validate = functools.partial(validate_classifier, trainer, options, start)
        metric = "accuracy" if start.criterion == "ce" else "map"
        trainer.after_epoch = functools.partial(keep_best, trainer, validate, metric)
        seconds = train(trainer, options, start)
        save_weights(trainer, "model")
        top, averaged = save_averages(trainer, validate, metric)
        result = FinetuneResult(
            **outcome(trainer, seconds), metric=metric, best=top, average=averaged
        )
        return finish(trainer, result)


def rehearse(options: Run, on_event: OnEvent = ignore) -> DryRun:
    """Do a few steps of a run to find out how long it takes and what fits; write nothing.

    Args:
        options: of the run.
        on_event: called with what is known before the steps.

    Raises:
        UserError: inputs that do not fit together.
        WorkFailed: the batch does not fit, or the run would end in its first steps.
    """
    with begun(options, on_event) as (start, folder):
        if isinstance(options, PretrainRun):
            return dry_run(pretrainer(options, start, folder))
        return dry_run(finetuner(options, start, folder))


@contextmanager
def begun(options: Run, on_event: OnEvent) -> Iterator[tuple[Start, RunFolder]]:
    """What the ranks that train together start from, and their folder; see `start_of`."""
    with (
        joined_world(options.device, options.batch_size) as world,
        run_folder(options.out, options.retries) as folder,
    ):
        yield start_of(options, world, on_event), folder


def pretrainer(options: PretrainRun, start: Start, folder: RunFolder) -> Trainer:
    """What trains CAV-MAE, and evaluates it where there are held-out clips."""
    torch.manual_seed(options.seed)
    model = CAVMAE(start.config)
    metadata = {"norm_pix_loss": str(int(options.norm_pix_loss))}
    trainer = build_trainer(model, PretrainTask(options), options, start, folder, metadata)
    if start.validation is not None:
        evaluate = functools.partial(evaluate_held_out, trainer, options, start)
        trainer.at_start = trainer.after_epoch = evaluate
    return trainer


def finetuner(options: FinetuneRun, start: Start, folder: RunFolder) -> Trainer:
    """What trains a classifier."""
    torch.manual_seed(options.seed)
    model = CAVMAEClassifier.from_pretraining(start.config, start.shards.num_classes)
    metadata = {
        "mode": options.mode,
        "criterion": start.criterion,
        **labels_metadata(start.shards.label_set),
    }
    task = FinetuneTask(options.mode, start.criterion)
    return build_trainer(model, task, options, start, folder, metadata)


def build_trainer(
    model: CAVMAE | CAVMAEClassifier,
    task: Task,
    options: Run,
    start: Start,
    folder: RunFolder,
    metadata: dict[str, str],
) -> Trainer:
    """Put the parts of a run together.

    Raises:
        UserError: the initial weights do not fit, or the shard set cannot be read as asked.
    """
    load_init(model, options, start)
    frontend = front_end(options, start)
    fbank = {"fbank_mean": repr(start.fbank.mean), "fbank_std": repr(start.fbank.std)}
    tuned = options if isinstance(options, FinetuneRun) else None
    loader = ShardLoader(
        start.shards,
        LoaderOptions(
            options.batch_size,
            options.workers,
            options.seed,
            balanced=tuned.balanced if tuned else False,
            mixup=tuned.mixup if tuned else 0.0,
            modalities=modalities_read(options, start.config),
            longest=samples_for(start.config.audio_frames),
            max_bad_samples=options.max_bad_samples,
            pin_memory=start.world.device.type == "cuda",
        ),
        start.world.rank,
        start.world.size,
    )
    return Trainer(
        model.to(start.world.device),
        task,
        frontend,
        loader,
        start.world,
        options,
        folder,
        metadata={**fbank, **metadata},
        transfer=tuned,
        tell=start.tell,
    )


def train(trainer: Trainer, options: Run, start: Start) -> float:
    """Resume if there is something to resume, train; returns the seconds this call took."""
    checkpoint, position = trainer.resume(), trainer.position
    if checkpoint is not None:
        where = f"epoch {position.epoch}, step {position.step}"
        start.tell(Note(f"resuming from {checkpoint.name}: {where}"))
    if start.world.is_main:
        steps = trainer.steps_per_epoch, trainer.schedule_step
        held_out = 0
        if start.validation is not None and isinstance(options, PretrainRun):
            held_out = len(start.validation)
        start.tell(outlook(options, start.shards, start.config, *steps, held_out))
    began = time.monotonic()
    with memory_for(options.batch_size, functools.partial(way_to_fit, trainer.folder, options)):
        trainer.run()
    return time.monotonic() - began


def evaluate_held_out(
    trainer: Trainer, options: PretrainRun, start: Start, position: Position
) -> dict[str, float]:
    """Evaluate a pretrained model that may be spread over the ranks, which all call this."""
    assert isinstance(trainer.model, CAVMAE)
    assert start.validation is not None
    chosen = HeldOutOptions(
        loss=options,
        contrasted=contrasted_clips(options, start.world) if options.contrast_weight else 1,
        batch_size=options.batch_size,
        workers=options.workers,
        max_bad_samples=options.max_bad_samples,
    )
    with collected(trainer.model):
        return evaluate_pretraining(
            trainer.model, trainer.frontend, start.validation, chosen, start.world
        )


def validate_classifier(trainer: Trainer, options: FinetuneRun, start: Start) -> dict[str, float]:
    """Measure a classifier that may be spread over the ranks, which all call this together."""
    assert isinstance(trainer.model, CAVMAEClassifier)
    assert start.validation is not None
    chosen = ClassifyOptions(
        mode=options.mode,
        frames=VALIDATION_FRAMES,
        criterion=start.criterion,
        batch_size=options.batch_size,
        workers=options.workers,
        max_bad_samples=options.max_bad_samples,
    )
    with collected(trainer.model):
        found = classify_together(
            trainer.model, trainer.frontend, start.validation, chosen, start.world
        )
    result = score(found.probabilities, found.labels)
    return {"accuracy": result.accuracy, "map": result.map, "auc": result.auc}


def keep_best(
    trainer: Trainer, validate: Callable[[], dict[str, float]], metric: str, position: Position
) -> dict[str, float]:
    """Validate, and save the weights if they are the best so far."""
    measured = validate()
    is_best = trainer.world.is_main and measured[metric] > best(position.rows, metric)
    if trainer.world.any(is_best):
        save_weights(trainer, "best")
    return measured


def save_averages(
    trainer: Trainer, validate: Callable[[], dict[str, float]], metric: str
) -> tuple[float, dict[str, float]]:
    """Save the averaged weights, and those over epochs as the best ones if they are.

    Returns:
        The best value of the metric, and the validation of the average over epochs.
    """
    top, averaged = best(trainer.position.rows, metric), {}
    for name, average in trainer.averages.items():
        with average.in_place():
            save_weights(trainer, name)
            if name == "average":
                averaged = validate()
                if trainer.world.any(trainer.world.is_main and averaged[metric] > top):
                    save_weights(trainer, "best")
                    top = averaged[metric]
    return top, averaged


def best(rows: list[dict[str, Any]], metric: str) -> float:
    """The highest value of a metric over the validations so far."""
    values = [row[metric] for row in rows if row["split"] == "validation"]
    return max(values, default=-math.inf)


def save_weights(trainer: Trainer, name: str) -> None:
    """Write the present weights to RUN/NAME.safetensors. All ranks call this together."""
    weights = whole_weights(trainer.model, trainer.world.is_main)
    file = f"{name}.safetensors"
    with written_together(trainer.world, trainer.folder.shown(file)):
        if trainer.world.is_main:
            save_model(trainer.folder.path / file, trainer.model, trainer.metadata, weights)


def outcome(trainer: Trainer, seconds: float) -> dict[str, Any]:
    """The fields of `PretrainResult`. All ranks call this together."""
    bad = trainer.world.gather(trainer.loader.bad_samples)
    rows = {row["split"]: row for row in trainer.position.rows}  # the last one of each split
    return {
        "folder": trainer.folder.place,
        "epochs": trainer.position.epoch,
        "steps": trainer.position.step,
        "samples_per_epoch": trainer.loader.samples_per_epoch,
        "train": rows.get("train", {}),
        "validation": rows.get("validation", {}),
        "unreadable": dict(pair for pairs in bad for pair in pairs),
        "seconds": seconds,
    }


def finish(trainer: Trainer, result: Result) -> Result:
    """Write the main rank's result.json, and return its result. All ranks call this together."""
    folder = trainer.folder
    with written_together(trainer.world, folder.place):
        if trainer.world.is_main:
            storage.write_json(folder.path / "result.json", finite(result.facts()))
            folder.push()
    return trainer.world.gather(result)[0]
