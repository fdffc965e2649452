"""Class probabilities of every clip of a shard set."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from cavmae.data import ShardSet
from cavmae.distributed import World
from cavmae.evaluation.clips import Rows, chosen_frames, clip_loader, in_order
from cavmae.evaluation.options import FrameChoice, LoadOptions, OneResult
from cavmae.frontend import FrontEnd
from cavmae.model import CAVMAEClassifier
from cavmae.options import AUDIO_MODES, Criterion, Mode, modalities_of_all


@dataclass(frozen=True, kw_only=True)
class ClassifyOptions(LoadOptions):
    """How clips are classified."""

    mode: Mode
    criterion: Criterion  # sigmoid or softmax turns logits into probabilities
    frames: FrameChoice = "middle"  # "all" averages the frames' probabilities, "each" keeps them


@dataclass(frozen=True)
class Classified:
    """What a classifier makes of clips, and the truth, in the order of the shard set."""

    index: NDArray[np.int64]  # [N]
    video_ids: list[str]
    probabilities: NDArray[np.float64]  # [N, classes]; with frames="each" [N, frames, classes]
    logits: NDArray[np.float32]  # [N, classes], means over the frames
    labels: NDArray[np.float64]  # [N, classes]
    unreadable: int


def classify_together(
    model: CAVMAEClassifier,
    frontend: FrontEnd,
    shards: ShardSet,
    options: ClassifyOptions,
    world: World,
) -> Classified:
    """Classify all clips, each on one rank; every rank gets the whole result.

    Raises:
        WorkFailed: more than `max_bad_samples` samples of a rank are unreadable.
    """
    modes = (options.mode,)
    return classify_in_modes(model, frontend, shards, options, modes, world)[options.mode]


def classify_in_modes(
    model: CAVMAEClassifier,
    frontend: FrontEnd,
    shards: ShardSet,
    options: ClassifyOptions,
    modes: Sequence[Mode],
    world: World,
    on_batch: Callable[[int], object] = lambda count: None,
) -> dict[Mode, Classified]:
    """The same in several modes, in place of the one that the options have.

    Each clip is read once, and computed in every mode.

    Raises:
        WorkFailed: more than `max_bad_samples` samples of a rank are unreadable.
    """
    parts = world.gather_results(
        lambda: _own_share(model, frontend, shards, options, modes, world, on_batch)
    )
    rows = in_order([batch for batches, _ in parts for batch in batches])
    index = rows["index"]
    return {
        mode: Classified(
            index.numpy(),
            [shards.video_id(number) for number in index.tolist()],
            probabilities=rows[f"{mode}/probabilities"].numpy(),
            logits=rows[f"{mode}/logits"].numpy(),
            labels=rows["labels"].double().numpy(),
            unreadable=sum(unreadable for _, unreadable in parts),
        )
        for mode in modes
    }


def _own_share(
    model: CAVMAEClassifier,
    frontend: FrontEnd,
    shards: ShardSet,
    options: ClassifyOptions,
    modes: Sequence[Mode],
    world: World,
    on_batch: Callable[[int], object],
) -> tuple[list[Rows], int]:
    """Of this rank's clips, by batch; and how many of them were unreadable."""
    frame: OneResult = "all" if options.frames == "each" else options.frames
    chosen_frames(frame, shards.frames)
    loader = clip_loader(shards, frontend, options, frame, world, modalities_of_all(modes))
    model.eval()
    parts: list[Rows] = []
    with torch.inference_mode():
        for batch in loader.epoch():
            # Copies, so that the batches with their sounds and pictures are freed.
            rows = {"index": batch.index.clone(), "labels": batch.labels.clone()}
            inputs = frontend(batch.to(world.device))
            for mode in modes:
                logits = frame_logits(model, inputs.audio, inputs.image, mode)
                each = probabilities_of(logits, options.criterion)
                kept = each if options.frames == "each" else each.mean(dim=1)
                rows[f"{mode}/probabilities"] = kept.double().cpu()
                rows[f"{mode}/logits"] = logits.mean(dim=1).cpu()
            parts.append(rows)
            on_batch(len(batch))
    return parts, len(loader.bad_samples)


def probabilities_of(logits: Tensor, criterion: Criterion) -> Tensor:
    """The probabilities that a classifier trained with this criterion means."""
    return torch.sigmoid(logits) if criterion == "bce" else torch.softmax(logits, dim=-1)


def frame_logits(model: CAVMAEClassifier, audio: Tensor, image: Tensor, mode: Mode) -> Tensor:
    """float32 [B, frames, classes]: one frame where images play no part."""
    return torch.stack(list(_logits_of_frames(model, audio, image, mode)), dim=1)


def _logits_of_frames(
    model: CAVMAEClassifier, audio: Tensor, image: Tensor, mode: Mode
) -> Iterator[Tensor]:
    if image.dim() == 4 or mode in AUDIO_MODES:
        yield model(audio, image if image.dim() == 4 else None, mode).float()
        return
    for frame in image.unbind(dim=1):
        yield model(audio, frame, mode).float()
