"""The encoder that pretraining and classification share: patches in, tokens out."""

from __future__ import annotations

import re
from typing import Any

import torch
from torch import Tensor, nn

from avprep.errors import UserError
from cavmae.model.blocks import SUFFIXES, Block, Stream, freeze_stream_norms
from cavmae.model.config import ModelConfig
from cavmae.model.positions import sincos_positions
from cavmae.model.pretrained import Pretrained
from cavmae.options import Modality, Objective

# What of CAV-MAE an objective has no use for, by the names of modules and parameters. Without
# contrast one set of norms serves every stream. Contrast alone keeps the joint norms, so that a
# classifier of both modalities can start from it.
_LEFT_OUT: dict[Objective, str] = {
    "cav-mae": "",
    "av-mae": r"norm\d?_[av]",
    "cav": r"decoder_.+|mask_token",
    "audio-mae": r".+_v|norm\d?_a",
    "image-mae": r".+_a|norm\d?_v",
}


class PatchEmbed(nn.Module):
    """The projection of patches, held as the published convolution's weight."""

    def __init__(self, channels: int, dim: int, patch: int) -> None:
        super().__init__()
        self.proj = nn.Conv2d(channels, dim, kernel_size=patch, stride=patch)

    def forward(self, patches: Tensor) -> Tensor:
        """float [B, L, patch * patch * channels] → float [B, L, dim].

        A convolution whose stride is its size is a linear map of each patch. Applied as such it
        takes only the patches that are visible.
        """
        # In the pixel order of `patchify`. Not by permuting all four axes: the gradient of a single
        # channel would come back with strides that DDP warns of.
        weight = self.proj.weight.flatten(2).transpose(1, 2).flatten(1)
        return nn.functional.linear(patches, weight, self.proj.bias)


