"""Whole runs: from a command's values to a trained model in a run directory."""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import math
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch

from avprep import storage
from avprep.errors import UserError
from cavmae.checkpoints import (
    config_of,
    init_from,
    read_metadata,
    read_weights,
    save_model,
    weights_file,
)
from cavmae.checkpoints.usage import check_same_classes, labels_metadata, warn
from cavmae.data import LoaderOptions, ShardLoader, ShardSet, open_shards
from cavmae.distributed import World, joined_world
from cavmae.evaluation.classify import ClassifyOptions, classify_together
from cavmae.evaluation.held_out import HeldOutOptions, evaluate_pretraining, spread_subset
from cavmae.evaluation.metrics import finite, score
from cavmae.frontend import FrontEnd, FrontEndOptions
from cavmae.frontend.fbank import samples_for
from cavmae.model import CAVMAE, CAVMAEClassifier, ModelConfig, PretrainOptions
from cavmae.model.config import PRESETS
from cavmae.model.encoder import Encoder
from cavmae.options import pick
from cavmae.recipes import Expected
from cavmae.train.dry_run import DryRun, dry_run
from cavmae.train.folder import prepare_folder, step_facts
from cavmae.train.loop import Position, Trainer
from cavmae.train.options import FIT, OptimOptions, TrainOptions
from cavmae.train.outlook import Outlook, fitting_rows, outlook
from cavmae.train.parallel import collected, whole_weights
from cavmae.train.records import written_together
from cavmae.train.tasks import FinetuneTask, PretrainTask, Task

_SIZE = "base"  # of a model that neither --model nor --init tells the size of


@dataclass(frozen=True)
class Told:
    """Who is told what is known of a run before it ends; on the main rank alone.

    Attributes:
        outlook: called before the first step.
        pace: called once, a few steps later, with the seconds that the rest will take.
    """

    outlook: Callable[[Outlook], object] = lambda outlook: None
    pace: Callable[[float], object] = lambda seconds: None


def run_pretraining(
    values: dict[str, Any], expected: Expected | None = None, told: Told | None = None
) -> DryRun | None:
    """`cavmae pretrain`.

    Args:
        values: the command's options.
        expected: the published curve to show beside this run's.
        told: who hears how long the run will take.

    Returns:
        With `dry_run`, on the main rank, what was measured; nothing is written then.

    Raises:
        UserError: inputs that do not fit together.
    """
    with joined_world(values["device"]) as world:
        shards = open_shards(values["shards"], values)
        held_out = open_held_out(values)
        config = starting_config(values, shards)
        for each in filter(None, (shards, held_out)):
            check_frames(each, config)
        fbank = choose_normalisation(shards, values["init"])
        steps = step_facts(values, world)
        facts = {**size_facts(config), **data_facts(shards, fbank, values), **steps}
        folder = values["out"] if values["dry_run"] else prepare_folder(values, facts, world)
        torch.manual_seed(values["seed"])
        model = CAVMAE(config)
        start_from_init(model, values, world)
        frontend = front_end(fbank, config, values, world)
        task = PretrainTask(
            PretrainOptions(
                mask_ratio=values["mask_ratio"],
                mask_mode=values["mask_mode"],
                mae_weight=values["mae_weight"],
                contrast_weight=values["contrast_weight"],
                norm_pix_loss=values["norm_pix_loss"],
                bidirectional=values["bidirectional"],
            ),
            values["contrast_scope"],
        )
        metadata = {
            **front_end_metadata(frontend),
            "norm_pix_loss": str(int(values["norm_pix_loss"])),
        }
        evaluate = None
        if held_out is not None:
            options = HeldOutOptions(
                loss=task.options,
                contrasted=steps.get("contrasted_clips", 1),
                **loading(values),
            )
            evaluate = functools.partial(
                evaluate_together, model, frontend, held_out, options, world
            )
        trainer = build_trainer(
            model, task, frontend, shards, values, world, folder, metadata, evaluate, expected
        )
        if values["dry_run"]:
            return dry_run(trainer)
        trainer.at_start = evaluate
        seconds = train(trainer, values, told or Told(), held_out)
        save_weights(trainer, "model")
        for name, average in trainer.averages.items():
            with average.in_place():
                save_weights(trainer, name)
        finish(trainer, seconds)
        return None


