"""What a pretrained model predicts for patches of a clip that are hidden from it."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from cavmae.evaluation.options import HidingOptions
from cavmae.model import CAVMAE, PretrainOptions, draw_noise
from cavmae.model.cavmae import denormalise_patches
from cavmae.model.encoder import unpatchify
from cavmae.options import BOTH, Modality


@dataclass(frozen=True)
class Inpainting:
    """One modality of a batch, in the model's own (normalised) units.

    Attributes:
        original: float32 [B, C, H, W]; audio is [B, 1, mel, frames].
        hidden: bool [B, 1, H, W], true where the model saw nothing.
        reconstructed: float32, as `original`: the original where it was visible, else the
            prediction.
        loss: the mean squared error that pretraining minimises (over hidden patches).
    """

    original: Tensor
    hidden: Tensor
    reconstructed: Tensor
    loss: float


def fill_in(
    model: CAVMAE,
    audio: Tensor | None,
    image: Tensor | None,
    options: HidingOptions,
    norm_pix_loss: bool,
) -> dict[Modality, Inpainting]:
    """Hide patches of all modalities and predict them from what is left of all.

    Args:
        model: a pretrained model with a decoder.
        audio: float [B, frames, mel], normalised fbank.
        image: float [B, 3, H, W], normalised.
        options: what is hidden.
        norm_pix_loss: whether the model was trained to predict normalised patches.

    Returns:
        By modality, those that the model has.
    """
    config, ratio = model.config, options.mask_ratio
    hiding = PretrainOptions(
        mask_ratio=ratio,
        mask_mode=options.mask_mode,
        contrast_weight=0.0,
        norm_pix_loss=norm_pix_loss,
    )
    given = {"audio": audio, "image": image}
    inputs = {name: one for name in config.modalities if (one := given[name]) is not None}
    # One mask for every clip, drawn on the CPU: the same one on every device.
    drawn = draw_noise(config, hiding, 1, torch.Generator().manual_seed(options.seed))
    noise = {
        name: one.to(inputs[name].device).expand(len(inputs[name]), -1)
        for name, one in zip(BOTH, drawn, strict=True)
        if name in inputs
    }
    with torch.inference_mode():
        out = model(
            audio, image, hiding, noise_audio=noise.get("audio"), noise_image=noise.get("image")
        )
        return {
            name: _assemble(
                model.patches(name, one),
                getattr(out, f"pred_{name}"),
                getattr(out, f"mask_{name}"),
                config.grid(name),
                config.patch_size,
                norm_pix_loss,
                getattr(out, f"loss_mae_{name}"),
            )
            for name, one in inputs.items()
        }


def _assemble(
    patches: Tensor,
    prediction: Tensor,
    mask: Tensor,
    grid: tuple[int, int],
    patch: int,
    norm_pix_loss: bool,
    loss: Tensor,
) -> Inpainting:
    if norm_pix_loss:
        prediction = denormalise_patches(prediction, patches)
    hidden = mask.bool()[:, :, None]  # [B, L, 1]
    reconstructed = torch.where(hidden, prediction, patches)
    return Inpainting(
        unpatchify(patches, grid, patch),
        unpatchify(hidden.expand(-1, -1, patch**2), grid, patch),
        unpatchify(reconstructed, grid, patch),
        float(loss),
    )
