"""A few real steps, to know before a run how long it takes and what fits into memory."""

from __future__ import annotations

import gc
import itertools
import resource
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass

import torch

from avprep.errors import WorkFailed
from cavmae.data import Batch, ShardLoader
from cavmae.data.batch import Partners
from cavmae.train.folder import way_to_batch
from cavmae.train.loop import Trainer
from cavmae.train.optim import build_optimizer
from cavmae.train.options import TrainOptions

_WARM_UP = 3  # steps: memory is reserved, blocks are compiled
_FEWEST, _MOST = 3, 100  # steps that are measured
_LOADED_AHEAD = 2  # batches of each loading process
_TRIED = 3  # steps with a batch: from the second on, the next one is on the GPU as well
_LARGEST = 4096  # samples; no larger batches are tried
_FINENESS = 16  # the answer is right to one part in this many


@dataclass(frozen=True)
class DryRun:
    """What a few steps of a run showed.

    Attributes:
        device: its name.
        processes: number of processes that train together.
        batch_size: per process.
        accumulate: batches per step.
        precision: of the arithmetic.
        epochs: of the whole run.
        steps: of the whole run.
        hours: for these steps, without validation and checkpoints.
        samples_per_second: of all processes.
        data_wait: share of the time spent waiting for data.
        memory_gb: peak memory of a process: of its GPU, or its own on a CPU.
        device_gb: memory of the GPU; None on a CPU.
        largest_batch: largest batch that fits into the GPU; None if not searched.
        too_large_batch: smallest batch found not to fit; None if all did.
    """

    device: str
    processes: int
    batch_size: int
    accumulate: int
    precision: str
    epochs: int
    steps: int
    hours: float
    samples_per_second: float
    data_wait: float
    memory_gb: float
    device_gb: float | None
    largest_batch: int | None
    too_large_batch: int | None


def dry_run(trainer: Trainer, seconds: float = 20.0) -> DryRun:
    """Do real steps, then find the largest batch that fits. All ranks call it together.

    The trainer cannot be used afterwards; its folder is not touched.

    Args:
        trainer: of the run to be known, before its first step.
        seconds: after which few measured steps are enough.

    Raises:
        WorkFailed: the batch does not fit, or a run would end in its first steps.
    """
    world, options = trainer.world, trainer.options
    speed = None
    with suppress(torch.OutOfMemoryError):
        speed = measure(trainer, seconds)
    is_searched = world.device.type == "cuda" and world.size == 1
    largest, too_large = search_batch(trainer) if is_searched else (None, None)
    if speed is None:  # the other ranks may wait for this one in their step
        raise WorkFailed(does_not_fit(options, largest))
    memory = max(world.gather(speed.get("gpu_gb", _own_gb())))
    waited = max(world.gather(speed["data_wait"]))
    samples = options.epochs * trainer.loader.samples_per_epoch
    gpu = torch.cuda.get_device_properties(world.device) if world.device.type == "cuda" else None
    found = DryRun(
        device=gpu.name if gpu else world.device.type,
        processes=world.size,
        batch_size=options.batch_size,
        accumulate=options.accumulate,
        precision=options.precision,
        epochs=options.epochs,
        steps=options.epochs * trainer.steps_per_epoch,
        hours=samples / speed["samples_per_second"] / 3600,
        samples_per_second=speed["samples_per_second"],
        data_wait=waited,
        memory_gb=memory,
        device_gb=gpu.total_memory / 1e9 if gpu else None,
        largest_batch=largest,
        too_large_batch=too_large,
    )
    return world.gather(found)[0]


def measure(trainer: Trainer, seconds: float) -> dict[str, float]:
    """How fast steps on the shards go, see `Meter.facts`."""
    batches = itertools.chain.from_iterable(map(trainer.loader.epoch, itertools.count()))
    trainer.rehearse(batches, _WARM_UP)
    for _ in itertools.islice(batches, _LOADED_AHEAD * trainer.options.workers):
        pass  # what was loaded meanwhile would hide how slow loading is
    trainer.rehearse(batches, 1)
    return trainer.rehearse(batches, _MOST, seconds, _FEWEST)


