"""Batches from a shard set: planned in the main process, read by workers, nothing computed."""

from __future__ import annotations

import io
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

import cv2
import numpy as np
import soundfile
import torch
from numpy.typing import NDArray
from torch.utils.data import DataLoader, Dataset

from avprep.errors import UserError, WorkFailed
from cavmae.data.batch import Batch, Partners
from cavmae.data.plan import (
    EpochPlan,
    balanced_order,
    class_weights,
    plan_epoch,
    shuffled_order,
    step_count,
    steps,
)
from cavmae.data.shardset import DamagedSample, ShardSet, StoredSample

SAMPLE_RATE = 16000


@dataclass(frozen=True)
class LoaderOptions:
    """How a shard set is read."""

    batch_size: int  # of one rank
    workers: int = 2
    seed: int = 0
    shuffle: bool = True
    frame: Literal["random", "middle", "all"] | int = "random"
    balanced: bool = False  # draw classes evenly, with replacement
    mixup: float = 0.0  # share of samples that are mixed with another
    longest: int = 164080  # samples of audio; 1024 fbank rows
    max_bad_samples: int = 10  # unreadable ones before the run is ended
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
    workers changes nothing, and the number of ranks only how a step's samples are shared.
    """

    def __init__(
        self, shards: ShardSet, options: LoaderOptions, rank: int = 0, world: int = 1
    ) -> None:
        if len(shards) < world and options.shuffle:
            raise UserError(
                f"{shards.location}: {len(shards)} samples cannot feed {world} processes."
            )
        if isinstance(options.frame, int) and not 0 <= options.frame < shards.frames:
            raise UserError(f"frame {options.frame}: samples hold frames 0 to {shards.frames - 1}.")
        self.shards = shards
        self.options = options
        self.rank = rank
        self.world = world
        self.bad_samples: list[tuple[str, str]] = []
        self._requests: list[_Request] = []
        self._weights: NDArray[np.float64] | None = None
        self._loader = DataLoader(
            _BatchReader(shards, options),
            batch_size=None,
            sampler=self._requests,  # filled anew for each epoch
            num_workers=options.workers,
            pin_memory=options.pin_memory,
            persistent_workers=options.workers > 0,
            prefetch_factor=4 if options.workers else None,
            worker_init_fn=_settle_worker,
        )

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
            WorkFailed: more than `max_bad_samples` samples could not be read, or a worker died.
        """
        plan = self._plan(epoch)
        self._requests[:] = self._cut(plan, start)
        try:
            for batch in self._loader:
                self._count_bad(batch)
                yield batch
        except RuntimeError as error:
            if "DataLoader worker" in str(error):
                raise WorkFailed(
                    f"a loading process died ({error}). Is there enough memory? "
                    "Try fewer --workers."
                ) from error
            raise

    def _plan(self, epoch: int) -> EpochPlan:
        options, shards = self.options, self.shards
        if options.balanced:
            order = balanced_order(self._sample_weights(), options.seed, epoch)
        elif options.shuffle:
            order = shuffled_order(shards.shard_sizes, options.seed, epoch)
        else:
            order = np.arange(len(shards))
        return plan_epoch(order, len(shards), shards.frames, options.seed, epoch, options.mixup)

    def _cut(self, plan: EpochPlan, start: int) -> list[_Request]:
        requests = []
        if self.options.shuffle:
            planned = list(steps(len(plan), self.options.batch_size, self.world, start))
            places = [
                (step.places(self.rank, self.world), step.stop - step.start) for step in planned
            ]
        else:
            # Evaluation: no step is shared, so a rank may well have one batch fewer.
            mine = np.arange(self.rank, len(plan), self.world)
            size = self.options.batch_size
            cuts = [mine[first : first + size] for first in range(0, len(mine), size)]
            places = [(cut, len(cut)) for cut in cuts]
        for place, planned_samples in places:
            requests.append(
                _Request(
                    plan.index[place],
                    self._frames(plan.frame[place]),
                    plan.partner[place],
                    self._frames(plan.partner_frame[place]),
                    plan.share[place],
                    planned_samples,
                )
            )
        return requests

    def _frames(self, drawn: NDArray[np.int64]) -> NDArray[np.int64]:
        if self.options.frame == "random":
            return drawn
        if self.options.frame == "all":
            return np.full_like(drawn, -1)
        chosen = self.shards.frames // 2 if self.options.frame == "middle" else self.options.frame
        return np.full_like(drawn, chosen)

    def _sample_weights(self) -> NDArray[np.float64]:
        """The sum of its classes' weights for each sample (float64 [N])."""
        if self._weights is None:
            by_class = class_weights(self.shards.info.class_counts)
            self._weights = np.array(
                [
                    by_class[list(self.shards.label_indices(number))].sum()
                    for number in range(len(self.shards))
                ]
            )
        return self._weights

    def _count_bad(self, batch: Batch) -> None:
        self.bad_samples += batch.unreadable
        if len(self.bad_samples) > self.options.max_bad_samples or (
            batch.unreadable and not len(batch)
        ):
            listed = "; ".join(reason for _, reason in self.bad_samples[:5])
            raise WorkFailed(
                f"{len(self.bad_samples)} samples could not be read, more than --max-bad-samples "
                f"{self.options.max_bad_samples} allows: {listed}. Check with `avprep verify`."
            )