def run_finetuning(
    values: dict[str, Any], expected: Expected | None = None, told: Told | None = None
) -> DryRun | None:
    """`cavmae finetune`.

    Args:
        values: the command's options.
        expected: the published curve to show beside this run's.
        told: who hears how long the run will take.

    Returns:
        With `dry_run`, on the main rank, what was measured; nothing is written then.

    Raises:
        UserError: inputs that do not fit together.
    """
    with joined_world(values["device"]) as world:
        shards = open_shards(values["shards"], values)
        validation = open_shards(values["val_shards"], {**values, "splits": values["val_splits"]})
        check_labels(shards, validation)
        config = starting_config(values, shards)
        for each in (shards, validation):
            check_frames(each, config)
        fbank = choose_normalisation(shards, values["init"])
        criterion = choose_criterion(shards, values["criterion"])
        facts = {
            **size_facts(config),
            **data_facts(shards, fbank, values),
            **step_facts(values, world),
            "val_shards_fingerprint": validation.info.fingerprint,
            "criterion": criterion,
        }
        folder = values["out"] if values["dry_run"] else prepare_folder(values, facts, world)
        torch.manual_seed(values["seed"])
        model = CAVMAEClassifier.from_pretraining(config, shards.num_classes)
        start_from_init(model, values, world, shards)
        frontend = front_end(fbank, config, values, world)
        task = FinetuneTask(values["mode"], criterion)
        metadata = {
            **front_end_metadata(frontend),
            "mode": task.mode,
            "criterion": criterion,
            **labels_metadata(shards.label_set),
        }
        metric = "accuracy" if criterion == "ce" else "map"
        options = ClassifyOptions(mode=task.mode, criterion=criterion, **loading(values))

        def validate() -> dict[str, float]:
            with collected(model):
                found = classify_together(model, frontend, validation, options, world)
            result = score(found.probabilities, found.labels)
            return {"accuracy": result.accuracy, "map": result.map, "auc": result.auc}

        def after_epoch(position: Position) -> dict[str, float]:
            measured = validate()
            is_best = world.is_main and measured[metric] > best(position.rows, metric)
            if world.any(is_best):
                save_weights(trainer, "best")
            return measured

        trainer = build_trainer(
            model, task, frontend, shards, values, world, folder, metadata, after_epoch, expected
        )
        if values["dry_run"]:
            return dry_run(trainer)
        seconds = train(trainer, values, told or Told())
        save_weights(trainer, "model")
        top = best(trainer.position.rows, metric)
        results: dict[str, Any] = {}
        for name, average in trainer.averages.items():
            with average.in_place():
                save_weights(trainer, name)
                if name == "average":
                    results["average"] = validate()
                    if world.any(world.is_main and results["average"][metric] > top):
                        save_weights(trainer, "best")
                        top = results["average"][metric]
        finish(trainer, seconds, {f"best_{metric}": top, **results})
        return None


def open_held_out(values: dict[str, Any]) -> ShardSet | None:
    """The clips that pretraining is evaluated on, if --val-shards is given.

    Raises:
        UserError: no shard set there, or --val-split without one.
    """
    if values["val_shards"] is None:
        if values["val_splits"]:
            raise UserError("--val-split chooses clips of --val-shards, which is not given.")
        return None
    chosen = {**values, "splits": values["val_splits"]}
    return spread_subset(open_shards(values["val_shards"], chosen), values["val_clips"])


def evaluate_together(
    model: CAVMAE,
    frontend: FrontEnd,
    held_out: ShardSet,
    options: HeldOutOptions,
    world: World,
    position: Position,
) -> dict[str, float]:
    """Evaluate a model that may be spread over the ranks, which all call this together."""
    with collected(model):
        return evaluate_pretraining(model, frontend, held_out, options, world)


def loading(values: dict[str, Any]) -> dict[str, Any]:
    """How clips that are evaluated are loaded: as those that are trained on."""
    return {name: values[name] for name in ("batch_size", "workers", "max_bad_samples")}


def save_weights(trainer: Trainer, name: str) -> None:
    """Write the present weights to RUN/NAME.safetensors. All ranks call this together."""
    weights = whole_weights(trainer.model, trainer.world.is_main)
    path = trainer.folder / f"{name}.safetensors"
    with written_together(trainer.world, path):
        if trainer.world.is_main:
            save_model(path, trainer.model, trainer.metadata, weights)


def data_facts(shards: ShardSet, fbank: Normalisation, values: dict[str, Any]) -> dict[str, Any]:
    """What results depend on in a shard set, wherever it lies."""
    weights = shards.class_weights.tobytes() if values.get("balanced") else None
    return {
        "shards_fingerprint": shards.info.fingerprint,
        "class_weights_sha256": hashlib.sha256(weights).hexdigest() if weights else None,
        "fbank_mean": fbank.mean,
        "fbank_std": fbank.std,
    }


