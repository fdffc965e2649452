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
from cavmae.evaluation.clips import Rows, clip_loader, in_order
from cavmae.evaluation.features import Features
from cavmae.evaluation.knn import neighbour_scores
from cavmae.evaluation.metrics import accuracy
from cavmae.evaluation.options import VALIDATION_FRAMES, LoadOptions, VoteOptions
from cavmae.evaluation.ranking import rank_pairs
from cavmae.frontend import FrontEnd
from cavmae.model import CAVMAE, PretrainOptions
from cavmae.model.cavmae import contrastive_loss, draw_noise
from cavmae.options import BOTH

RECALL_AT = 10
_LOSSES = ("loss_mae_audio", "loss_mae_image")


@dataclass(frozen=True, kw_only=True)
class HeldOutOptions(LoadOptions):
    """How a pretrained model is evaluated.

    Attributes:
        loss: masking and the parts of the loss, as in training.
        contrasted: clips among which each image looks for its sound, as in a step of training.
    """

    loss: PretrainOptions
    contrasted: int


def spread_subset(shards: ShardSet, count: int) -> ShardSet:
    """At most this many clips, evenly spread over the set; 0 for all."""
    if not count or len(shards) <= count:
        return shards
    return shards.subset(np.arange(count) * len(shards) // count)


def evaluate_pretraining(
    model: CAVMAE, frontend: FrontEnd, shards: ShardSet, options: HeldOutOptions, world: World
) -> dict[str, float]:
    """Losses and contrastive accuracy as in training, retrieval and k-NN as the commands have them.

    What the objective does not have is left out, and so is retrieval where sounds and images are
    not contrasted. k-NN classifies each labelled clip by all others; without labels there is none.

    Raises:
        WorkFailed: more than `max_bad_samples` samples of a rank are unreadable.
    """
    parts = world.gather_results(lambda: _measure(model, frontend, shards, options, world))
    rows = in_order([part for batches in parts for part in batches])
    weights = options.loss
    losses = {name: rows[name].mean().item() for name in _LOSSES if name in rows}
    facts = {"loss": weights.mae_weight * sum(losses.values()), **losses}
    if "pooled_audio" in rows:
        contrast, picked = _contrast(rows["pooled_audio"], rows["pooled_image"], options)
        facts["loss"] += weights.contrast_weight * contrast
        facts |= {"loss_contrast": contrast, "contrast_accuracy": picked}
    vectors = {name: rows[name] for name in model.modalities}
    if model.config.contrasts:
        audio, image = (vectors[name].to(world.device) for name in BOTH)
        to_image, to_audio = rank_pairs(audio, image)
        facts[f"audio_to_image_recall_at_{RECALL_AT}"] = to_image.recall(RECALL_AT)
        facts[f"image_to_audio_recall_at_{RECALL_AT}"] = to_audio.recall(RECALL_AT)
    labelled = rows["labels"].any(dim=1)
    if labelled.sum() > 1:
        known = Features(
            rows["index"][labelled],
            {name: of_all[labelled] for name, of_all in vectors.items()},
            rows["labels"][labelled],
            unreadable=0,
        )
        scores = neighbour_scores(known, None, VoteOptions(), world).cpu()
        facts["knn_accuracy"] = accuracy(scores.numpy(), known.labels.numpy())
    return facts


def _measure(
    model: CAVMAE, frontend: FrontEnd, shards: ShardSet, options: HeldOutOptions, world: World
) -> list[Rows]:
    """This rank's share of the clips, by batch.

    Returns:
        index and labels, float32 [N, classes];
        _LOSSES: float32 [N], means of the clips' batch, as far as the objective has them;
        pooled_audio, pooled_image: float32 [N, dim] as in training, if it contrasts them;
        audio, image: float32 [N, dim], of all patches, l2-normalised, as far as the model has them.
    """
    loader = clip_loader(shards, frontend, options, VALIDATION_FRAMES, world, model.modalities)
    model.eval()
    parts: list[Rows] = []
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
            rows: Rows = {"index": index, "labels": labels}
            for name in _LOSSES:
                if (loss := getattr(out, name)) is not None:
                    rows[name] = loss.expand(len(index))
            for modality in model.modalities:
                if (pooled := getattr(out, f"pooled_{modality}")) is not None:
                    rows[f"pooled_{modality}"] = pooled
                tokens = model.features_of(modality, getattr(inputs, modality))
                rows[modality] = F.normalize(tokens.mean(dim=1), dim=-1)
        parts.append(rows)
    return [{name: rows.cpu() for name, rows in part.items()} for part in parts]


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


def _contrast(audio: Tensor, image: Tensor, options: HeldOutOptions) -> tuple[float, float]:
    """Contrastive loss and accuracy, means over groups as large as in training.

    Clips that fill no group are left out: among fewer, the right one is easier to find.
    """
    size = min(options.contrasted, len(audio))
    whole = len(audio) // size * size
    pairs = [
        contrastive_loss(*group, options.loss.bidirectional)
        for group in zip(audio[:whole].split(size), image[:whole].split(size), strict=True)
    ]
    losses, accuracies = zip(*pairs, strict=True)
    return float(torch.stack(losses).mean()), float(torch.stack(accuracies).mean())
