"""Batches from shard sets: planned in the main process, read by workers, nothing computed."""

from __future__ import annotations

import multiprocessing.util
import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Literal

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch.utils.data import DataLoader, Dataset, get_worker_info

from avprep.errors import Unreadable, UserError, WorkFailed
from avprep.processes import held
from cavmae.data.batch import Batch, PackedBatch, Partners, allocate, pack
from cavmae.data.mixture import Mixture
from cavmae.data.plan import (
    EpochPlan,
    balanced_order,
    mixed_order,
    plan_epoch,
    shuffled_order,
    step_count,
    steps,
)
from cavmae.data.sample import DamagedSample, DecodedSample, Wanted, decode_sample
from cavmae.data.shardset import ShardSet
from cavmae.options import BOTH, Modality

_ALL_FRAMES = -1
_SHOWN = 5  # bad samples in an error

_Shape = tuple[torch.dtype, tuple[int, ...]]


@dataclass(frozen=True)
class LoaderOptions:
    """How a shard set is read."""

    batch_size: int  # of one rank
    workers: int = 2
    seed: int = 0
    shuffle: bool = True
    frame: Literal["random", "middle", "all"] | int = "random"
    modalities: tuple[Modality, ...] = BOTH  # nothing is read of the other one
    balanced: bool = False  # draw classes evenly, with replacement
    mixup: float = 0.0  # share of samples that are mixed with another
    longest: int = 164080  # samples of audio; 1024 fbank rows
    max_bad_samples: int = 10  # different unreadable ones before the run is ended
    pin_memory: bool = False


@dataclass(frozen=True)
class _Request:
    """One batch for a worker to read. Arrays are aligned; see `EpochPlan`."""

    index: NDArray[np.int64]
    frame: NDArray[np.int64]
    partner: NDArray[np.int64]
    partner_frame: NDArray[np.int64]
    share: NDArray[np.float32]
    planned: int


