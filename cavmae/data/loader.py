"""Batches from shard sets: planned in the main process, read by workers, nothing computed."""

from __future__ import annotations

import gc
import multiprocessing.util
import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any, Literal

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch.utils.data import DataLoader, Dataset

from avprep.errors import Unreadable, UserError, WorkFailed
from avprep.processes import held
from cavmae.data.batch import Batch, PackedBatch, Partners, Shape, allocate, pack, size_of
from cavmae.data.memory import Slots
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
from cavmae.data.sample import DamagedSample, Wanted, decode_into
from cavmae.data.shardset import ShardSet
from cavmae.options import BOTH, Modality

_ALL_FRAMES = -1
_SHOWN = 5  # bad samples in an error


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
            sampler=self._requests,  # filled again for each epoch
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


@dataclass(frozen=True)
class _Rows:
    """Samples that were read into the rows of a batch.

    Attributes:
        tensors: the fields of `Samples`.
        places: int64 [B], which of the samples that were asked for.
        video_ids: their names.
        unreadable: (video_id, reason) of the others.
    """

    tensors: dict[str, torch.Tensor]
    places: NDArray[np.int64]
    video_ids: list[str]
    unreadable: list[tuple[str, str]]


class _BatchReader(Dataset[PackedBatch]):
    """Reads the batch that a request describes. Runs in the workers."""

    def __init__(self, shards: ShardSet | Mixture, options: LoaderOptions) -> None:
        self.shards = shards
        self.options = options
        longest = options.longest if "audio" in options.modalities else 0
        stored = np.concatenate([each.num_samples for each in shards.sets])
        # Where an index does not say how many there are, there is room for the longest.
        self._lengths = np.where(stored > 0, np.minimum(stored, longest), longest).astype(np.int32)
        rows, width = options.batch_size + 1, int(self._lengths.max())  # see `plan.steps`
        largest = self._shapes(rows, width, rows if options.mixup else 0, width)
        self._slots = Slots(options.workers, size_of(largest))

    def __getitem__(self, request: _Request) -> PackedBatch:
        index, partner = request.index, request.partner[request.partner >= 0]
        shapes = self._shapes(len(index), self._width(index), len(partner), self._width(partner))
        memory, (room, mates_room) = allocate(shapes, self._slots)
        own = self._fill(room, index, request.frame, self.options.balanced)
        rows = np.flatnonzero(request.partner[own.places] >= 0)
        mixed = own.places[rows]
        mates = self._fill(mates_room, request.partner[mixed], request.partner_frame[mixed], True)
        partners = Partners(
            **mates.tensors,
            rows=_put(mates_room["rows"], rows[mates.places]),
            share=_put(mates_room["share"], request.share[mixed[mates.places]]),
        )
        batch = Batch(
            **own.tensors,
            index=_put(room["index"], index[own.places]),
            video_ids=own.video_ids,
            partners=partners if mates.video_ids else None,
            unreadable=own.unreadable + mates.unreadable,
            planned=request.planned,
        )
        return pack(batch, memory)

    def _width(self, numbers: NDArray[np.int64]) -> int:
        return int(self._lengths[numbers].max(initial=0))

    def _shapes(
        self, count: int, width: int, mates: int, mates_width: int
    ) -> tuple[dict[str, Shape], dict[str, Shape]]:
        """dtype and shape of the tensors of a batch, and of its partners."""
        own = {**self._sample_shapes(count, width), "index": (torch.int64, (count,))}
        others = {
            **self._sample_shapes(mates, mates_width),
            "rows": (torch.int64, (mates,)),
            "share": (torch.float32, (mates,)),
        }
        return own, others

    def _sample_shapes(self, count: int, width: int) -> dict[str, Shape]:
        """Those of the fields of `Samples`."""
        size = self.shards.frame_size
        pictures: tuple[int, ...] = (self.shards.frames,) if self.options.frame == "all" else ()
        if "image" not in self.options.modalities:
            pictures = (0,)
        return {
            "waveform": (torch.int16, (count, width)),
            "lengths": (torch.int64, (count,)),
            "image": (torch.uint8, (count, *pictures, 3, size, size)),
            "labels": (torch.float32, (count, self.shards.num_classes)),
        }

    def _fill(
        self,
        room: dict[str, torch.Tensor],
        numbers: NDArray[np.int64],
        frames: NDArray[np.int64],
        scattered: bool,
    ) -> _Rows:
        """Decode samples into the first rows of tensors that have room for all of them."""
        names = ("waveform", "lengths", "image", "labels")
        waveform, lengths, image, labels = (room[name].numpy() for name in names)
        places: list[int] = []
        video_ids: list[str] = []
        unreadable: list[tuple[str, str]] = []
        wanted = list(map(self._wanted, numbers.tolist(), frames.tolist()))
        stored = self.shards.read_many(numbers, scattered, wanted)
        for place, (sample, part) in enumerate(zip(stored, wanted, strict=True)):
            row = len(places)  # the next sample gets that of one that cannot be read
            try:
                if isinstance(sample, Unreadable):
                    raise DamagedSample(sample.detail)
                pictures = image[row].reshape(-1, *image.shape[-3:])  # a view
                lengths[row] = decode_into(sample, part, waveform[row], pictures)
            except DamagedSample as error:
                unreadable.append((self.shards.video_id(int(numbers[place])), str(error)))
                continue
            labels[row] = 0
            labels[row, list(sample.entry.labels)] = 1
            places.append(place)
            video_ids.append(sample.entry.video_id)
        tensors = {name: room[name][: len(places)] for name in names}
        tensors["waveform"] = _narrowed(
            tensors["waveform"], int(lengths[: len(places)].max(initial=0))
        )
        return _Rows(tensors, np.array(places, np.int64), video_ids, unreadable)

    def _wanted(self, number: int, frame: int) -> Wanted:
        frames = range(self.shards.frames) if frame == _ALL_FRAMES else (frame,)
        own = (self.shards.own_frame(number, each) for each in frames)
        modalities = self.options.modalities
        return Wanted("audio" in modalities, tuple(own) if "image" in modalities else ())


def _put(tensor: torch.Tensor, values: NDArray[Any]) -> torch.Tensor:
    """The values, in the first rows of a tensor."""
    return tensor[: len(values)].copy_(torch.from_numpy(values))


def _narrowed(waveform: torch.Tensor, width: int) -> torch.Tensor:
    """The first columns, moved together in the same memory."""
    if width == waveform.shape[1]:
        return waveform
    flat = waveform.view(-1).numpy()
    for row, samples in enumerate(waveform.numpy()):
        flat[row * width : (row + 1) * width] = samples[:width]
    return torch.from_numpy(flat[: len(waveform) * width]).view(len(waveform), width)


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
    # What the main process is done with is not ours to clean up: an earlier loader would take this
    # process's pipes for its own.
    gc.freeze()
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
