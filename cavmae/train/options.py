"""The options of a training run, each stated once; `avprep.option` says how.

A run's class has the options of all its groups, so it can be handed to whatever takes one of them.
Imports nothing heavy: `--help` shows them.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from avprep.errors import UserError
from avprep.option import Options, option
from avprep.options import TrackerName
from cavmae.options import (
    AudioFrames,
    DeviceOptions,
    Objective,
    PretrainOptions,
    ShardOptions,
    SkipOptions,
    ValidationSplit,
    WorkerOptions,
    read_shares,
)

Precision = Literal["fp32", "tf32", "bf16", "fp16"]
Parallel = Literal["ddp", "fsdp"]


@dataclass(frozen=True)
class BatchOptions(Options):
    """How many samples are read, and how many at once."""

    epochs: int = option(
        25,
        "Passes over the shard set; of a mixture, as many draws as its sets have samples.",
        at_least=1,
    )
    batch_size: int = option(48, "Samples per batch and process.", at_least=1)
    accumulate: int = option(1, "Batches per optimizer step.", at_least=1)


@dataclass(frozen=True)
class OptimOptions(Options):
    """Optimizer and learning rate."""

    lr: float = option(1e-4, "Learning rate.", at_least=0)
    optimizer: Literal["adam", "adamw"] = option(
        "adam", "adam as published; adamw decouples the weight decay."
    )
    beta1: float = option(0.95, "Adam's β1.", at_least=0, below=1)
    beta2: float = option(0.999, "Adam's β2.", at_least=0, below=1)
    weight_decay: float = option(5e-7, "Weight decay of the optimizer.", at_least=0)
    schedule: Literal["multistep", "cosine"] = option(
        "multistep", "multistep as published, or cosine to zero."
    )
    warmup_epochs: float = option(0.0, "Epochs over which the rate rises linearly.", at_least=0)
    decay_start: int = option(10, "multistep: epochs at the full rate.", at_least=1)
    decay_step: int = option(5, "multistep: epochs between decays after that.", at_least=1)
    decay_rate: float = option(0.5, "multistep: factor of each decay.", at_least=0)
    clip_grad: float = option(0.0, "Largest gradient norm; 0 for no limit.", at_least=0)


@dataclass(frozen=True)
class ComputeOptions(Options):
    """How the arithmetic is done, and what is kept of the weights."""

    precision: Precision = option(
        "fp32",
        "Precision of the model's arithmetic; losses are always float32. tf32: float32, "
        "multiplied by NVIDIA's TensorFloat-32.",
    )
    compile: bool = option(
        False, "Compile the transformer blocks (torch.compile).", off="--no-compile"
    )
    activation_checkpointing: bool = option(
        False,
        "Recompute each block in the backward pass: less memory, more time.",
        off="--no-activation-checkpointing",
    )
    parallel: Parallel = option(
        "ddp",
        "Each process holds a replica (ddp) or a shard (fsdp) of weights and optimizer state.",
    )
    ema: float = option(
        0.0,
        "Decay of an exponential average of the weights over steps; 0 for none.",
        at_least=0,
        below=1,
    )
    average_epochs: tuple[int, int] | None = option(
        None,
        "Average the weights after these epochs, counted from 1. [default: none]",
        at_least=1,
        metavar="FIRST LAST",
    )


@dataclass(frozen=True)
class RandomOptions(Options):
    """What is random."""

    seed: int = option(0, "Seed of everything random.", at_least=0, at_most=2**63 - 1)
    noise: bool = option(True, "Add noise to the fbank and rotate it in time.", off="--no-noise")


@dataclass(frozen=True)
class RecordOptions(Options):
    """What a run leaves behind, and when."""

    checkpoint_steps: int = option(
        0, "Also save every N steps; 0 saves at epoch ends only.", at_least=0
    )
    checkpoint_minutes: float = option(
        10.0, "Also save when this many minutes have passed.", above=0
    )
    keep_checkpoints: int = option(
        2, "Number of newest checkpoints to keep; older ones are deleted.", at_least=1
    )
    track: tuple[TrackerName, ...] = option(
        ("tensorboard",), "Tracker that also gets the rows of log.csv; may be given several times."
    )
    log_steps: int = option(20, "Steps between log rows inside an epoch; 0 for none.", at_least=0)
    profile: int = option(
        0, "Write RUN/trace.json of this many steps, after the first five.", at_least=0
    )


@dataclass(frozen=True)
class TrainOptions(
    SkipOptions,
    RecordOptions,
    DeviceOptions,
    RandomOptions,
    WorkerOptions,
    ComputeOptions,
    OptimOptions,
    BatchOptions,
):
    """All that the training loop obeys."""

    resume: Literal["auto", "never"] = option(
        "auto",
        "auto resumes from the newest checkpoint in --out; never refuses a used folder.",
    )

    def __post_init__(self) -> None:
        """Raises:
        UserError: a value is not allowed, or the epochs to average are not trained.
        """
        super().__post_init__()
        if self.average_epochs is not None:
            first, last = self.average_epochs
            if not first <= last <= self.epochs:
                raise UserError(
                    f"--average-epochs {first} {last}: with --epochs {self.epochs}, give a first "
                    f"and a last epoch from 1 to {self.epochs}."
                )


@dataclass(frozen=True, kw_only=True)
class PlaceOptions(Options):
    """What is read and written."""

    shards: str | tuple[str, ...] = option(
        help="Folder or URL of the training shard set. May be given several times for a "
        "mixture of sets, with "
        "each one's share of the draws (A=0.7) or without (in proportion to their samples).",
        metavar="PLACE[=SHARE]",
    )
    out: str = option(help="Run directory: a folder, or a URL of an object store.", metavar="PLACE")

    def __post_init__(self) -> None:
        """Raises:
        UserError: a value is not allowed, or --shards gives wrong shares.
        """
        super().__post_init__()
        read_shares(self.shards)


@dataclass(frozen=True)
class HeldOutShards(Options):
    """What pretraining is evaluated on."""

    val_shards: str | None = option(
        None,
        "Shard set to evaluate on before the first step and after each epoch. [default: none]",
    )
    val_clips: int = option(
        500, "Clips of --val-shards to use, evenly spread; 0 for all.", at_least=0
    )


@dataclass(frozen=True, kw_only=True)
class ValidationOptions(Options):
    """What finetuning is evaluated on."""

    val_shards: str = option(help="Shard set to evaluate on after each epoch.")


@dataclass(frozen=True)
class ModelOptions(Options):
    """What is trained."""

    init: str | None = option(
        None,
        "Run or checkpoint file, or its URL, to start from; hf://org/name[@revision] on the hub. "
        "[default: random weights]",
        metavar="PATH",
    )
    model: str | None = option(
        None, "Size: tiny, small, base (published) or large. [default: base, or as --init]"
    )
    audio_frames: AudioFrames | None = option(
        None,
        "fbank rows the model takes, 10 ms each; fit: as many as 95 % of the clips need, at most "
        "1024. [default: 1024, or as --init]",
        at_least=16,
        also=(0,),  # `FIT`
        metavar="ROWS|fit",
    )


@dataclass(frozen=True)
class ObjectiveOptions(Options):
    """What is learned."""

    objective: Objective | None = option(
        None,
        "cav-mae; or a system that the paper compares it with: av-mae (one encoder for both "
        "modalities, reconstruction alone), cav (contrast alone, nothing hidden), audio-mae or "
        "image-mae (reconstruction of one modality). [default: cav-mae, or as --init]",
    )


@dataclass(frozen=True)
class ClassifierOptions(Options):
    """What a classifier learns from, and how its answers are judged."""

    mode: Literal["multimodal", "audioonly", "videoonly"] = option(
        "multimodal", "Modalities the classifier is given."
    )
    criterion: Literal["auto", "bce", "ce"] = option(
        "auto", "auto: ce where every clip has exactly one label, else bce.", flag="--loss"
    )


@dataclass(frozen=True)
class TransferOptions(Options):
    """How much of what was pretrained may change."""

    head_lr_ratio: float = option(
        1.0, "Learning rate of the head divided by that of the base.", at_least=0
    )
    freeze_base: bool = option(False, "Train the head alone (linear probe).")
    layer_decay: float = option(
        1.0, "Learning rate of each block divided by that of the next.", above=0, at_most=1
    )


@dataclass(frozen=True)
class AugmentOptions(Options):
    """How clips are drawn and changed for a classifier."""

    mixup: float = option(0.5, "Share of clips mixed with another.", at_least=0, at_most=1)
    freq_mask: int = option(48, "SpecAugment: widest band hidden, mel bins.", at_least=0)
    time_mask: int = option(192, "SpecAugment: longest stretch hidden, fbank rows.", at_least=0)
    label_smooth: float = option(0.1, "Label smoothing.", at_least=0, below=1)
    balanced: bool = option(False, "Draw rare classes as often as frequent ones.", off="--uniform")


@dataclass(frozen=True)
class PretrainRun(
    TrainOptions,
    ShardOptions,
    PretrainOptions,
    ModelOptions,
    ObjectiveOptions,
    ValidationSplit,
    HeldOutShards,
    PlaceOptions,
):
    """A pretraining run."""

    def __post_init__(self) -> None:
        """Raises:
        UserError: a value is not allowed, or --val-split is given without --val-shards.
        """
        super().__post_init__()
        self.check_set(self.val_shards)


@dataclass(frozen=True)
class FinetuneRun(
    TrainOptions,
    ShardOptions,
    AugmentOptions,
    TransferOptions,
    ClassifierOptions,
    ModelOptions,
    ValidationSplit,
    ValidationOptions,
    PlaceOptions,
):
    """A finetuning run."""


@dataclass(frozen=True)
class FoldsRun(
    TrainOptions,
    ShardOptions,
    AugmentOptions,
    TransferOptions,
    ClassifierOptions,
    ModelOptions,
    PlaceOptions,
):
    """Finetuning runs over the folds of a shard set."""

    shards: str = option(help="Folder or URL of the shard set.")
    out: str = option(
        help="Folder, or URL of an object store, for a run directory per fold.", metavar="PLACE"
    )


Run = PretrainRun | FinetuneRun
