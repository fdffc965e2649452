"""The encoder that pretraining and classification share: patches in, tokens out."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from avprep.errors import UserError
from cavmae.model.blocks import Block, Stream, freeze_stream_norms
from cavmae.model.config import ModelConfig
from cavmae.model.positions import sincos_positions


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


class Encoder(nn.Module):
    """Two streams of blocks of their own, then shared blocks. Base of both models."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.config = config
        self.has_images = True
        dim = config.embed_dim
        self.patch_embed_a = PatchEmbed(1, dim, config.patch_size)
        self.patch_embed_v = PatchEmbed(3, dim, config.patch_size)
        self.modality_a = nn.Parameter(torch.zeros(1, 1, dim))
        self.modality_v = nn.Parameter(torch.zeros(1, 1, dim))
        trainable = config.trainable_positions
        self.pos_embed_a = nn.Parameter(sincos_positions(dim, config.audio_grid), trainable)
        self.pos_embed_v = nn.Parameter(sincos_positions(dim, config.image_grid), trainable)
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
        """The published initial weights (a fresh model; loading replaces them)."""
        self.apply(_initialise_module)
        for embed in (self.patch_embed_a, self.patch_embed_v):
            nn.init.xavier_uniform_(embed.proj.weight.data.flatten(1))
        for parameter in (self.modality_a, self.modality_v):
            nn.init.normal_(parameter, std=0.02)

    def audio_patches(self, audio: Tensor) -> Tensor:
        """fbank float [B, frames, mel] → float [B, La, 256], frequency-major.

        Raises:
            UserError: another shape than the model's.
        """
        expected = (self.config.audio_frames, self.config.mel_bins)
        if audio.dim() != 3 or audio.shape[1:] != expected:
            raise UserError(
                f"audio has shape {tuple(audio.shape)}, the model takes [B, {expected[0]}, "
                f"{expected[1]}]."
            )
        return patchify(audio.transpose(1, 2).unsqueeze(1), self.config.patch_size)

    def image_patches(self, image: Tensor) -> Tensor:
        """float [B, 3, H, W] → float [B, Lv, 768].

        Raises:
            UserError: another shape than the model's.
        """
        side = self.config.image_size
        if image.dim() != 4 or image.shape[1:] != (3, side, side):
            raise UserError(
                f"image has shape {tuple(image.shape)}, the model takes [B, 3, {side}, {side}]."
            )
        return patchify(image, self.config.patch_size)

    def embed_audio(self, patches: Tensor, ids: Tensor | None = None) -> Tensor:
        """Patches → tokens [B, L, dim] with position and modality; `ids` picks visible ones."""
        patches, positions = visible(patches, self.pos_embed_a, ids)
        return self.patch_embed_a(patches) + positions + self.modality_a

    def embed_image(self, patches: Tensor, ids: Tensor | None = None) -> Tensor:
        """Patches → tokens [B, L, dim] with position and modality; `ids` picks visible ones."""
        patches, positions = visible(patches, self.pos_embed_v, ids)
        return self.patch_embed_v(patches) + positions + self.modality_v

    # As published, a modality's own blocks use their joint norms; only the shared blocks use all
    # three pairs.
    def own_audio(self, tokens: Tensor) -> Tensor:
        """Through the audio blocks."""
        return run_blocks(self.blocks_a, tokens, "joint")

    def own_image(self, tokens: Tensor) -> Tensor:
        """Through the image blocks."""
        return run_blocks(self.blocks_v, tokens, "joint")

    def shared(self, tokens: Tensor, stream: Stream) -> Tensor:
        """Through the shared blocks and the final norm of one stream: [B, L, dim]."""
        tokens = run_blocks(self.blocks_u, tokens, stream)
        if stream == "joint":
            return self.norm(tokens)
        return self.norm_a(tokens) if stream == "audio" else self.norm_v(tokens)

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
        return self.shared(self.own_audio(self.embed_audio(self.audio_patches(audio))), "audio")

    def image_features(self, image: Tensor) -> Tensor:
        """float [B, 3, H, W] → float [B, Lv, dim]."""
        return self.shared(self.own_image(self.embed_image(self.image_patches(image))), "image")


def run_blocks(blocks: nn.ModuleList, tokens: Tensor, stream: Stream) -> Tensor:
    """Tokens through blocks, one after another."""
    for block in blocks:
        tokens = block(tokens, stream)
    return tokens


def visible(patches: Tensor, positions: Tensor, ids: Tensor | None) -> tuple[Tensor, Tensor]:
    """The patches to encode and their position embeddings."""
    if ids is None:
        return patches, positions
    return take_rows(patches, ids), positions[0][ids]


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