class ShardLoader:
    """Yields the batches of one rank.

    A batch is a function of (shard set, options, epoch, place in the epoch): the number of
    workers changes nothing, and the number of ranks only how a step's samples are shared. A
    sample that cannot be read is left out of its batch, whose other rows stay as they are, and a
    clip whose partner for mixup cannot be read stays unmixed.
    """

    def __init__(
        self, shards: ShardSet | Mixture, options: LoaderOptions, rank: int = 0, world: int = 1
    ) -> None:
        """Args:
        shards: what is read.
        options: how.
        rank: of this process.
        world: number of processes.

        Raises:
            UserError: the shard set is too small, or the options ask for what it does not hold.
        """
        if len(shards) < world and options.shuffle:
            raise UserError(
                f"{shards.location}: {len(shards)} samples cannot feed {world} processes. "
                "Start fewer."
            )
        frame = options.frame if "image" in options.modalities else "random"
        if isinstance(frame, int) and not 0 <= frame < shards.frames:
            raise UserError(f"frame {frame}: samples hold frames 0 to {shards.frames - 1}.")
        self.shards = shards
        self.options = options
        self.rank = rank
        self.world = world
        self._bad: dict[str, str] = {}
        self._requests: list[_Request] = []
        self._weights = list(map(_sample_weights, shards.sets)) if options.balanced else None
        shards.prepare()
        # A worker forked from a process whose OpenCV has threads waits for them for ever.
        cv2.setNumThreads(1)
        if options.workers:
            # Workers keep a socket in the folder of this process, which takes it along as it ends;
            # each would leave one of its own in TMPDIR, for they are ended without ceremony.
            multiprocessing.util.get_temp_dir()
        self._loader = DataLoader(
            _BatchReader(shards, options),
            batch_size=None,
            sampler=self._requests,  # filled anew for each epoch
            num_workers=options.workers,
            pin_memory=options.pin_memory,
            persistent_workers=options.workers > 0,
            worker_init_fn=_settle_worker,
        )

    @property
    def bad_samples(self) -> list[tuple[str, str]]:
        """(video_id, reason) of the samples that could not be read so far, each once."""
        return list(self._bad.items())

    @property
    def samples_per_epoch(self) -> int:
        """Samples that all ranks together read in an epoch."""
        return len(self.shards)

    @property
    def steps_per_epoch(self) -> int:
        """Batches of every rank in an epoch."""
        return step_count(len(self.shards), self.options.batch_size, self.world)

    def epoch(self, epoch: int = 0, start: int = 0) -> Iterator[Batch]:
        """The batches of an epoch, in order.

        Args:
            epoch: from 0; decides the order and every random choice.
            start: samples of this epoch that were read before (by all ranks together).

        Raises:
            WorkFailed: more than `max_bad_samples` samples could not be read, a batch has none
                left, or a worker died.
        """
        self._requests[:] = self._cut(self._plan(epoch), start)
        if not self._requests:
            return
        try:
            with _signals_kept():
                batches = iter(self._loader)
            for packed in batches:
                batch = packed.unpack()
                self._note_bad(batch)
                yield batch
        except RuntimeError as error:
            if "DataLoader worker" not in str(error):
                raise
            raise WorkFailed(
                f"a loading process died ({error}). If memory ran out, use fewer --workers or a "
                "smaller --batch-size; in a container, give /dev/shm more room (--shm-size)."
            ) from error

    def _plan(self, epoch: int) -> EpochPlan:
        options, shards = self.options, self.shards
        total = len(shards)
        if isinstance(shards, Mixture):
            seeds = np.random.SeedSequence([options.seed, 3]).generate_state(len(shards.sets))
            order = mixed_order(
                list(map(len, shards.sets)),
                shards.shares,
                options.seed,
                epoch,
                lambda number, one: self._pass(number, int(seeds[number]), one),
            )
        elif options.shuffle or options.balanced:
            order = self._pass(0, options.seed, epoch)
        else:
            order = np.arange(total)
        plan = plan_epoch(order, total, shards.frames, options.seed, epoch, options.mixup)
        if isinstance(shards, Mixture):
            # Partners are of the sets as often as the clips are: other draws of the epoch.
            plan = replace(plan, partner=np.where(plan.partner < 0, -1, order[plan.partner]))
        return plan

    def _pass(self, number: int, seed: int, epoch: int) -> NDArray[np.int64]:
        """The order of a pass through one of the sets."""
        if self._weights is not None:
            return balanced_order(self._weights[number], seed, epoch)
        return shuffled_order(self.shards.sets[number].shard_sizes, seed, epoch)

    def _cut(self, plan: EpochPlan, start: int) -> list[_Request]:
        options = self.options
        if options.shuffle or options.balanced:
            cuts = [
                (step.places(self.rank, self.world), step.stop - step.start)
                for step in steps(len(plan), options.batch_size, self.world, start)
            ]
        else:
            # Evaluation: no step is shared, so a rank may well have one batch fewer.
            mine = np.arange(start + self.rank, len(plan), self.world)
            size = options.batch_size
            pieces = [mine[first : first + size] for first in range(0, len(mine), size)]
            cuts = [(piece, len(piece)) for piece in pieces]
        return [
            _Request(
                plan.index[places],
                self._frames(plan.frame[places]),
                plan.partner[places],
                self._frames(plan.partner_frame[places]),
                plan.share[places],
                planned,
            )
            for places, planned in cuts
        ]

    def _frames(self, drawn: NDArray[np.int64]) -> NDArray[np.int64]:
        if self.options.frame == "random":
            return drawn
        if self.options.frame == "all":
            return np.full_like(drawn, _ALL_FRAMES)
        chosen = self.shards.frames // 2 if self.options.frame == "middle" else self.options.frame
        return np.full_like(drawn, chosen)

    def _note_bad(self, batch: Batch) -> None:
        for video_id, reason in batch.unreadable:
            self._bad.setdefault(video_id, reason)
        allowed = self.options.max_bad_samples
        if len(self._bad) <= allowed and len(batch):
            return
        listed = "; ".join(list(self._bad.values())[:_SHOWN])
        more = f"; and {len(self._bad) - _SHOWN} more" * (len(self._bad) > _SHOWN)
        why = f"more than --max-bad-samples {allowed} allows" if len(batch) else "a whole batch"
        raise WorkFailed(
            f"{len(self._bad)} samples could not be read, {why}: {listed}{more}. "
            "Check the shards with `avprep verify`."
        )


