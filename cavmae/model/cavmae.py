"""CAV-MAE (arXiv 2210.07839): masked reconstruction and audio-visual contrast in one model."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from avprep.errors import UserError
from cavmae.model.blocks import Block, freeze_stream_norms
from cavmae.model.config import ModelConfig
from cavmae.model.encoder import Encoder, run_blocks, take_rows
from cavmae.model.masking import kept_patches, mask_noise, split_by_noise
from cavmae.model.positions import sincos_positions
from cavmae.options import PretrainOptions

TEMPERATURE = 0.05
_EPSILON = 1e-6  # of a patch's variance
_PUBLISHED = PretrainOptions()  # made here, since torch.compile cannot trace its checks


@dataclass
class PretrainOutput:
    """Losses are float32 scalars. Parts whose weight is zero are not computed and stay zero."""

    loss: Tensor  # mae_weight * loss_mae + contrast_weight * loss_contrast
    loss_mae: Tensor  # loss_mae_audio + loss_mae_image
    loss_mae_audio: Tensor
    loss_mae_image: Tensor
    loss_contrast: Tensor  # not weighted
    contrast_accuracy: Tensor
    mask_audio: Tensor  # float32 [B, La], 1 where the patch was hidden
    mask_image: Tensor  # float32 [B, Lv]
    pred_audio: Tensor | None  # [B, La, 256], None unless asked for
    pred_image: Tensor | None  # [B, Lv, 768]
    pooled_audio: Tensor | None  # [B, dim], before l2-normalisation
    pooled_image: Tensor | None


class CAVMAE(Encoder):
    """The pretraining model: encoder, decoder, both losses."""

    def __init__(self, config: ModelConfig | None = None) -> None:
        config = config or ModelConfig()
        super().__init__(config)
        dim, patch = config.decoder_dim, config.patch_size
        self.mask_token = nn.Parameter(torch.zeros(1, 1, dim))
        self.decoder_modality_a = nn.Parameter(torch.zeros(1, 1, dim))
        self.decoder_modality_v = nn.Parameter(torch.zeros(1, 1, dim))
        trainable = config.trainable_positions
        self.decoder_pos_embed_a = nn.Parameter(sincos_positions(dim, config.audio_grid), trainable)
        self.decoder_pos_embed_v = nn.Parameter(sincos_positions(dim, config.image_grid), trainable)
        self.decoder_embed = nn.Linear(config.embed_dim, dim)
        self.decoder_blocks = nn.ModuleList(
            Block(dim, config.decoder_heads, config.mlp_ratio) for _ in range(config.decoder_depth)
        )
        freeze_stream_norms(self.decoder_blocks)
        self.decoder_norm = nn.LayerNorm(dim)
        self.decoder_pred_a = nn.Linear(dim, patch**2)
        self.decoder_pred_v = nn.Linear(dim, patch**2 * 3)
        self.initialise()
        for parameter in (self.mask_token, self.decoder_modality_a, self.decoder_modality_v):
            nn.init.normal_(parameter, std=0.02)

    def forward(
        self,
        audio: Tensor,
        image: Tensor,
        options: PretrainOptions | None = None,
        *,
        generator: torch.Generator | None = None,
        noise_audio: Tensor | None = None,
        noise_image: Tensor | None = None,
        gather: Callable[[Tensor], Tensor] | None = None,
        predictions: bool = True,
    ) -> PretrainOutput:
        """One training pass.

        Args:
            audio: float [B, frames, mel], normalised fbank.
            image: float [B, 3, H, W], normalised.
            options: masking and the parts of the loss.
            generator: of the masks, on the inputs' device. torch.compile cannot trace one: draw
                the masks outside with `draw_noise` and pass them in.
            noise_audio: float [B, La], the random numbers that decide the masks.
            noise_image: float [B, Lv]; both or none.
            gather: float [B, dim] → float [N, dim], collects the pooled features of all ranks
                with gradient; None contrasts within this batch, as published.
            predictions: whether to return predictions of all patches. The losses take those of
                the hidden patches only, so training goes without.

        Raises:
            UserError: inputs of another shape than the model's, or a mask ratio that leaves
                nothing to see or nothing to predict.
        """
        options = options or _PUBLISHED
        check_ratios(self.config, options)
        audio_patches, image_patches = self.audio_patches(audio), self.image_patches(image)
        if noise_audio is None or noise_image is None:
            noise_audio, noise_image = draw_noise(
                self.config, options, len(audio), generator, audio.device
            )
        audio_ids, hidden_audio, mask_audio = split_by_noise(noise_audio, options.mask_ratio)
        image_ids, hidden_image, mask_image = split_by_noise(noise_image, options.mask_ratio)

        audio_tokens = self.own_audio(self.embed_audio(audio_patches, audio_ids))
        image_tokens = self.own_image(self.embed_image(image_patches, image_ids))

        zero = audio.new_zeros((), dtype=torch.float32)
        loss_audio = loss_image = loss_contrast = accuracy = zero
        pred_audio = pred_image = pooled_audio = pooled_image = None
        if options.mae_weight:
            joint = self.shared(torch.cat([audio_tokens, image_tokens], dim=1), "joint")
            decoded_audio, decoded_image = self.decode(joint, audio_ids, image_ids)
            # The losses need hidden patches only, and a patch has many values.
            loss_audio = mae_loss(
                take_rows(audio_patches, hidden_audio),
                self.decoder_pred_a(take_rows(decoded_audio, hidden_audio)),
                options.norm_pix_loss,
            )
            loss_image = mae_loss(
                take_rows(image_patches, hidden_image),
                self.decoder_pred_v(take_rows(decoded_image, hidden_image)),
                options.norm_pix_loss,
            )
            if predictions:
                pred_audio = self.decoder_pred_a(decoded_audio)
                pred_image = self.decoder_pred_v(decoded_image)
        if options.contrast_weight:
            pooled_audio = self.shared(audio_tokens, "audio").mean(dim=1)
            pooled_image = self.shared(image_tokens, "image").mean(dim=1)
            loss_contrast, accuracy = contrastive_loss(
                pooled_audio, pooled_image, options.bidirectional, gather
            )
        loss_mae = loss_audio + loss_image
        loss = options.mae_weight * loss_mae + options.contrast_weight * loss_contrast
        return PretrainOutput(
            loss, loss_mae, loss_audio, loss_image, loss_contrast, accuracy, mask_audio,
            mask_image, pred_audio, pred_image, pooled_audio, pooled_image,
        )  # fmt: skip

    def decode(self, joint: Tensor, audio_ids: Tensor, image_ids: Tensor) -> tuple[Tensor, Tensor]:
        """Tokens of the visible patches → the decoder's tokens of all patches.

        Args:
            joint: float [B, kept_a + kept_v, dim].
            audio_ids: int64 [B, kept_a], where the audio tokens come from.
            image_ids: int64 [B, kept_v].

        Returns:
            float [B, La, dim] and float [B, Lv, dim], for `decoder_pred_a` and `decoder_pred_v`.
        """
        tokens = self.decoder_embed(joint)
        audio, image = tokens.split([audio_ids.shape[1], image_ids.shape[1]], dim=1)
        audio = self._unshuffle(audio, audio_ids, self.config.audio_patches)
        image = self._unshuffle(image, image_ids, self.config.image_patches)
        audio = audio + self.decoder_pos_embed_a + self.decoder_modality_a
        image = image + self.decoder_pos_embed_v + self.decoder_modality_v
        tokens = run_blocks(self.decoder_blocks, torch.cat([audio, image], dim=1), "joint")
        audio, image = self.decoder_norm(tokens).split(
            [self.config.audio_patches, self.config.image_patches], dim=1
        )
        return audio, image

    def _unshuffle(self, tokens: Tensor, ids: Tensor, length: int) -> Tensor:
        """Put tokens back to their places, with the mask token everywhere else."""
        batch, _, dim = tokens.shape
        everywhere = self.mask_token.to(tokens.dtype).expand(batch, length, dim)
        return everywhere.scatter(1, ids.unsqueeze(-1).expand(-1, -1, dim), tokens)


def check_ratios(config: ModelConfig, options: PretrainOptions) -> None:
    """Raises UserError where a mask ratio leaves nothing to see or nothing to predict."""
    for stream, patches in (("audio", config.audio_patches), ("image", config.image_patches)):
        kept = kept_patches(patches, options.mask_ratio)
        if not 0 < kept < patches:
            raise UserError(
                f"--mask-ratio {options.mask_ratio} keeps {kept} of {patches} {stream} patches; "
                "some must be seen and some hidden."
            )


def draw_noise(
    config: ModelConfig,
    options: PretrainOptions,
    batch: int,
    generator: torch.Generator | None = None,
    device: torch.device | None = None,
) -> tuple[Tensor, Tensor]:
    """The random numbers that decide a batch's masks.

    Args:
        config: of the model.
        options: mask ratios and mode.
        batch: samples.
        generator: source of randomness, on `device`; None for the global one.
        device: where they are made.

    Returns:
        float32 [B, La] and [B, Lv], for `CAVMAE.forward`.
    """
    audio = mask_noise(
        batch, config.audio_grid, options.mask_ratio, options.mask_mode, generator, device
    )
    image = mask_noise(
        batch, config.image_grid, options.mask_ratio, "unstructured", generator, device
    )
    return audio, image


def mae_loss(patches: Tensor, prediction: Tensor, normalise: bool) -> Tensor:
    """Mean squared error of the hidden patches (paper, equation 5), in float32.

    Args:
        patches: float [B, hidden, P], the truth.
        prediction: float [B, hidden, P].
        normalise: compare with each patch's own mean and (unbiased) variance taken out.
    """
    with torch.autocast(patches.device.type, enabled=False):
        target = normalise_patches(patches.float()) if normalise else patches.float()
        return F.mse_loss(prediction.float(), target)


def normalise_patches(patches: Tensor) -> Tensor:
    """Float [B, L, P], each patch's own mean and (unbiased) variance taken out."""
    # Several times as fast as torch.var_mean on a CPU.
    centred = patches - patches.mean(dim=-1, keepdim=True)
    variance = centred.square().sum(dim=-1, keepdim=True) / (patches.shape[-1] - 1)
    return centred / (variance + _EPSILON).sqrt()