class _BatchReader(Dataset[Batch]):
    """Reads the batch that a request describes. Runs in the workers."""

    def __init__(self, shards: ShardSet, options: LoaderOptions) -> None:
        self.shards = shards
        self.options = options

    def __getitem__(self, request: _Request) -> Batch:
        unreadable: list[tuple[str, str]] = []
        rows: list[_Decoded] = []
        partner_rows: list[_Decoded] = []
        mixed: list[int] = []
        shares: list[float] = []
        for place, index in enumerate(request.index):
            sample = self._decode(index, request.frame[place], unreadable)
            if sample is None:
                continue
            partner = request.partner[place]
            if partner >= 0:
                other = self._decode(partner, request.partner_frame[place], unreadable)
                if other is not None:
                    mixed.append(len(rows))
                    shares.append(float(request.share[place]))
                    partner_rows.append(other)
            rows.append(sample)
        partners = None
        if mixed:
            partners = Partners(
                **self._stack(partner_rows),
                rows=torch.tensor(mixed),
                share=torch.tensor(shares, dtype=torch.float32),
            )
        return Batch(
            **self._stack(rows),
            index=torch.tensor([row.index for row in rows], dtype=torch.int64),
            video_ids=[row.video_id for row in rows],
            partners=partners,
            unreadable=unreadable,
            planned=request.planned,
        )

    def _decode(self, index: int, frame: int, unreadable: list[tuple[str, str]]) -> _Decoded | None:
        try:
            return decode_sample(self.shards.read(int(index)), int(index), int(frame), self.options)
        except DamagedSample as error:
            unreadable.append(error.args)
            return None

    def _stack(self, rows: list[_Decoded]) -> dict[str, torch.Tensor]:
        lengths = [len(row.pcm) for row in rows]
        waveform = np.zeros((len(rows), max(lengths, default=0)), np.int16)
        labels = torch.zeros(len(rows), self.shards.num_classes)
        for number, row in enumerate(rows):
            waveform[number, : len(row.pcm)] = row.pcm
            labels[number, list(row.labels)] = 1.0
        size = self.shards.frame_size
        pictures = [row.image for row in rows]
        image = np.stack(pictures) if pictures else np.zeros((0, size, size, 3), np.uint8)
        return {
            "waveform": torch.from_numpy(waveform),
            "lengths": torch.tensor(lengths, dtype=torch.int64),
            # Channels move to the front here, once, so that the copy to the device is contiguous.
            "image": torch.from_numpy(np.ascontiguousarray(np.moveaxis(image, -1, -3))),
            "labels": labels,
        }


@dataclass(frozen=True)
class _Decoded:
    index: int
    video_id: str
    pcm: NDArray[np.int16]  # [samples]
    image: NDArray[np.uint8]  # [size, size, 3] or [frames, size, size, 3]
    labels: tuple[int, ...]


def decode_sample(sample: StoredSample, index: int, frame: int, options: LoaderOptions) -> _Decoded:
    """Decode what training needs of a sample: its audio and one frame (-1 for all).

    Raises:
        DamagedSample: a member is missing or cannot be decoded.
    """
    video_id, members = sample.entry.video_id, sample.members
    audio = members.get("flac") or members.get("wav")
    if not audio:
        raise DamagedSample(video_id, f"{video_id}: has no audio member")
    try:
        pcm, rate = soundfile.read(io.BytesIO(audio), options.longest, dtype="int16")
    except (soundfile.LibsndfileError, RuntimeError) as error:
        raise DamagedSample(video_id, f"{video_id}: audio: {error}") from error
    if rate != SAMPLE_RATE or pcm.ndim != 1 or not len(pcm):
        raise DamagedSample(video_id, f"{video_id}: audio is not {SAMPLE_RATE} Hz mono")
    if frame >= 0:
        image = _decode_frame(members, frame, video_id)
    else:
        count = sum(name.endswith(".jpg") for name in members)
        image = np.stack([_decode_frame(members, number, video_id) for number in range(count)])
    return _Decoded(index, video_id, pcm, image, sample.entry.labels)


def _decode_frame(members: dict[str, bytes], frame: int, video_id: str) -> NDArray[np.uint8]:
    jpeg = members.get(f"{frame}.jpg")
    picture = None
    if jpeg:
        picture = cv2.imdecode(np.frombuffer(jpeg, np.uint8), cv2.IMREAD_COLOR_RGB)
    if picture is None:
        raise DamagedSample(video_id, f"{video_id}: frame {frame} is missing or not a JPEG")
    return picture


def _settle_worker(number: int) -> None:
    """Workers are as many as the user wants; their libraries must not add threads."""
    torch.set_num_threads(1)
    cv2.setNumThreads(1)