def size_facts(config: ModelConfig) -> dict[str, Any]:
    """The model's size as the options would say it."""
    return {"model": size_name(config) or "custom", "audio_frames": config.audio_frames}


def size_name(config: ModelConfig) -> str | None:
    """The named size whose encoder a model has, if there is one."""
    fields = ("embed_dim", "depth", "modality_depth", "num_heads", "mlp_ratio", "patch_size")
    for name, preset in PRESETS.items():
        if all(getattr(preset, field) == getattr(config, field) for field in fields):
            return name
    return None


def starting_config(values: dict[str, Any], shards: ShardSet) -> ModelConfig:
    """The size of the model: that of --init, else the named one.

    Args:
        values: the command's options.
        shards: that `--audio-frames fit` fits.

    Raises:
        UserError: --audio-frames or --model disagree with --init.
    """
    rows = values["audio_frames"]
    if values["init"] is None:
        config = ModelConfig.preset(values["model"] or _SIZE)
        if rows == FIT:
            rows = fitting_rows(shards, config)
        return dataclasses.replace(config, audio_frames=rows) if rows else config
    file = weights_file(values["init"])
    metadata = read_metadata(file)
    if "config" in metadata:
        config = ModelConfig.from_json(metadata["config"])
    else:
        config = config_of(read_weights(file)[0], file)
    if rows not in (None, FIT, config.audio_frames):
        raise UserError(f"--audio-frames {rows}: {file} was trained with {config.audio_frames}.")
    if values["model"] not in (None, size_name(config)):
        raise UserError(
            f"--model {values['model']}: {file} is {size_name(config) or 'of a size of its own'}. "
            "Leave --model out, and it is that of --init."
        )
    return config


def start_from_init(
    model: Encoder, values: dict[str, Any], world: World, shards: ShardSet | None = None
) -> None:
    """Give a model the weights of --init, if it is given, and say how many there were.

    Args:
        model: to fill.
        values: the command's options.
        world: this process among its peers.
        shards: that a classifier's classes are from.

    Raises:
        UserError: they do not fit.
    """
    if values["init"] is None:
        return
    labels, where = (None, "") if shards is None else (shards.label_set, shards.location)
    report = init_from(model, values["init"], labels, where)
    if world.is_main:
        warn(report.notes)
        print(
            f"{values['init']}: {report.loaded} tensors taken, {len(report.unexpected)} not used, "
            f"{len(report.missing)} of the model's stay random"
        )


def check_frames(shards: ShardSet, config: ModelConfig) -> None:
    """Raises UserError where the stored frames have another size than the model takes."""
    if shards.frame_size != config.image_size:
        raise UserError(
            f"{shards.location}: frames are {shards.frame_size} pixels, the model takes "
            f"{config.image_size}."
        )


def check_labels(shards: ShardSet, validation: ShardSet) -> None:
    """Raises UserError where a classifier cannot be trained and validated on these sets."""
    if not shards.num_classes or not sum(shards.class_counts):
        raise UserError(
            f"{shards.location}: its samples have no labels. Finetuning needs a manifest with "
            "classes."
        )
    check_same_classes(shards, validation)


@dataclass(frozen=True)
class Normalisation:
    """Mean and standard deviation of the fbank, and in words where they are from."""

    mean: float
    std: float
    source: str


def choose_normalisation(shards: ShardSet, init: Path | None) -> Normalisation:
    """What `cavmae stats` has measured on the shards, else that of --init, else AudioSet's."""
    stored = read_metadata(init) if init is not None else {}
    trained = None
    if {"fbank_mean", "fbank_std"} <= stored.keys():
        trained = float(stored["fbank_mean"]), float(stored["fbank_std"])
    if shards.fbank_stats is not None:
        source = f"measured on {shards.location}"
        if trained is not None and trained != shards.fbank_stats:
            mean, std = trained
            source += f"; warning: {init} was trained with {mean:.4g} and {std:.4g}"
        return Normalisation(*shards.fbank_stats, source)
    unmeasured = f"since `cavmae stats` has not measured {shards.location}"
    if trained is not None:
        return Normalisation(*trained, f"as {init} was trained, {unmeasured}")
    return Normalisation(
        FrontEndOptions.mean, FrontEndOptions.std, f"those of AudioSet, {unmeasured}"
    )