def patchify(pictures: Tensor, patch: int) -> Tensor:
    """float [B, C, H, W] → float [B, L, patch * patch * C]: rows of patches; row, column, channel
    inside a patch."""
    batch, channels, height, width = pictures.shape
    x = pictures.view(batch, channels, height // patch, patch, width // patch, patch)
    x = x.permute(0, 2, 4, 3, 5, 1)  # [B, rows, columns, patch, patch, C]
    return x.reshape(batch, -1, patch * patch * channels)


def unpatchify(patches: Tensor, grid: tuple[int, int], patch: int) -> Tensor:
    """The inverse of `patchify`: float [B, L, patch * patch * C] → float [B, C, H, W]."""
    batch, _, size = patches.shape
    rows, columns = grid
    x = patches.view(batch, rows, columns, patch, patch, size // patch**2)
    x = x.permute(0, 5, 1, 3, 2, 4)
    return x.reshape(batch, -1, rows * patch, columns * patch)


class Encoder(nn.Module, Pretrained):
    """Two streams of blocks of their own, then shared blocks. Base of both models.

    A model is built whole; what its objective has no use for is left out before it is initialised.

    Attributes:
        config: of the model.
        modalities: that it has weights for.
    """

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.config = config
        self.modalities = config.modalities
        self.metadata = {}
        dim = config.embed_dim
        self.patch_embed_a = PatchEmbed(1, dim, config.patch_size)
        self.patch_embed_v = PatchEmbed(3, dim, config.patch_size)
        self.modality_a = nn.Parameter(torch.zeros(1, 1, dim))
        self.modality_v = nn.Parameter(torch.zeros(1, 1, dim))
        trainable = config.trainable_positions
        self.pos_embed_a = nn.Parameter(sincos_positions(dim, config.grid("audio")), trainable)
        self.pos_embed_v = nn.Parameter(sincos_positions(dim, config.grid("image")), trainable)
        own, shared = config.modality_depth, config.depth - config.modality_depth
        self.blocks_a = self._blocks(own)
        self.blocks_v = self._blocks(own)
        self.blocks_u = self._blocks(shared)
        self.norm_a = nn.LayerNorm(dim)
        self.norm_v = nn.LayerNorm(dim)
        self.norm = nn.LayerNorm(dim)
        freeze_stream_norms((*self.blocks_a, *self.blocks_v))

    def _blocks(self, count: int) -> nn.ModuleList:
        config = self.config
        return nn.ModuleList(
            Block(config.embed_dim, config.num_heads, config.mlp_ratio) for _ in range(count)
        )

    def initialise(self) -> None:
        """The published initial weights of what the objective uses (loading replaces them)."""
        leave_out(self, _LEFT_OUT[self.config.objective])
        self.apply(_initialise_module)
        for module in self.modules():
            if isinstance(module, PatchEmbed):
                nn.init.xavier_uniform_(module.proj.weight.data.flatten(1))
        for name, parameter in self.named_parameters(recurse=False):
            if "modality" in name or name == "mask_token":
                nn.init.normal_(parameter, std=0.02)

    def part(self, name: str, modality: Modality) -> Any:
        """The module or parameter of a name that one modality has."""
        return getattr(self, name + SUFFIXES[modality])

    def patches(self, modality: Modality, given: Tensor) -> Tensor:
        """The model's input in patches.

        Args:
            modality: that is given.
            given: float [B, frames, mel], a fbank, or float [B, 3, H, W], an image.

        Returns:
            float [B, L, patch * patch * channels]; of audio frequency-major.

        Raises:
            UserError: another shape than the model's.
        """
        config = self.config
        expected: tuple[int, ...] = (config.audio_frames, config.mel_bins)
        if modality == "image":
            expected = (3, config.image_size, config.image_size)
        if given.shape[1:] != expected:
            raise UserError(
                f"{modality} has shape {tuple(given.shape)}, the model takes "
                f"[B, {', '.join(map(str, expected))}]."
            )
        picture = given.transpose(1, 2).unsqueeze(1) if modality == "audio" else given
        return patchify(picture, config.patch_size)

    def embed(self, modality: Modality, patches: Tensor, ids: Tensor | None = None) -> Tensor:
        """Patches → tokens [B, L, dim] with position and modality; `ids` picks visible ones."""
        positions = self.part("pos_embed", modality)
        if ids is not None:
            patches, positions = take_rows(patches, ids), positions[0][ids]
        tokens = self.part("patch_embed", modality)(patches)
        return tokens + positions + self.part("modality", modality)

    def own(self, modality: Modality, tokens: Tensor) -> Tensor:
        """Through the modality's blocks."""
        # As published, these use their joint norms; only the shared blocks use all three pairs.
        return run_blocks(self.part("blocks", modality), tokens, "joint")

    def shared(self, tokens: Tensor, stream: Stream) -> Tensor:
        """Through the shared blocks and the final norm of one stream: [B, L, dim].

        A model without contrast has one stream, which single modalities pass as well.
        """
        if not self.config.contrasts:
            stream = "joint"
        tokens = run_blocks(self.blocks_u, tokens, stream)
        return getattr(self, f"norm{SUFFIXES[stream]}")(tokens)

    def tokens(self, modality: Modality, given: Tensor) -> Tensor:
        """Input → what the shared blocks take, nothing hidden: float [B, L, dim]."""
        return self.own(modality, self.embed(modality, self.patches(modality, given)))

    def features(self, audio: Tensor, image: Tensor) -> tuple[Tensor, Tensor]:
        """Unmasked features of each modality alone, for retrieval.

        Args:
            audio: float [B, frames, mel], normalised fbank.
            image: float [B, 3, H, W], normalised.

        Returns:
            float [B, La, dim] and float [B, Lv, dim]; mean over patches and l2-normalise them to
            compare clips (paper, section 4.4).
        """
        return self.audio_features(audio), self.image_features(image)

    def audio_features(self, audio: Tensor) -> Tensor:
        """float [B, frames, mel] → float [B, La, dim]."""
        return self.features_of("audio", audio)

    def image_features(self, image: Tensor) -> Tensor:
        """float [B, 3, H, W] → float [B, Lv, dim]."""
        return self.features_of("image", image)

    def features_of(self, modality: Modality, given: Tensor) -> Tensor:
        """One modality, see `features`."""
        return self.shared(self.tokens(modality, given), modality)


def leave_out(model: nn.Module, names: str) -> None:
    """Delete the modules and parameters whose own names match, wherever they are in a model."""
    for module in list(model.modules()):
        members = (*module.named_children(), *module.named_parameters(recurse=False))
        for name, _ in members:
            if re.fullmatch(names, name):
                delattr(module, name)


def run_blocks(blocks: nn.ModuleList, tokens: Tensor, stream: Stream) -> Tensor:
    """Tokens through blocks, one after another."""
    for block in blocks:
        tokens = block(tokens, stream)
    return tokens


def take_rows(x: Tensor, ids: Tensor) -> Tensor:
    """float [B, L, dim], int64 [B, N] → float [B, N, dim]: of each sample its own rows."""
    batch, length, dim = x.shape
    first = torch.arange(batch, device=x.device)[:, None] * length
    # Copies whole rows, where `gather` looks up each value: four times as fast on a CPU.
    return x.reshape(-1, dim).index_select(0, (ids + first).flatten()).view(batch, -1, dim)


def _initialise_module(module: nn.Module) -> None:
    if isinstance(module, nn.Linear):
        nn.init.xavier_uniform_(module.weight)
        nn.init.zeros_(module.bias)
    elif isinstance(module, nn.LayerNorm):
        nn.init.ones_(module.weight)
        nn.init.zeros_(module.bias)
