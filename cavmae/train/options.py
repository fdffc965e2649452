"""What a training run is made of. The defaults here are the command line's defaults."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Precision = Literal["fp32", "tf32", "bf16", "fp16"]
Parallel = Literal["ddp", "fsdp"]
FIT = "fit"  # --audio-frames: as many rows as the clips need


@dataclass(frozen=True)
class OptimOptions:
    """Optimiser and learning rate."""

    lr: float = 1e-4
    optimizer: Literal["adam", "adamw"] = "adam"  # adam couples weight decay, as published
    beta1: float = 0.95
    beta2: float = 0.999
    weight_decay: float = 5e-7
    schedule: Literal["multistep", "cosine"] = "multistep"
    warmup_epochs: float = 0.0
    decay_start: int = 10  # multistep: epochs at the full rate; then it is multiplied …
    decay_rate: float = 0.5  # … by this …
    decay_step: int = 5  # … and again every this many epochs
    head_lr_ratio: float = 1.0  # of the classifier head
    freeze_base: bool = False  # train the head alone (linear probe)
    layer_decay: float = 1.0  # rate of each block over that of the block after it
    clip_grad: float = 0.0  # largest gradient norm; 0 for no limit


@dataclass(frozen=True)
class TrainOptions:
    """The loop."""

    epochs: int = 25
    batch_size: int = 48  # of one process
    accumulate: int = 1  # batches per step
    precision: Precision = "fp32"
    compile: bool = False  # the transformer blocks, with torch.compile
    activation_checkpointing: bool = False  # recompute the blocks' activations
    parallel: Parallel = "ddp"
    ema: float = 0.0  # decay of an exponential average of the weights; 0 for none
    average_epochs: tuple[int, int] | None = None  # first and last epoch, counted from 1
    workers: int = 2
    seed: int = 0
    device: str = "auto"
    checkpoint_steps: int = 0  # also after this many steps; 0 for at epoch ends only
    checkpoint_minutes: float = 10.0  # also when this much time has passed
    keep_checkpoints: int = 2  # the newest; the best weights are kept beside them
    log_steps: int = 20
    max_bad_samples: int = 10
    val_clips: int = 500  # of the held-out set that pretraining is evaluated on; 0 for all
    profile: int = 0  # steps that are traced
    dry_run: bool = False  # do a few steps, measure them, and write nothing
