"""Class probabilities of every clip of a shard set."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from cavmae.data import Batch, ShardSet
from cavmae.distributed import World
from cavmae.evaluation.clips import chosen_frames, clip_loader
from cavmae.evaluation.options import FrameChoice, LoadOptions, OneResult
from cavmae.frontend import FrontEnd
from cavmae.model import CAVMAEClassifier
from cavmae.options import AUDIO_MODES, Criterion, Mode, modalities_of


@dataclass(frozen=True, kw_only=True)
class ClassifyOptions(LoadOptions):
    """How clips are classified."""

    mode: Mode
    criterion: Criterion  # sigmoid or softmax turns logits into probabilities
    frames: FrameChoice = "middle"  # "all" averages the frames' probabilities, "each" keeps them


@dataclass(frozen=True)
class Classified:
    """Probabilities and truth, in the order of the shard set."""

    index: NDArray[np.int64]  # [N]
    video_ids: list[str]
    probabilities: NDArray[np.float64]  # [N, classes]; with frames="each" [N, frames, classes]
    labels: NDArray[np.float64]  # [N, classes]
    unreadable: int


def classify(
    model: CAVMAEClassifier,
    frontend: FrontEnd,
    shards: ShardSet,
    options: ClassifyOptions,
    world: World,
    on_batch: Callable[[int], object] = lambda count: None,
) -> Classified:
    """Classify this rank's share of the clips, each once."""
    frame: OneResult = "all" if options.frames == "each" else options.frames
    chosen_frames(frame, shards.frames)
    loader = clip_loader(shards, frontend, options, frame, world, modalities_of(options.mode))
    model.eval()
    parts: list[tuple[Batch, Tensor]] = []
    with torch.inference_mode():
        for batch in loader.epoch():
            inputs = frontend(batch.to(world.device))
            found = frame_probabilities(
                model, inputs.audio, inputs.image, options.mode, options.criterion
            )
            if options.frames != "each":
                found = found.mean(dim=1)
            parts.append((batch, found.double().cpu()))
            on_batch(len(batch))
    none = torch.zeros(0, shards.num_classes, dtype=torch.float64)  # a rank may have no clip
    return Classified(
        index=torch.cat([none[:, 0].long(), *(batch.index for batch, _ in parts)]).numpy(),
        video_ids=[video_id for batch, _ in parts for video_id in batch.video_ids],
        probabilities=torch.cat([found for _, found in parts] or [none]).numpy(),
        labels=torch.cat([none, *(batch.labels.double() for batch, _ in parts)]).numpy(),
        unreadable=len(loader.bad_samples),
    )


def classify_together(
    model: CAVMAEClassifier,
    frontend: FrontEnd,
    shards: ShardSet,
    options: ClassifyOptions,
    world: World,
    on_batch: Callable[[int], object] = lambda count: None,
) -> Classified:
    """Classify all clips, each on one rank; every rank gets the whole result.

    Raises:
        WorkFailed: more than `max_bad_samples` samples of a rank are unreadable.
    """
    parts = world.gather_results(
        lambda: classify(model, frontend, shards, options, world, on_batch)
    )
    index = np.concatenate([part.index for part in parts])
    order = np.argsort(index)
    video_ids = [video_id for part in parts for video_id in part.video_ids]
    return Classified(
        index[order],
        [video_ids[place] for place in order],
        np.concatenate([part.probabilities for part in parts if len(part.index)])[order],
        np.concatenate([part.labels for part in parts])[order],
        sum(part.unreadable for part in parts),
    )


def frame_probabilities(
    model: CAVMAEClassifier, audio: Tensor, image: Tensor, mode: Mode, criterion: Criterion
) -> Tensor:
    """float [B, frames, classes]: probabilities; one frame where images play no part."""
    each = [
        torch.sigmoid(logits) if criterion == "bce" else torch.softmax(logits, dim=-1)
        for logits in _logits_of_frames(model, audio, image, mode)
    ]
    return torch.stack(each, dim=1)


def _logits_of_frames(
    model: CAVMAEClassifier, audio: Tensor, image: Tensor, mode: Mode
) -> Iterator[Tensor]:
    if image.dim() == 4 or mode in AUDIO_MODES:
        yield model(audio, image if image.dim() == 4 else None, mode).float()
        return
    for frame in image.unbind(dim=1):
        yield model(audio, frame, mode).float()