def front_end(
    fbank: Normalisation, config: ModelConfig, values: dict[str, Any], world: World
) -> FrontEnd:
    """The front end of a run; the main rank says how it normalises."""
    if world.is_main:
        print(f"fbank mean {fbank.mean:.4g}, std {fbank.std:.4g}: {fbank.source}", file=sys.stderr)
    options = FrontEndOptions(
        target_length=config.audio_frames,
        mean=fbank.mean,
        std=fbank.std,
        freq_mask=values.get("freq_mask", 0),
        time_mask=values.get("time_mask", 0),
        noise=values["noise"],
        label_smooth=values.get("label_smooth", 0.0),
    )
    return FrontEnd(options).to(world.device)


def front_end_metadata(frontend: FrontEnd) -> dict[str, str]:
    """What must be known to give a trained model its inputs again."""
    options = frontend.options
    return {"fbank_mean": repr(options.mean), "fbank_std": repr(options.std)}


def choose_criterion(shards: ShardSet, asked: str) -> Literal["bce", "ce"]:
    """`auto` is cross-entropy where every clip has exactly one label."""
    if asked != "auto":
        return "ce" if asked == "ce" else "bce"
    single = all(len(shards.label_indices(number)) == 1 for number in range(len(shards)))
    return "ce" if single else "bce"


def build_trainer(
    model: CAVMAE | CAVMAEClassifier,
    task: Task,
    frontend: FrontEnd,
    shards: ShardSet,
    values: dict[str, Any],
    world: World,
    folder: Path,
    metadata: dict[str, str],
    after_epoch: Any = None,
    expected: Expected | None = None,
) -> Trainer:
    """Put the parts of a run together.

    Raises:
        UserError: the shard set cannot be read as asked, or the epochs to average are not trained.
    """
    options, optim = pick(TrainOptions, values), pick(OptimOptions, values)
    if options.average_epochs is not None:
        first, last = options.average_epochs
        if not first <= last <= options.epochs:
            raise UserError(
                f"--average-epochs {first} {last}: with --epochs {options.epochs}, give a first "
                f"and a last epoch from 1 to {options.epochs}."
            )
    loader = ShardLoader(
        shards,
        LoaderOptions(
            options.batch_size,
            options.workers,
            options.seed,
            balanced=values.get("balanced", False),
            mixup=values.get("mixup", 0.0),
            longest=samples_for(frontend.options.target_length),
            max_bad_samples=options.max_bad_samples,
            pin_memory=world.device.type == "cuda",
        ),
        world.rank,
        world.size,
    )
    model.to(world.device)
    return Trainer(
        model,
        task,
        frontend,
        loader,
        world,
        options,
        optim,
        folder,
        after_epoch,
        metadata,
        expected,
    )


def train(
    trainer: Trainer, values: dict[str, Any], told: Told, held_out: ShardSet | None = None
) -> float:
    """Resume if there is something to resume, train; returns the seconds this call took."""
    checkpoint = trainer.resume()
    if checkpoint is not None and trainer.world.is_main:
        position = trainer.position
        print(f"going on from {checkpoint.name}: epoch {position.epoch}, step {position.step}")
    if trainer.world.is_main:
        trainer.on_pace = told.pace
        told.outlook(
            outlook(
                trainer.loader.shards,
                trainer.model.config,
                values,
                trainer.steps_per_epoch,
                trainer.schedule_step,
                0 if held_out is None else len(held_out),
            )
        )
    started = time.monotonic()
    trainer.run()
    return time.monotonic() - started


def finish(trainer: Trainer, seconds: float, extra: dict[str, Any] | None = None) -> None:
    """Write result.json and say where everything lies. All ranks call this together."""
    unreadable = dict(pair for pairs in trainer.world.gather(trainer.loader.bad_samples)
                      for pair in pairs)  # fmt: skip
    if not trainer.world.is_main:
        return
    folder, rows = trainer.folder, trainer.position.rows
    last = {split: next((r for r in reversed(rows) if r["split"] == split), None)
            for split in ("train", "validation")}  # fmt: skip
    result = {
        **(extra or {}),
        "epochs": trainer.position.epoch,
        "steps": trainer.position.step,
        "samples_per_epoch": trainer.loader.samples_per_epoch,
        "unreadable_in_last_call": unreadable,
        "seconds_of_last_call": round(seconds, 2),
        **{split: row for split, row in last.items() if row is not None},
    }
    storage.write_json(folder / "result.json", finite(result))
    if unreadable:
        print(f"{len(unreadable)} samples could not be read and were left out: "
              f"{', '.join(sorted(unreadable)[:5])}; all of them in result.json")  # fmt: skip
    print(f"{folder}: model.safetensors, result.json, log.csv, curves.png")


def best(rows: list[dict[str, Any]], metric: str) -> float:
    """The highest value of a metric over the validations so far."""
    values = [row[metric] for row in rows if row["split"] == "validation"]
    return max(values, default=-math.inf)