def denormalise_patches(prediction: Tensor, patches: Tensor) -> Tensor:
    """The inverse of `normalise_patches`, with the mean and variance of the true patches.

    A model trained with `norm_pix_loss` says nothing about a patch's brightness (loudness) and
    contrast, only about its texture; both are taken from the truth that was hidden from it.

    Args:
        prediction: float [B, L, P], of normalised patches.
        patches: float [B, L, P], the truth.
    """
    variance, mean = torch.var_mean(patches, dim=-1, keepdim=True)
    return prediction * (variance + _EPSILON).sqrt() + mean


def contrastive_loss(
    audio: Tensor,
    image: Tensor,
    bidirectional: bool = False,
    gather: Callable[[Tensor], Tensor] | None = None,
) -> tuple[Tensor, Tensor]:
    """InfoNCE between the clips' audio and images (paper, equation 4), in float32.

    Args:
        audio: float [B, dim], pooled features.
        image: float [B, dim].
        bidirectional: average both directions; else each image picks its audio, as published.
        gather: see `CAVMAE.forward`.

    Returns:
        The loss, and the share of images whose most similar audio is their own (of both directions
        the mean).
    """
    with torch.autocast(audio.device.type, enabled=False):
        audio, image = F.normalize(audio.float(), dim=-1), F.normalize(image.float(), dim=-1)
        if gather is not None:
            audio, image = gather(audio), gather(image)
        similarity = audio @ image.T / TEMPERATURE  # [audio, image]
        truth = torch.arange(len(similarity), device=similarity.device)
        loss, accuracy = _picking(similarity.T, truth)
        if bidirectional:
            other_loss, other_accuracy = _picking(similarity, truth)
            loss, accuracy = (loss + other_loss) / 2, (accuracy + other_accuracy) / 2
        return loss, accuracy


def _picking(scores: Tensor, truth: Tensor) -> tuple[Tensor, Tensor]:
    """Loss and accuracy of picking a column for each row: float [N, N], int64 [N]."""
    return F.cross_entropy(scores, truth), (scores.argmax(dim=1) == truth).float().mean()
