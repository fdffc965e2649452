"""The finetuning model: CAV-MAE's encoder with a linear head."""

from __future__ import annotations

import dataclasses

import torch
from torch import Tensor, nn

from avprep.errors import UserError
from cavmae.model.config import ModelConfig
from cavmae.model.encoder import Encoder, leave_out
from cavmae.options import MODES, Mode, modalities_of


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
            UserError: a mode that the model does not have, or an input that it needs is None.
        """
        return self.mlp_head(self.pooled(audio, image, mode))

    def pooled(self, audio: Tensor | None, image: Tensor | None, mode: Mode) -> Tensor:
        """The mean token that the head classifies: float [B, dim]."""
        if mode not in MODES:
            raise UserError(f"unknown mode {mode!r}; choose from {', '.join(MODES)}.")
        if mode not in self.modes:
            raise UserError(
                f"mode {mode!r}: this model has weights for {' and '.join(self.modes)} only."
            )
        given = {"audio": audio, "image": image}
        streams = []
        for modality in modalities_of(mode):
            if (one := given[modality]) is None:
                needed = "images" if modality == "image" else modality
                raise UserError(f"mode {mode!r} needs {needed}.")
            streams.append(self.tokens(modality, one))
        if len(streams) > 1:
            return self.shared(torch.cat(streams, dim=1), "joint").mean(dim=1)
        own = self.shared(streams[0], modality).mean(dim=1)
        if mode.startswith("missing"):
            return (self.shared(streams[0], "joint").mean(dim=1) + own) / 2
        return own

    @property
    def modes(self) -> tuple[Mode, ...]:
        """That it has the weights for."""
        return tuple(
            mode for mode in self.config.modes if {*modalities_of(mode)} <= {*self.modalities}
        )

    def drop_images(self) -> None:
        """Delete all weights that only images need; audio modes give the same numbers after."""
        leave_out(self, ".+_v")
        self.modalities = ("audio",)
