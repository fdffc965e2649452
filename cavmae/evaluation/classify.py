"""Class probabilities of every clip of a shard set."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from avprep.errors import UserError
from cavmae.data import LoaderOptions, ShardLoader, ShardSet
from cavmae.data.batch import Batch
from cavmae.distributed import World
from cavmae.frontend import FrontEnd
from cavmae.frontend.fbank import samples_for
from cavmae.model import CAVMAEClassifier
from cavmae.options import AUDIO_MODES, Criterion, Mode

OneResult = Literal["all", "middle"] | int  # frames that give one result a clip
FrameChoice = OneResult | Literal["each"]


def parse_frames(text: str) -> FrameChoice:
    """`all`, `each`, `middle`, or a frame's number.

    Raises:
        UserError: something else.
    """
    if text in ("all", "each", "middle"):
        return text  # type: ignore[return-value]
    if text.isdigit():
        return int(text)
    raise UserError(f"--frames {text!r}: give all, each, middle, or a frame's number such as 5.")


def chosen_frames(choice: OneResult, stored: int) -> list[int]:
    """Numbers of the frames that a choice means, of a clip that has this many.

    Raises:
        UserError: there is no such frame.
    """
    if choice == "all":
        return list(range(stored))
    number = stored // 2 if choice == "middle" else choice
    if number >= max(stored, 1):
        raise UserError(f"--frames {number}: there are frames 0 to {stored - 1}.")
    return [number]


@dataclass(frozen=True)
class ClassifyOptions:
    """How clips are classified."""

    mode: Mode = "multimodal"
    frames: FrameChoice = "middle"  # "all" averages the frames' probabilities, "each" keeps them
    criterion: Criterion = "ce"  # sigmoid or softmax turns logits into probabilities
    batch_size: int = 32
    workers: int = 2
    max_bad_samples: int = 10


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
    device: torch.device,
    rank: int = 0,
    world: int = 1,
    on_batch: Callable[[int], object] = lambda count: None,
) -> Classified:
    """Classify this rank's share of the clips, each once."""
    frame: OneResult = "all" if options.frames == "each" else options.frames
    chosen_frames(frame, shards.frames)
    if options.mode in AUDIO_MODES:
        # Images play no part, and decoding all of them would take most of the time.
        frame = "middle"
    loader = ShardLoader(
        shards,
        LoaderOptions(
            options.batch_size,
            options.workers,
            shuffle=False,
            frame=frame,
            max_bad_samples=options.max_bad_samples,
            longest=samples_for(frontend.options.target_length),
        ),
        rank,
        world,
    )
    model.eval()
    parts: list[tuple[Batch, Tensor]] = []
    with torch.inference_mode():
        for batch in loader.epoch():
            inputs = frontend(batch.to(device))
            found = frame_probabilities(model, inputs.audio, inputs.image, options)
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
        lambda: classify(
            model, frontend, shards, options, world.device, world.rank, world.size, on_batch
        )
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
    model: CAVMAEClassifier, audio: Tensor, image: Tensor, options: ClassifyOptions
) -> Tensor:
    """float [B, frames, classes]: probabilities; one frame where images play no part."""
    each = [
        torch.sigmoid(logits) if options.criterion == "bce" else torch.softmax(logits, dim=-1)
        for logits in _logits_of_frames(model, audio, image, options.mode)
    ]
    return torch.stack(each, dim=1)


def mean_probabilities(
    model: CAVMAEClassifier, audio: Tensor, image: Tensor, options: ClassifyOptions
) -> Tensor:
    """float [B, classes]: probabilities, averaged over the frames where there are several."""
    return frame_probabilities(model, audio, image, options).mean(dim=1)


def _logits_of_frames(
    model: CAVMAEClassifier, audio: Tensor, image: Tensor, mode: Mode
) -> Iterator[Tensor]:
    if image.dim() == 4 or mode in AUDIO_MODES:
        yield model(audio, image if image.dim() == 4 else None, mode).float()
        return
    for frame in image.unbind(dim=1):
        yield model(audio, frame, mode).float()
