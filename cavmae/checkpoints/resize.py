"""The same model for other clip lengths or image sizes: positions are interpolated."""

from __future__ import annotations

import dataclasses

import torch
import torch.nn.functional as F
from torch import Tensor

from cavmae.model import CAVMAE, CAVMAEClassifier


def resized(
    model: CAVMAE | CAVMAEClassifier, audio_frames: int | None, image_size: int | None
) -> CAVMAE | CAVMAEClassifier:
    """A model with the same weights that takes other inputs.

    Position embeddings are interpolated over their grid (bicubic), learned and fixed ones alike,
    so that a place in time keeps its meaning relative to the clip's length.

    Raises:
        UserError: a size that is not a multiple of the patch.
    """
    old = model.config
    config = dataclasses.replace(
        old,
        audio_frames=audio_frames or old.audio_frames,
        image_size=image_size or old.image_size,
    )
    if isinstance(model, CAVMAEClassifier):
        classifier = CAVMAEClassifier(config, model.num_classes)
        if classifier.modalities != model.modalities:
            classifier.drop_images()
        new: CAVMAE | CAVMAEClassifier = classifier
    else:
        new = CAVMAE(config)
    state = model.state_dict()
    for name in list(state):
        if name.endswith("pos_embed_a"):
            state[name] = interpolate(state[name], old.grid("audio"), config.grid("audio"))
        elif name.endswith("pos_embed_v"):
            state[name] = interpolate(state[name], old.grid("image"), config.grid("image"))
    new.load_state_dict(state)
    return new


def interpolate(positions: Tensor, old: tuple[int, int], new: tuple[int, int]) -> Tensor:
    """float [1, rows * columns, dim] of one grid → of another."""
    if old == new:
        return positions
    grid = positions.reshape(1, *old, -1).permute(0, 3, 1, 2)
    resampled = F.interpolate(grid, size=new, mode="bicubic", align_corners=False)
    return torch.flatten(resampled.permute(0, 2, 3, 1), 1, 2)
