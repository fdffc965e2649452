"""One rank of several that train together; started by torchrun from test_parallel.py.

torchrun … -m tests.cavmae.train_ranks SHARDS OUT
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import torch
from torch.distributed.tensor import DTensor

from cavmae.data import LoaderOptions, ShardLoader, ShardSet
from cavmae.distributed import World, joined_world
from cavmae.evaluate.classify import ClassifyOptions, classify_together
from cavmae.frontend import FrontEnd, FrontEndOptions
from cavmae.model import CAVMAEClassifier, ModelConfig
from cavmae.train.loop import Trainer
from cavmae.train.options import OptimOptions, TrainOptions
from cavmae.train.parallel import collected
from cavmae.train.tasks import FinetuneTask

SAMPLES, STEP = 15, 8  # of the set, and of a step over all ranks: the last one has 7
CONFIG = ModelConfig(
    embed_dim=32, depth=3, modality_depth=1, num_heads=2, image_size=16, audio_frames=16
)
WAYS: dict[str, dict[str, Any]] = {
    "ddp": {},
    "fsdp": {"parallel": "fsdp"},
    "ddp, several batches a step": {"accumulate": 2},
    "fsdp, several batches a step": {"parallel": "fsdp", "accumulate": 2},
    "fsdp, recomputed": {"parallel": "fsdp", "activation_checkpointing": True},
    "fsdp, averaged": {"parallel": "fsdp", "ema": 0.5, "average_epochs": (1, 2)},
}


def train(way: str, shards: Path, folder: Path, world: World, epochs: int = 2) -> Trainer:
    """Train a classifier in one of the ways; the same gradients whatever the world."""
    options = WAYS[way]
    batch = STEP // world.size // options.get("accumulate", 1)
    torch.manual_seed(0)
    model = CAVMAEClassifier(CONFIG, 4)
    loader = ShardLoader(
        ShardSet.open(shards), LoaderOptions(batch, workers=0), world.rank, world.size
    )
    frontend = FrontEnd(FrontEndOptions(target_length=CONFIG.audio_frames))
    folder.mkdir(exist_ok=True)
    trainer = Trainer(
        model,
        FinetuneTask("multimodal", "bce"),
        frontend,
        loader,
        world,
        TrainOptions(epochs=epochs, batch_size=batch, log_steps=1, **options),
        OptimOptions(lr=1e-3, clip_grad=0.5),
        folder,
    )
    trainer.resume()
    trainer.run()
    return trainer


def evaluate(trainer: Trainer, shards: Path) -> dict[str, Any]:
    """Classify some clips, so few that a rank may have none, under the model's present weights."""
    few = ShardSet.open(shards)
    options = ClassifyOptions(criterion="bce", batch_size=2, workers=0)
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


def main() -> None:
    torch.set_num_threads(1)
    shards, out = map(Path, sys.argv[1:])
    with joined_world("cpu") as world:
        for number, way in enumerate(WAYS):
            trainer = train(way, shards, out / str(number), world)
            found = {**evaluate(trainer, shards), **sizes(trainer)}
            averages = {name: a.state(world.is_main) for name, a in trainer.averages.items()}
            if world.is_main:
                (out / f"{number}.json").write_text(json.dumps(found))
                torch.save(averages, out / f"{number}.pt")


if __name__ == "__main__":
    main()
