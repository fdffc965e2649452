"""CAV-MAE (arXiv 2210.07839): masked reconstruction and audio-visual contrast in one model.

The systems that the paper compares it with are the same model with parts left out.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
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
from cavmae.options import BOTH, Modality, PretrainOptions

TEMPERATURE = 0.05
_EPSILON = 1e-6  # of a patch's variance
_PUBLISHED = PretrainOptions()  # made here, since torch.compile cannot trace its checks


@dataclass
class PretrainOutput:
    """Losses are float32 scalars. Parts that the objective does not have, or whose weight is zero,
    are not computed and are None."""

    loss: Tensor  # mae_weight * loss_mae + contrast_weight * loss_contrast
    loss_mae: Tensor | None  # loss_mae_audio + loss_mae_image
    loss_mae_audio: Tensor | None
    loss_mae_image: Tensor | None
    loss_contrast: Tensor | None  # not weighted
    contrast_accuracy: Tensor | None
    clip_loss: Tensor | None  # [B], without gradient, of mean `loss`; None unless asked for
    mask_audio: Tensor | None  # float32 [B, La], 1 where the patch was hidden
    mask_image: Tensor | None  # float32 [B, Lv]
    pred_audio: Tensor | None  # [B, La, 256], None unless asked for
    pred_image: Tensor | None  # [B, Lv, 768]
    pooled_audio: Tensor | None  # [B, dim], before l2-normalisation
    pooled_image: Tensor | None


class CAVMAE(Encoder):
    """The pretraining model of every objective: encoder, decoder, both losses.

    The objective of its config says which of them it has.
    """

    def __init__(self, config: ModelConfig | None = None) -> None:
        config = config or ModelConfig()
        super().__init__(config)
        dim, patch = config.decoder_dim, config.patch_size
        self.mask_token = nn.Parameter(torch.zeros(1, 1, dim))
        self.decoder_modality_a = nn.Parameter(torch.zeros(1, 1, dim))
        self.decoder_modality_v = nn.Parameter(torch.zeros(1, 1, dim))
        trainable = config.trainable_positions
        self.decoder_pos_embed_a = nn.Parameter(
            sincos_positions(dim, config.grid("audio")), trainable
        )
        self.decoder_pos_embed_v = nn.Parameter(
            sincos_positions(dim, config.grid("image")), trainable
        )
        self.decoder_embed = nn.Linear(config.embed_dim, dim)
        self.decoder_blocks = nn.ModuleList(
            Block(dim, config.decoder_heads, config.mlp_ratio) for _ in range(config.decoder_depth)
        )
        freeze_stream_norms(self.decoder_blocks)
        self.decoder_norm = nn.LayerNorm(dim)
        self.decoder_pred_a = nn.Linear(dim, patch**2)
        self.decoder_pred_v = nn.Linear(dim, patch**2 * 3)
        self.initialise()

    def forward(
        self,
        audio: Tensor | None,
        image: Tensor | None,
        options: PretrainOptions | None = None,
        *,
        generator: torch.Generator | None = None,
        noise_audio: Tensor | None = None,
        noise_image: Tensor | None = None,
        gather: Callable[[Tensor], Tensor] | None = None,
        predictions: bool = True,
        by_clip: bool = False,
    ) -> PretrainOutput:
        """One training pass.

        Args:
            audio: float [B, frames, mel], normalised fbank. What the objective leaves out is not
                looked at and may be None.
            image: float [B, 3, H, W], normalised.
            options: masking and the parts of the loss.
            generator: of the masks, on the inputs' device. torch.compile cannot trace one: draw
                the masks outside with `draw_noise` and pass them in.
            noise_audio: float [B, La], the random numbers that decide the masks.
            noise_image: float [B, Lv]. Without either, both are drawn.
            gather: float [B, dim] → float [N, dim], collects the pooled features of all ranks
                with gradient; None contrasts within this batch, as published.
            predictions: whether to return predictions of all patches. The losses take those of
                the hidden patches only, so training goes without.
            by_clip: whether to return the loss of each clip, too.

        Raises:
            UserError: inputs of another shape than the model's, or a mask ratio that leaves
                nothing to see or nothing to predict.
        """
        options, config = options or _PUBLISHED, self.config
        patches = self._given(audio, image)
        splits = self._split(patches, options, generator, (noise_audio, noise_image))
        tokens = {
            name: self.own(name, self.embed(name, own, splits[name][0] if splits else None))
            for name, own in patches.items()
        }
        loss = next(iter(patches.values())).new_zeros((), dtype=torch.float32)
        loss_mae = loss_contrast = accuracy = None
        clip_loss = loss.new_zeros(len(next(iter(patches.values())))) if by_clip else None
        losses: dict[Modality, Tensor] = {}
        predicted: dict[Modality, Tensor] = {}
        pooled: dict[Modality, Tensor] = {}
        if config.reconstructs and options.mae_weight:
            shown = {name: ids for name, (ids, _, _) in splits.items()}
            joint = self.shared(torch.cat([*tokens.values()], dim=1), "joint")
            for name, decoded in self.decode(joint, shown).items():
                to_pixels, (_, hidden, _) = self.part("decoder_pred", name), splits[name]
                # The loss needs hidden patches only, and a patch has many values.
                truth = take_rows(patches[name], hidden)
                prediction = to_pixels(take_rows(decoded, hidden))
                losses[name] = mae_loss(truth, prediction, options.norm_pix_loss)
                if clip_loss is not None:
                    of_clips = mae_loss_by_clip(truth, prediction, options.norm_pix_loss)
                    clip_loss = clip_loss + options.mae_weight * of_clips
                if predictions:
                    predicted[name] = to_pixels(decoded)
            loss_mae = sum(losses.values(), start=loss)
            loss = loss + options.mae_weight * loss_mae
        if config.contrasts and options.contrast_weight:
            pooled = {name: self.shared(own, name).mean(dim=1) for name, own in tokens.items()}
            loss_contrast, accuracy = contrastive_loss(
                pooled["audio"], pooled["image"], options.bidirectional, gather
            )
            loss = loss + options.contrast_weight * loss_contrast
            if clip_loss is not None:
                of_clips = contrastive_loss_by_clip(
                    pooled["audio"], pooled["image"], options.bidirectional, gather
                )
                clip_loss = clip_loss + options.contrast_weight * of_clips
        masks = {name: mask for name, (_, _, mask) in splits.items()}
        of_both = (found.get(name) for found in (masks, predicted, pooled) for name in BOTH)
        return PretrainOutput(
            loss, loss_mae, losses.get("audio"), losses.get("image"), loss_contrast, accuracy,
            clip_loss, *of_both,
        )  # fmt: skip

    def _given(self, audio: Tensor | None, image: Tensor | None) -> dict[Modality, Tensor]:
        """Patches of the modalities that the objective has."""
        given = {"audio": audio, "image": image}
        patches: dict[Modality, Tensor] = {}
        for name in self.config.modalities:
            if (one := given[name]) is None:
                raise UserError(f"{self.config.objective} needs {name}.")
            patches[name] = self.patches(name, one)
        return patches

    def _split(
        self,
        patches: Mapping[Modality, Tensor],
        options: PretrainOptions,
        generator: torch.Generator | None,
        noise: tuple[Tensor | None, Tensor | None],
    ) -> dict[Modality, tuple[Tensor, Tensor, Tensor]]:
        """Which patches are hidden, see `split_by_noise`. Contrast alone sees whole clips (paper,
        section 2.1.3): nothing is split."""
        if not self.config.reconstructs:
            return {}
        check_ratios(self.config, options)
        known = {name: one for name, one in zip(BOTH, noise, strict=True) if one is not None}
        if patches.keys() - known.keys():
            some = next(iter(patches.values()))
            drawn = draw_noise(self.config, options, len(some), generator, some.device)
            known = dict(zip(BOTH, drawn, strict=True))
        return {name: split_by_noise(known[name], options.mask_ratio) for name in patches}

    def decode(self, joint: Tensor, shown: Mapping[Modality, Tensor]) -> dict[Modality, Tensor]:
        """Tokens of the visible patches → the decoder's tokens of all patches.

        Args:
            joint: float [B, kept, dim], one modality after the other.
            shown: int64 [B, kept] of each modality, where its tokens come from.

        Returns:
            float [B, L, dim] of each modality, for its `decoder_pred`.
        """
        visible = self.decoder_embed(joint).split([ids.shape[1] for ids in shown.values()], dim=1)
        placed = []
        for own, (name, ids) in zip(visible, shown.items(), strict=True):
            own = self._unshuffle(own, ids, self.config.patches(name))
            own = own + self.part("decoder_pos_embed", name)
            placed.append(own + self.part("decoder_modality", name))
        tokens = run_blocks(self.decoder_blocks, torch.cat(placed, dim=1), "joint")
        lengths = [self.config.patches(name) for name in shown]
        parts = self.decoder_norm(tokens).split(lengths, dim=1)
        return dict(zip(shown, parts, strict=True))

    def _unshuffle(self, tokens: Tensor, ids: Tensor, length: int) -> Tensor:
        """Put tokens back to their places, with the mask token everywhere else."""
        batch, _, dim = tokens.shape
        everywhere = self.mask_token.to(tokens.dtype).expand(batch, length, dim)
        return everywhere.scatter(1, ids.unsqueeze(-1).expand(-1, -1, dim), tokens)


def check_ratios(config: ModelConfig, options: PretrainOptions) -> None:
    """Raises UserError where a mask ratio leaves nothing to see or nothing to predict."""
    for modality in config.modalities:
        patches = config.patches(modality)
        kept = kept_patches(patches, options.mask_ratio)
        if not 0 < kept < patches:
            raise UserError(
                f"--mask-ratio {options.mask_ratio} keeps {kept} of {patches} {modality} patches; "
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
        batch, config.grid("audio"), options.mask_ratio, options.mask_mode, generator, device
    )
    image = mask_noise(
        batch, config.grid("image"), options.mask_ratio, "unstructured", generator, device
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
        return F.mse_loss(prediction.float(), _target(patches, normalise))


@torch.no_grad()
def mae_loss_by_clip(patches: Tensor, prediction: Tensor, normalise: bool) -> Tensor:
    """Float32 [B], without gradient: `mae_loss` of each clip."""
    with torch.autocast(patches.device.type, enabled=False):
        errors = F.mse_loss(prediction.float(), _target(patches, normalise), reduction="none")
        return errors.mean(dim=(1, 2))


def _target(patches: Tensor, normalise: bool) -> Tensor:
    return normalise_patches(patches.float()) if normalise else patches.float()


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


@torch.no_grad()
def contrastive_loss_by_clip(
    audio: Tensor,
    image: Tensor,
    bidirectional: bool = False,
    gather: Callable[[Tensor], Tensor] | None = None,
) -> Tensor:
    """Float32 [B], without gradient: what each clip of this batch has of `contrastive_loss`."""
    with torch.autocast(audio.device.type, enabled=False):
        audio, image = F.normalize(audio.float(), dim=-1), F.normalize(image.float(), dim=-1)
        own = (audio * image).sum(dim=1) / TEMPERATURE
        ways = [(image, audio), (audio, image)][: 1 + bidirectional]
        losses = [
            (one @ (gather(other) if gather else other).T / TEMPERATURE).logsumexp(dim=1) - own
            for one, other in ways
        ]
        return torch.stack(losses).mean(dim=0)


def _picking(scores: Tensor, truth: Tensor) -> tuple[Tensor, Tensor]:
    """Loss and accuracy of picking a column for each row: float [N, N], int64 [N]."""
    return F.cross_entropy(scores, truth), (scores.argmax(dim=1) == truth).float().mean()
