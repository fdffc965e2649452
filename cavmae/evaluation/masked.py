"""What a pretrained model predicts for patches of a clip that are hidden from it."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from cavmae.evaluation.options import HidingOptions
from cavmae.model import CAVMAE, PretrainOptions
from cavmae.model.cavmae import denormalise_patches
from cavmae.model.encoder import unpatchify
from cavmae.model.masking import mask_noise


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
    model: CAVMAE, audio: Tensor, image: Tensor, options: HidingOptions, norm_pix_loss: bool
) -> tuple[Inpainting, Inpainting]:
    """Hide patches of both modalities and predict them from what is left of both.

    Args:
        model: a pretrained model.
        audio: float [B, frames, mel], normalised fbank.
        image: float [B, 3, H, W], normalised.
        options: what is hidden.
        norm_pix_loss: whether the model was trained to predict normalised patches.

    Returns:
        Audio and image.
    """
    config, ratio = model.config, options.mask_ratio
    # One mask for every clip, drawn on the CPU: the same one on every device.
    generator = torch.Generator().manual_seed(options.seed)
    noise_audio = mask_noise(1, config.audio_grid, ratio, options.mask_mode, generator)
    noise_image = mask_noise(1, config.image_grid, ratio, "unstructured", generator)
    with torch.inference_mode():
        out = model(
            audio,
            image,
            PretrainOptions(
                mask_ratio=ratio,
                contrast_weight=0.0,
                norm_pix_loss=norm_pix_loss,
            ),
            noise_audio=noise_audio.to(audio.device).expand(len(audio), -1),
            noise_image=noise_image.to(image.device).expand(len(image), -1),
        )
        assert out.pred_audio is not None
        assert out.pred_image is not None
        patch = config.patch_size
        return (
            _assemble(
                model.audio_patches(audio), out.pred_audio, out.mask_audio,
                config.audio_grid, patch, norm_pix_loss, out.loss_mae_audio,
            ),
            _assemble(
                model.image_patches(image), out.pred_image, out.mask_image,
                config.image_grid, patch, norm_pix_loss, out.loss_mae_image,
            ),
        )  # fmt: skip


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
