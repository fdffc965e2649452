"""What a model makes of every clip of a shard set, before any head: tokens, and their means."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from avprep.errors import UserError
from cavmae.data import Batch, LoaderOptions, ShardLoader, ShardSet
from cavmae.distributed import World
from cavmae.evaluation.classify import OneResult, chosen_frames, parse_frames
from cavmae.evaluation.trained import Trained
from cavmae.frontend import Inputs

Modality = Literal["audio", "image"]
BOTH: tuple[Modality, ...] = ("audio", "image")


@dataclass(frozen=True)
class FeatureOptions:
    """How features are computed. Each modality passes the model alone, nothing is masked."""

    modalities: tuple[Modality, ...] = BOTH
    frames: OneResult = "middle"  # "all" averages the features of all frames
    batch_size: int = 32
    workers: int = 2
    max_bad_samples: int = 10


@dataclass(frozen=True)
class Features:
    """Pooled features of the clips that could be read, in the order of the shard set.

    Attributes:
        index: int64 [N], positions in the shard set.
        vectors: by modality, float32 [N, dim], l2-normalised, on the CPU.
        labels: float32 [N, classes].
        unreadable: clips left out.
    """

    index: Tensor
    vectors: dict[Modality, Tensor]
    labels: Tensor
    unreadable: int


def feature_loader(
    trained: Trained, shards: ShardSet, options: FeatureOptions, rank: int = 0, world: int = 1
) -> ShardLoader:
    """Reads the clips in order, each once."""
    check_modalities(trained, options.modalities)
    chosen_frames(options.frames, shards.frames)
    return ShardLoader(
        shards,
        LoaderOptions(
            options.batch_size,
            options.workers,
            shuffle=False,
            # Without images, one frame is decoded for nothing, not all of them.
            frame=options.frames if "image" in options.modalities else "middle",
            longest=trained.longest,
            max_bad_samples=options.max_bad_samples,
        ),
        rank,
        world,
    )


def one_feature(text: str) -> OneResult:
    """The frames that make one feature of a clip: `middle`, `all` or a number.

    Raises:
        UserError: something else.
    """
    choice = parse_frames(text)
    if choice == "each":
        raise UserError(f"--frames {text}: give middle, all, or a frame's number such as 5.")
    return choice


def check_modalities(trained: Trained, modalities: Sequence[Modality]) -> None:
    """Raises UserError where a model lacks the weights that a modality needs."""
    if "image" in modalities and not trained.model.has_images:
        raise UserError(
            f"{trained.file}: was exported without its image weights and has no image features."
        )


def token_batches(
    trained: Trained, loader: ShardLoader, modalities: Sequence[Modality], device: torch.device
) -> Iterator[tuple[Batch, dict[Modality, Tensor]]]:
    """Tokens of each batch, by modality: float32 [B, patches, dim] on the device.

    Where a batch holds several frames of a clip, their tokens are averaged.
    """
    trained.model.eval()
    for batch in loader.epoch():
        with torch.inference_mode():
            inputs = trained.frontend(batch.to(device))
            tokens = {name: _tokens(trained, inputs, name) for name in modalities}
        yield batch, tokens


def _tokens(trained: Trained, inputs: Inputs, modality: Modality) -> Tensor:
    model = trained.model
    if modality == "audio":
        return model.audio_features(inputs.audio)
    if inputs.image.dim() == 4:
        return model.image_features(inputs.image)
    frames = inputs.image.unbind(dim=1)
    total = model.image_features(frames[0])
    for frame in frames[1:]:
        total = total + model.image_features(frame)
    return total / len(frames)


def pooled_features(
    trained: Trained,
    shards: ShardSet,
    options: FeatureOptions,
    world: World,
    on_batch: Callable[[int], object] = lambda count: None,
) -> Features:
    """Features of all clips on every rank, each computed by one of them.

    Raises:
        UserError: the model has no image weights and they are asked for.
        WorkFailed: more than `max_bad_samples` samples are unreadable.
    """
    parts = world.gather_results(lambda: _own_features(trained, shards, options, world, on_batch))
    joined = torch.cat([piece for part in parts for piece in part[0]])
    order = joined.argsort()
    return Features(
        joined[order],
        {
            name: torch.cat([piece for part in parts for piece in part[2][name]])[order]
            for name in options.modalities
        },
        torch.cat([piece for part in parts for piece in part[1]])[order],
        sum(part[3] for part in parts),
    )


def _own_features(
    trained: Trained,
    shards: ShardSet,
    options: FeatureOptions,
    world: World,
    on_batch: Callable[[int], object],
) -> tuple[list[Tensor], list[Tensor], dict[Modality, list[Tensor]], int]:
    """Of this rank's clips, in pieces: positions, labels, vectors; and how many were unreadable."""
    loader = feature_loader(trained, shards, options, world.rank, world.size)
    index: list[Tensor] = []
    labels: list[Tensor] = []
    vectors: dict[Modality, list[Tensor]] = {name: [] for name in options.modalities}
    for batch, tokens in token_batches(trained, loader, options.modalities, world.device):
        index.append(batch.index.clone())
        labels.append(batch.labels.clone())
        for name, found in tokens.items():
            vectors[name].append(F.normalize(found.float().mean(dim=1), dim=-1).cpu())
        on_batch(len(batch))
    return index, labels, vectors, len(loader.bad_samples)
