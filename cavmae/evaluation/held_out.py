"""How well a model that is being pretrained does on clips that it is not trained on.

Nothing is random: inputs are not augmented, and a clip's mask depends on its place in the shard set
alone, so that two evaluations differ by what the model learned in between.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from cavmae.data import ShardSet
from cavmae.distributed import World
from cavmae.evaluation.clips import clip_loader
from cavmae.evaluation.features import Features
from cavmae.evaluation.knn import neighbour_scores
from cavmae.evaluation.metrics import accuracy
from cavmae.evaluation.options import LoadOptions, VoteOptions
from cavmae.evaluation.ranking import rank_pairs
from cavmae.frontend import FrontEnd
from cavmae.model import CAVMAE, PretrainOptions
from cavmae.model.cavmae import contrastive_loss, draw_noise
from cavmae.options import BOTH

RECALL_AT = 10


@dataclass(frozen=True, kw_only=True)
class HeldOutOptions(LoadOptions):
    """How a pretrained model is evaluated.

    Attributes:
        loss: masking and the parts of the loss, as in training.
        contrasted: clips among which each image looks for its sound, as in a step of training.
    """

    loss: PretrainOptions
    contrasted: int


@dataclass(frozen=True)
class _Measured:
    """Of some clips, on the CPU.

    Attributes:
        index: int64 [N], positions in the shard set.
        labels: float32 [N, classes].
        losses: float32 [N, 2], reconstruction of the audio and of the image, means of its batch.
        masked: float32 [N, 2, dim], pooled audio and image of the visible patches; empty without
            contrast.
        whole: float32 [N, 2, dim], of all patches, l2-normalised.
    """

    index: Tensor
    labels: Tensor
    losses: Tensor
    masked: Tensor
    whole: Tensor


def spread_subset(shards: ShardSet, count: int) -> ShardSet:
    """At most this many clips, evenly spread over the set; 0 for all."""
    if not count or len(shards) <= count:
        return shards
    return shards.subset(np.arange(count) * len(shards) // count)


def evaluate_pretraining(
    model: CAVMAE, frontend: FrontEnd, shards: ShardSet, options: HeldOutOptions, world: World
) -> dict[str, float]:
    """Losses and contrastive accuracy as in training, retrieval and k-NN as the commands have them.

    k-NN classifies each labelled clip by all others; without labels there is none.

    Raises:
        WorkFailed: more than `max_bad_samples` samples of a rank are unreadable.
    """
    parts = world.gather_results(lambda: _measure(model, frontend, shards, options, world))
    found = _in_order([part for batches in parts for part in batches])
    audio_loss, image_loss = found.losses.mean(dim=0).tolist()
    contrast, picked = _contrast(found.masked, options) if found.masked.numel() else (0.0, 0.0)
    audio, image = (vectors.to(world.device) for vectors in found.whole.unbind(dim=1))
    to_image, to_audio = rank_pairs(audio, image)
    weights = options.loss
    facts = {
        "loss": weights.mae_weight * (audio_loss + image_loss) + weights.contrast_weight * contrast,
        "loss_mae_audio": audio_loss,
        "loss_mae_image": image_loss,
        "loss_contrast": contrast,
        "contrast_accuracy": picked,
        f"audio_to_image_recall_at_{RECALL_AT}": to_image.recall(RECALL_AT),
        f"image_to_audio_recall_at_{RECALL_AT}": to_audio.recall(RECALL_AT),
    }
    labelled = found.labels.any(dim=1)
    if labelled.sum() > 1:
        known = Features(
            found.index[labelled],
            {name: found.whole[labelled, place] for place, name in enumerate(BOTH)},
            found.labels[labelled],
            unreadable=0,
        )
        scores = neighbour_scores(known, None, VoteOptions(), world).cpu()
        facts["knn_accuracy"] = accuracy(scores.numpy(), known.labels.numpy())
    return facts


def _measure(
    model: CAVMAE, frontend: FrontEnd, shards: ShardSet, options: HeldOutOptions, world: World
) -> list[_Measured]:
    """This rank's share of the clips, by batch."""
    loader = clip_loader(shards, frontend, options, "middle", world)
    model.eval()
    parts = []
    for batch in loader.epoch():
        index, labels = batch.index.clone(), batch.labels.clone()
        with torch.inference_mode():
            inputs = frontend(batch.to(world.device))
            noise_audio, noise_image = (
                noise.to(world.device) for noise in _noise_of(model, options.loss, index)
            )
            out = model(
                inputs.audio,
                inputs.image,
                options.loss,
                noise_audio=noise_audio,
                noise_image=noise_image,
                predictions=False,
            )
            losses = torch.stack([out.loss_mae_audio, out.loss_mae_image]).expand(len(index), 2)
            masked = inputs.audio.new_zeros(len(index), 2, 0)
            if out.pooled_audio is not None and out.pooled_image is not None:
                masked = torch.stack([out.pooled_audio, out.pooled_image], dim=1)
            tokens = model.features(inputs.audio, inputs.image)
            whole = torch.stack([F.normalize(each.mean(dim=1), dim=-1) for each in tokens], dim=1)
        parts.append(_Measured(index, labels, losses, masked, whole))
    return [
        _Measured(part.index, part.labels, part.losses.cpu(), part.masked.cpu(), part.whole.cpu())
        for part in parts
    ]


def _noise_of(model: CAVMAE, options: PretrainOptions, index: Tensor) -> tuple[Tensor, Tensor]:
    """The random numbers of each clip's masks: the same wherever and with whom it is evaluated."""
    audio, image = zip(
        *(
            draw_noise(model.config, options, 1, torch.Generator().manual_seed(number))
            for number in index.tolist()
        ),
        strict=True,
    )
    return torch.cat(audio), torch.cat(image)


def _in_order(parts: list[_Measured]) -> _Measured:
    """All clips, in the order of the shard set."""
    index = torch.cat([part.index for part in parts])
    order = index.argsort()
    return _Measured(
        index[order],
        torch.cat([part.labels for part in parts])[order],
        torch.cat([part.losses for part in parts])[order],
        torch.cat([part.masked for part in parts])[order],
        torch.cat([part.whole for part in parts])[order],
    )


def _contrast(pooled: Tensor, options: HeldOutOptions) -> tuple[float, float]:
    """Contrastive loss and accuracy, means over groups as large as in training.

    Clips that fill no group are left out: among fewer, the right one is easier to find.
    """
    size = min(options.contrasted, len(pooled))
    groups = pooled[: len(pooled) // size * size].split(size)
    pairs = [
        contrastive_loss(group[:, 0], group[:, 1], options.loss.bidirectional) for group in groups
    ]
    losses, accuracies = zip(*pairs, strict=True)
    return float(torch.stack(losses).mean()), float(torch.stack(accuracies).mean())
