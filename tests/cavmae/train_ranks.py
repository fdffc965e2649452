"""One rank of several that train together; started by torchrun from test_parallel.py.

torchrun … -m tests.cavmae.train_ranks SHARDS DAMAGED_COPY OUT
"""

from __future__ import annotations

import json
import os
import resource
import signal
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch.distributed.tensor import DTensor

from avprep.errors import WorkFailed
from cavmae.data import Batch, LoaderOptions, ShardLoader, ShardSet
from cavmae.distributed import World, joined_world
from cavmae.evaluation.classify import ClassifyOptions, classify_together
from cavmae.evaluation.held_out import HeldOutOptions, evaluate_pretraining
from cavmae.frontend import FrontEnd, FrontEndOptions
from cavmae.model import CAVMAE, MODES, CAVMAEClassifier, ModelConfig, PretrainOptions
from cavmae.train.loop import Trainer
from cavmae.train.options import TrainOptions, TransferOptions
from cavmae.train.parallel import collected
from cavmae.train.tasks import FinetuneTask, PretrainTask, Task

SAMPLES, STEP = 15, 8  # of the set, and of a step over all ranks: the last one has 7
CONFIG = ModelConfig(
    embed_dim=32, depth=3, modality_depth=1, num_heads=2, image_size=16, audio_frames=16
)
PATCHES = replace(CONFIG, patch_size=8, decoder_dim=16, decoder_depth=1, decoder_heads=2)
TASKS: list[tuple[Task, dict[str, Any]]] = [  # each leaves other parameters without a gradient
    (PretrainTask(PretrainOptions()), {}),
    (PretrainTask(PretrainOptions(contrast_scope="global")), {}),
    (PretrainTask(PretrainOptions(mae_weight=0)), {}),
    (PretrainTask(PretrainOptions(contrast_weight=0)), {}),
    *((FinetuneTask(mode, "bce"), {}) for mode in MODES),
    (FinetuneTask("multimodal", "bce"), {"freeze_base": True}),
]
WAYS: dict[str, dict[str, Any]] = {
    "ddp": {},
    "fsdp": {"parallel": "fsdp"},
    "ddp, several batches a step": {"accumulate": 2},
    "fsdp, several batches a step": {"parallel": "fsdp", "accumulate": 2},
    "fsdp, recomputed": {"parallel": "fsdp", "activation_checkpointing": True},
    "fsdp, averaged": {"parallel": "fsdp", "ema": 0.5, "average_epochs": (1, 2)},
}


class ToldToStop(ShardLoader):
    """This process gets a signal when it asks for its first batch."""

    def epoch(self, epoch: int = 0, start: int = 0) -> Iterator[Batch]:
        os.kill(os.getpid(), signal.SIGTERM)
        yield from super().epoch(epoch, start)


class NotFinite(ShardLoader):
    """Its labels break this rank's loss in the second step."""

    def epoch(self, epoch: int = 0, start: int = 0) -> Iterator[Batch]:
        for number, batch in enumerate(super().epoch(epoch, start)):
            if number == 1:
                batch.labels.fill_(torch.nan)
            yield batch


def train(
    way: str,
    shards: Path,
    folder: Path,
    world: World,
    epochs: int = 2,
    loader_type: type[ShardLoader] = ShardLoader,
) -> Trainer:
    """Train a classifier in one of the ways; the same gradients whatever the world."""
    task = FinetuneTask("multimodal", "bce")
    return train_task(task, shards, folder, world, epochs, loader_type, **WAYS[way])


def train_task(
    task: Task,
    shards: Path,
    folder: Path,
    world: World,
    epochs: int = 1,
    loader_type: type[ShardLoader] = ShardLoader,
    freeze_base: bool = False,
    **options: Any,
) -> Trainer:
    """Train a small model for a task in steps of `STEP` samples."""
    batch = STEP // world.size // options.get("accumulate", 1)
    torch.manual_seed(0)
    is_pretrained = isinstance(task, PretrainTask)
    model = CAVMAE(PATCHES) if is_pretrained else CAVMAEClassifier(CONFIG, 4)
    loader = loader_type(
        ShardSet.open(shards), LoaderOptions(batch, workers=0), world.rank, world.size
    )
    frontend = FrontEnd(FrontEndOptions(target_length=CONFIG.audio_frames))
    folder.mkdir(exist_ok=True)
    trainer = Trainer(
        model,
        task,
        frontend,
        loader,
        world,
        TrainOptions(
            epochs=epochs, batch_size=batch, log_steps=1, lr=1e-3, clip_grad=0.5, **options
        ),
        folder,
        transfer=TransferOptions(freeze_base=freeze_base),
    )
    trainer.resume()
    trainer.run()
    return trainer


