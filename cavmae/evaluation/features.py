"""What a model makes of every clip of a shard set, before any head: tokens, and their means."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from avprep.errors import UserError
from cavmae.data import Batch, ShardLoader, ShardSet
from cavmae.distributed import World
from cavmae.evaluation.clips import Rows, chosen_frames, clip_loader, in_order
from cavmae.evaluation.options import FeatureOptions
from cavmae.evaluation.trained import Trained
from cavmae.frontend import Inputs
from cavmae.options import Modality


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
    trained: Trained, shards: ShardSet, options: FeatureOptions, world: World
) -> ShardLoader:
    """Reads this rank's share of the clips in order, each once."""
    check_modalities(trained, options.modalities)
    chosen_frames(options.frames, shards.frames)
    return clip_loader(shards, trained.frontend, options, options.frames, world, options.modalities)


def check_modalities(trained: Trained, modalities: Sequence[Modality]) -> None:
    """Raises UserError where a model lacks the weights that a modality needs."""
    model = trained.model
    for modality in modalities:
        if modality not in model.modalities:
            reason = "was exported without its image weights"
            if modality not in model.config.modalities:
                reason = f"was pretrained as {model.config.objective}"
            raise UserError(
                f"{trained.file}: {reason} and has no {modality} features; give --modality "
                f"{model.modalities[0]}."
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
    rows = in_order([batch for batches, _ in parts for batch in batches])
    return Features(
        rows["index"],
        {name: rows[name] for name in options.modalities},
        rows["labels"],
        sum(unreadable for _, unreadable in parts),
    )


def _own_features(
    trained: Trained,
    shards: ShardSet,
    options: FeatureOptions,
    world: World,
    on_batch: Callable[[int], object],
) -> tuple[list[Rows], int]:
    """Of this rank's clips, by batch; and how many of them were unreadable."""
    loader = feature_loader(trained, shards, options, world)
    parts: list[Rows] = []
    for batch, tokens in token_batches(trained, loader, options.modalities, world.device):
        rows = {"index": batch.index.clone(), "labels": batch.labels.clone()}
        for name, found in tokens.items():
            rows[name] = F.normalize(found.float().mean(dim=1), dim=-1).cpu()
        parts.append(rows)
        on_batch(len(batch))
    return parts, len(loader.bad_samples)
