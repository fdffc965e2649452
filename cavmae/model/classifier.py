"""The finetuning model: CAV-MAE's encoder with a linear head."""

from __future__ import annotations

import dataclasses

import torch
from torch import Tensor, nn

from avprep.errors import UserError
from cavmae.model.config import ModelConfig
from cavmae.model.encoder import Encoder
from cavmae.options import AUDIO_MODES, IMAGE_MODES, MODES, Mode


class CAVMAEClassifier(Encoder):
    """Encoder without decoder, and `mlp_head` on the mean token."""

    def __init__(self, config: ModelConfig | None = None, num_classes: int = 527) -> None:
        config = config or ModelConfig(trainable_positions=True)
        super().__init__(config)
        self.num_classes = num_classes
        self.mlp_head = nn.Sequential(
            nn.LayerNorm(config.embed_dim), nn.Linear(config.embed_dim, num_classes)
        )
        self.initialise()

    @classmethod
    def from_pretraining(cls, config: ModelConfig, num_classes: int) -> CAVMAEClassifier:
        """A fresh classifier of a pretrained model's size; positions become trainable."""
        return cls(dataclasses.replace(config, trainable_positions=True), num_classes)

    def forward(
        self, audio: Tensor | None, image: Tensor | None, mode: Mode = "multimodal"
    ) -> Tensor:
        """Class logits.

        Args:
            audio: float [B, frames, mel], normalised fbank; None in a mode without audio.
            image: float [B, 3, H, W], normalised; None in a mode without images.
            mode: which modalities are given. The `missing…` modes are for a model trained on both
                of which one is missing at test time: they average the pass with joint norms and
                the pass with the modality's own.

        Returns:
            float [B, classes].

        Raises:
            UserError: an unknown mode, or an input the mode needs is None.
        """
        return self.mlp_head(self.pooled(audio, image, mode))

    def pooled(self, audio: Tensor | None, image: Tensor | None, mode: Mode) -> Tensor:
        """The mean token that the head classifies: float [B, dim]."""
        if mode not in MODES:
            raise UserError(f"no mode {mode!r}; there are {', '.join(MODES)}.")
        if mode in AUDIO_MODES:
            tokens = self._audio_tokens(audio, mode)
            own = self.shared(tokens, "audio").mean(dim=1)
        elif mode in IMAGE_MODES:
            tokens = self._image_tokens(image, mode)
            own = self.shared(tokens, "image").mean(dim=1)
        else:
            tokens = torch.cat(
                [self._audio_tokens(audio, mode), self._image_tokens(image, mode)], dim=1
            )
            return self.shared(tokens, "joint").mean(dim=1)
        if mode.startswith("missing"):
            return (self.shared(tokens, "joint").mean(dim=1) + own) / 2
        return own

    def drop_images(self) -> None:
        """Delete all weights that only images need; audio modes give the same numbers after."""
        for name in ("patch_embed_v", "modality_v", "pos_embed_v", "blocks_v", "norm_v"):
            delattr(self, name)
        for block in (*self.blocks_a, *self.blocks_u):
            del block.norm1_v, block.norm2_v
        self.has_images = False

    def _audio_tokens(self, audio: Tensor | None, mode: Mode) -> Tensor:
        if audio is None:
            raise UserError(f"mode {mode!r} needs audio.")
        return self.own_audio(self.embed_audio(self.audio_patches(audio)))

    def _image_tokens(self, image: Tensor | None, mode: Mode) -> Tensor:
        if not self.has_images:
            raise UserError(f"mode {mode!r}: this model was exported without its image weights.")
        if image is None:
            raise UserError(f"mode {mode!r} needs images.")
        return self.own_image(self.embed_image(self.image_patches(image)))