def search_batch(trainer: Trainer) -> tuple[int, int | None]:
    """The largest batch that fits into the memory of the trainer's GPU; see `largest_that_fits`."""

    def fits(size: int) -> bool:
        is_fitting = False
        with suppress(torch.OutOfMemoryError):
            trainer.rehearse(itertools.repeat(made_up_batch(trainer.loader, size)), _TRIED)
            is_fitting = True
        _forget_steps(trainer)
        return is_fitting

    _forget_steps(trainer)
    given = trainer.options.batch_size
    return largest_that_fits(fits, given, max(given, _LARGEST))


def largest_that_fits(
    fits: Callable[[int], bool], start: int, limit: int
) -> tuple[int, int | None]:
    """Search by doubling, then by halving the interval, until the answer is precise enough.

    Args:
        fits: tries a size; what fits is smaller than what does not.
        start: the first size to try.
        limit: the largest.

    Returns:
        The largest size that was seen to fit, and the smallest that was seen not to: at most
        1/16 larger, or one. The first is 0 if nothing fits, the second None if the limit fits.
    """
    size, fitting = start, 0
    while fits(size):
        fitting = size
        if size == limit:
            return limit, None
        size = min(2 * size, limit)
    too_large = size
    while too_large - fitting > max(1, fitting // _FINENESS):
        middle = (fitting + too_large) // 2
        if fits(middle):
            fitting = middle
        else:
            too_large = middle
    return fitting, too_large


def made_up_batch(loader: ShardLoader, size: int) -> Batch:
    """A batch that needs as much memory as any that a loader could read: noise, in full length."""
    shards, modalities = loader.shards, loader.options.modalities
    longest = loader.options.longest if "audio" in modalities else 0
    picture = (3, shards.frame_size, shards.frame_size)
    shape = (1, *picture) if "image" in modalities else (1, 0, *picture)
    waveform = torch.randint(-9000, 9000, (1, longest), dtype=torch.int16).repeat(size, 1)
    image = torch.randint(0, 256, shape, dtype=torch.uint8)
    image = image.repeat(size, *[1] * (image.dim() - 1))
    lengths, rows = torch.full((size,), longest), torch.arange(size)
    labels = torch.zeros(size, shards.num_classes)
    partners = Partners(waveform, lengths, image, labels, rows, torch.full((size,), 0.5))
    return Batch(
        waveform,
        lengths,
        image,
        labels,
        rows,
        video_ids=[""] * size,
        partners=partners if loader.options.mixup else None,
        unreadable=[],
        planned=size,
    )


def does_not_fit(options: TrainOptions, largest: int | None) -> str:
    """What to say of a batch that is too large for the GPU.

    Args:
        options: which batch it was.
        largest: that fits; None where that is not known.
    """
    failure = f"--batch-size {options.batch_size} does not fit into the GPU's memory"
    if largest is None:
        return f"{failure}. To find the largest that does, start the dry run as one process."
    if largest == 0:
        return (
            f"{failure}, nor does a single sample. Use a smaller --model, --precision bf16 or "
            "--activation-checkpointing."
        )
    way = way_to_batch(options.batch_size * options.accumulate, largest, 1)
    return f"{failure}; {largest} does. {way} for the same number of samples per step."


def _forget_steps(trainer: Trainer) -> None:
    """Let a trainer begin again, even in the middle of a step, with all its memory free.

    The scale of 1 lets fp16 gradients never overflow, upon which the optimiser's state would not
    be made.
    """
    trainer.optimizer.zero_grad()
    trainer.optimizer = build_optimizer(trainer.model, trainer.options, trainer.transfer)
    trainer.scaler = torch.amp.GradScaler(
        trainer.world.device.type, init_scale=1.0, enabled=trainer.scaler.is_enabled()
    )
    gc.collect()
    torch.cuda.empty_cache()


def _own_gb() -> float:
    """Most memory that this process has had."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e9
