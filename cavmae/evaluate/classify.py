"""Class probabilities of every clip of a shard set."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from cavmae.data import LoaderOptions, ShardLoader, ShardSet
from cavmae.data.batch import Batch
from cavmae.frontend import FrontEnd
from cavmae.frontend.fbank import samples_for
from cavmae.model import CAVMAEClassifier, Mode

FrameChoice = Literal["all", "middle"] | int


@dataclass(frozen=True)
class ClassifyOptions:
    """How clips are classified."""

    mode: Mode = "multimodal"
    frames: FrameChoice = "middle"  # "all" averages the probabilities of all frames
    criterion: Literal["bce", "ce"] = "ce"  # sigmoid or softmax turns logits into probabilities
    batch_size: int = 32
    workers: int = 2
    max_bad_samples: int = 10


@dataclass(frozen=True)
class Classified:
    """Probabilities and truth, in the order of the shard set."""

    index: NDArray[np.int64]  # [N]
    video_ids: list[str]
    probabilities: NDArray[np.float64]  # [N, classes]
    labels: NDArray[np.float64]  # [N, classes]
    unreadable: int


def classify(
    model: CAVMAEClassifier,
    frontend: FrontEnd,
    shards: ShardSet,
    options: ClassifyOptions,
    device: torch.device,
    rank: int = 0,
    world: int = 1,
    on_batch: Callable[[int], None] = lambda count: None,
) -> Classified:
    """Classify this rank's share of the clips, each once."""
    loader = ShardLoader(
        shards,
        LoaderOptions(
            options.batch_size,
            options.workers,
            shuffle=False,
            frame=options.frames,
            longest=samples_for(frontend.options.target_length),
            max_bad_samples=options.max_bad_samples,
        ),
        rank,
        world,
    )
    model.eval()
    parts: list[tuple[Batch, Tensor]] = []
    with torch.inference_mode():
        for batch in loader.epoch():
            inputs = frontend(batch.to(device))
            probabilities = mean_probabilities(model, inputs.audio, inputs.image, options)
            parts.append((batch, probabilities.double().cpu()))
            on_batch(len(batch))
    return Classified(
        index=np.concatenate([batch.index.numpy() for batch, _ in parts]),
        video_ids=[video_id for batch, _ in parts for video_id in batch.video_ids],
        probabilities=torch.cat([probabilities for _, probabilities in parts]).numpy(),
        labels=torch.cat([batch.labels for batch, _ in parts]).double().numpy(),
        unreadable=len(loader.bad_samples),
    )


def mean_probabilities(
    model: CAVMAEClassifier, audio: Tensor, image: Tensor, options: ClassifyOptions
) -> Tensor:
    """float [B, classes]: probabilities, averaged over the frames where there are several."""
    each = [
        torch.sigmoid(logits) if options.criterion == "bce" else torch.softmax(logits, dim=-1)
        for logits in _logits_of_frames(model, audio, image, options.mode)
    ]
    return torch.stack(each).mean(dim=0)


def _logits_of_frames(
    model: CAVMAEClassifier, audio: Tensor, image: Tensor, mode: Mode
) -> Iterator[Tensor]:
    if image.dim() == 4 or mode in ("audioonly", "missingaudioonly"):
        yield model(audio, image if image.dim() == 4 else None, mode).float()
        return
    for frame in image.unbind(dim=1):
        yield model(audio, frame, mode).float()