class _BatchReader(Dataset[PackedBatch]):
    """Reads the batch that a request describes. Runs in the workers."""

    def __init__(self, shards: ShardSet | Mixture, options: LoaderOptions) -> None:
        self.shards = shards
        self.options = options

    def __getitem__(self, request: _Request) -> PackedBatch:
        mixed = np.flatnonzero(request.partner >= 0)
        partners = self._read(request.partner[mixed], request.partner_frame[mixed], True)
        partner_of = dict(zip(mixed.tolist(), partners, strict=True))
        unreadable = [
            (self.shards.video_id(int(request.partner[place])), partner.detail)
            for place, partner in partner_of.items()
            if isinstance(partner, Unreadable)
        ]
        rows: list[DecodedSample] = []
        others: list[DecodedSample] = []
        index, other_rows, shares = [], [], []
        samples = self._read(request.index, request.frame, self.options.balanced)
        for place, sample in enumerate(samples):
            number = int(request.index[place])
            if isinstance(sample, Unreadable):
                unreadable.append((self.shards.video_id(number), sample.detail))
                continue
            partner = partner_of.get(place)
            if isinstance(partner, DecodedSample):
                others.append(partner)
                other_rows.append(len(rows))
                shares.append(float(request.share[place]))
            rows.append(sample)
            index.append(number)
        memory, own, mates = self._allocate(rows, others)
        self._fill(own, rows)
        own["index"].copy_(torch.tensor(index, dtype=torch.int64))
        if others:
            self._fill(mates, others)
            mates["rows"].copy_(torch.tensor(other_rows))
            mates["share"].copy_(torch.tensor(shares))
        batch = Batch(
            **own,
            video_ids=[row.entry.video_id for row in rows],
            partners=Partners(**mates) if others else None,
            unreadable=unreadable,
            planned=request.planned,
        )
        return pack(batch, memory)

    def _read(
        self, numbers: NDArray[np.int64], frames: NDArray[np.int64], scattered: bool
    ) -> Iterator[DecodedSample | Unreadable]:
        places = zip(numbers.tolist(), frames.tolist(), strict=True)
        wanted = [self._wanted(number, frame) for number, frame in places]
        stored = self.shards.read_many(numbers, scattered, wanted)
        for sample, part in zip(stored, wanted, strict=True):
            if isinstance(sample, Unreadable):
                yield sample
                continue
            try:
                yield decode_sample(sample, part, self.options.longest, self.shards.frame_size)
            except DamagedSample as error:
                yield Unreadable("garbage", str(error))

    def _wanted(self, number: int, frame: int) -> Wanted:
        frames = range(self.shards.frames) if frame == _ALL_FRAMES else (frame,)
        own = (self.shards.own_frame(number, each) for each in frames)
        modalities = self.options.modalities
        return Wanted("audio" in modalities, tuple(own) if "image" in modalities else ())

    def _allocate(
        self, rows: list[DecodedSample], others: list[DecodedSample]
    ) -> tuple[torch.Tensor, dict[str, torch.Tensor], dict[str, torch.Tensor]]:
        """One piece of memory, and in it the tensors of the batch and of its partners."""
        own = {**self._shapes(rows), "index": (torch.int64, (len(rows),))}
        mates = {
            **self._shapes(others),
            "rows": (torch.int64, (len(others),)),
            "share": (torch.float32, (len(others),)),
        }
        shapes = {("own", name): shape for name, shape in own.items()}
        if others:
            shapes |= {("mates", name): shape for name, shape in mates.items()}
        memory, tensors = allocate(shapes, shared=get_worker_info() is not None)
        return (
            memory,
            {name: tensor for (whose, name), tensor in tensors.items() if whose == "own"},
            {name: tensor for (whose, name), tensor in tensors.items() if whose == "mates"},
        )

    def _shapes(self, rows: list[DecodedSample]) -> dict[str, _Shape]:
        """dtype and shape of the fields of `Samples`."""
        count, size = len(rows), self.shards.frame_size
        pictures: tuple[int, ...] = (self.shards.frames,) if self.options.frame == "all" else ()
        if "image" not in self.options.modalities:
            pictures = (0,)
        return {
            "waveform": (torch.int16, (count, max((len(row.pcm) for row in rows), default=0))),
            "lengths": (torch.int64, (count,)),
            "image": (torch.uint8, (count, *pictures, 3, size, size)),
            "labels": (torch.float32, (count, self.shards.num_classes)),
        }

    def _fill(self, tensors: dict[str, torch.Tensor], rows: list[DecodedSample]) -> None:
        waveform, image = tensors["waveform"].numpy(), tensors["image"].numpy()
        labels = tensors["labels"].zero_()
        for number, row in enumerate(rows):
            waveform[number, : len(row.pcm)] = row.pcm
            waveform[number, len(row.pcm) :] = 0
            labels[number, list(row.entry.labels)] = 1.0
            # Channels move to the front here, so that the copy to the device is contiguous.
            pictures = image[number].reshape(-1, *image.shape[-3:])  # a view
            for place, picture in zip(pictures, row.image, strict=True):
                cv2.split(picture, list(place))
        tensors["lengths"].copy_(torch.tensor([len(row.pcm) for row in rows]))


def _sample_weights(shards: ShardSet) -> NDArray[np.float64]:
    weights = shards.sample_weights(shards.class_weights)
    if not weights.any():
        raise UserError(
            f"{shards.location}: no sample has a label, so classes cannot be balanced. Leave "
            "--balanced out."
        )
    return weights


def _settle_worker(number: int) -> None:
    """Workers are as many as the user wants; their libraries must not add threads."""
    torch.set_num_threads(1)
    cv2.setNumThreads(1)
    # Ctrl-C reaches the whole process group, Slurm's SIGTERM all processes of a step, and the main
    # process still has a step to finish.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
    threading.Thread(target=_obey_parent, daemon=True).start()


def _obey_parent() -> None:
    """End a worker that its parent terminates; nobody else's SIGTERM does.

    Without a parent it ends by itself, as PyTorch's workers do.
    """
    parent = multiprocessing.parent_process()
    assert parent is not None
    while signal.sigwaitinfo({signal.SIGTERM}).si_pid != parent.pid:
        pass
    os._exit(0)


@contextmanager
def _signals_kept() -> Iterator[None]:
    """For starting workers: neither their deaths nor signals strike where nobody expects it.

    PyTorch's SIGCHLD handler would raise in the middle of a step or of saving a checkpoint.
    Without it, the death is found where the next batch is awaited. A worker is born with Ctrl-C
    and SIGTERM held back and ignores them from `_settle_worker` on, so that there is no moment in
    which it dies of them; the main process gets one that came meanwhile at the end.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    previous = signal.getsignal(signal.SIGCHLD)
    with held(signal.SIGINT, signal.SIGTERM):
        try:
            yield
        finally:
            signal.signal(signal.SIGCHLD, previous or signal.SIG_DFL)