def evaluate(trainer: Trainer, shards: Path) -> dict[str, Any]:
    """Classify some clips, so few that a rank may have none, under the model's present weights."""
    few = ShardSet.open(shards)
    options = ClassifyOptions(mode="multimodal", criterion="bce", batch_size=2, workers=0)
    found = {}
    for name, chosen in (("all", few), ("one", one_clip(few))):
        with collected(trainer.model):
            result = classify_together(
                trainer.model, trainer.frontend, chosen, options, trainer.world
            )
        found[name] = {
            "index": result.index.tolist(),
            "video_ids": result.video_ids,
            "probabilities": result.probabilities.tolist(),
        }
    return found


def evaluate_held_out(shards: Path, world: World) -> dict[str, dict[str, float]]:
    """What a model does on some clips, so few that a rank may have none."""
    torch.manual_seed(0)
    model, few = CAVMAE(PATCHES), ShardSet.open(shards)
    frontend = FrontEnd(FrontEndOptions(target_length=CONFIG.audio_frames))
    options = HeldOutOptions(loss=PretrainOptions(), contrasted=4, batch_size=2, workers=0)
    return {
        name: evaluate_pretraining(model, frontend, chosen, options, world)
        for name, chosen in (("all", few), ("one", one_clip(few)))
    }


def one_clip(shards: ShardSet) -> ShardSet:
    """A selection of a single clip."""
    import numpy as np

    return ShardSet(shards.location, shards.info, shards.options, shards.table, np.array([3]))


def sizes(trainer: Trainer) -> dict[str, int]:
    """Elements of the trained parameters, and of what this rank holds of them and their state."""
    trained = [p for p in trainer.model.parameters() if p.requires_grad]
    moments = [state["exp_avg"] for state in trainer.optimizer.state.values()]
    return {
        "whole": sum(map(torch.numel, trained)),
        "own": sum(local(p).numel() for p in trained),
        "own_optimiser": sum(local(moment).numel() for moment in moments),
    }


def local(tensor: torch.Tensor) -> torch.Tensor:
    return tensor.to_local() if isinstance(tensor, DTensor) else tensor


def ends(shards: Path, damaged: Path, out: Path, world: World) -> dict[str, list[str]]:
    """How runs end that one rank cannot go on with: the error of every rank."""
    mine = damaged if world.rank == 1 else shards
    stopped = ToldToStop if world.rank == 0 else ShardLoader
    found = {
        "unreadable": how_it_ends(mine, out / "unreadable", world),
        "unreadable, told to stop": how_it_ends(mine, out / "both", world, stopped),
    }
    broken = NotFinite if world.rank == 1 else ShardLoader
    found["not finite"] = how_it_ends(shards, out / "not finite", world, broken)
    found["validation"] = how_validation_ends(mine, world)
    unlimited = resource.getrlimit(resource.RLIMIT_FSIZE)
    if world.is_main:
        resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, unlimited[1]))
    found["full disk"] = how_it_ends(shards, out / "full", world)
    resource.setrlimit(resource.RLIMIT_FSIZE, unlimited)
    stopped = ToldToStop if world.rank == 1 else ShardLoader
    found["told to stop"] = how_it_ends(shards, out / "stopped", world, stopped)
    found["resumed"] = how_it_ends(shards, out / "stopped", world)
    return found


def how_it_ends(
    shards: Path, folder: Path, world: World, loader_type: type[ShardLoader] = ShardLoader
) -> list[str]:
    """The error that each rank's training ends with, as text."""
    try:
        train("ddp", shards, folder, world, loader_type=loader_type)
    except (KeyboardInterrupt, WorkFailed) as error:
        return world.gather(repr(error))
    return world.gather("")


def how_validation_ends(shards: Path, world: World) -> list[str]:
    """The error that each rank's classifying of a set ends with, as text."""
    try:
        classify_together(
            CAVMAEClassifier(CONFIG, 4),
            FrontEnd(FrontEndOptions(target_length=CONFIG.audio_frames)),
            ShardSet.open(shards),
            ClassifyOptions(
                mode="multimodal", criterion="ce", batch_size=2, workers=0, max_bad_samples=1
            ),
            world,
        )
    except WorkFailed as error:
        return world.gather(repr(error))
    return world.gather("")


def main() -> None:
    torch.set_num_threads(1)
    shards, damaged, out = map(Path, sys.argv[1:])
    with joined_world("cpu") as world:
        for number, way in enumerate(WAYS):
            trainer = train(way, shards, out / str(number), world)
            found = {**evaluate(trainer, shards), **sizes(trainer)}
            averages = {name: a.state(world.is_main) for name, a in trainer.averages.items()}
            if world.is_main:
                (out / f"{number}.json").write_text(json.dumps(found))
                torch.save(averages, out / f"{number}.pt")
        for number, (task, options) in enumerate(TASKS):
            for way in ({"accumulate": 2}, {"parallel": "fsdp", "accumulate": 2}):
                folder = out / f"task-{number}-{way.get('parallel')}"
                train_task(task, shards, folder, world, **options, **way)
        held_out = evaluate_held_out(shards, world)
        if world.is_main:
            (out / "held-out.json").write_text(json.dumps(held_out))
        found = ends(shards, damaged, out, world)
        if world.is_main:
            (out / "ends.json").write_text(json.dumps(found))


if __name__ == "__main__":
    main()
