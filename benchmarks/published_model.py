"""CAV-MAE's pretraining step as the published code computes it: what ours is timed beside.

Written anew, in eager PyTorch throughout: attention is spelled out with its matrix of scores, every
patch is embedded by a convolution before three in four are dropped, tokens are put back by sorting
twice and copying the mask token, and the shared block runs three times. The modules carry the names
of the published weights, so those of a model of ours load into this one. Only what a training step
of the published size needs is here: unstructured masks, both losses.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from cavmae.model import ModelConfig


class Attention(nn.Module):
    """Multi-head attention, step by step."""

    def __init__(self, dim: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.scale = (dim // heads) ** -0.5
        self.qkv = nn.Linear(dim, 3 * dim)
        self.proj = nn.Linear(dim, dim)

    def forward(self, x: Tensor) -> Tensor:
        """float [B, L, dim] → float [B, L, dim]."""
        batch, length, dim = x.shape
        qkv = self.qkv(x).reshape(batch, length, 3, self.heads, dim // self.heads)
        query, key, value = qkv.permute(2, 0, 3, 1, 4)
        scores = (query @ key.transpose(-2, -1)) * self.scale
        mixed = scores.softmax(dim=-1) @ value
        return self.proj(mixed.transpose(1, 2).reshape(batch, length, dim))


class Mlp(nn.Module):
    """Two linear layers and a GELU."""

    def __init__(self, dim: int, hidden: int) -> None:
        super().__init__()
        self.fc1 = nn.Linear(dim, hidden)
        self.act = nn.GELU()
        self.fc2 = nn.Linear(hidden, dim)

    def forward(self, x: Tensor) -> Tensor:
        """float [B, L, dim] → float [B, L, dim]."""
        return self.fc2(self.act(self.fc1(x)))


class Block(nn.Module):
    """A transformer block with three pairs of norms."""

    def __init__(self, dim: int, heads: int, mlp_ratio: float) -> None:
        super().__init__()
        for suffix in ("", "_a", "_v"):
            setattr(self, f"norm1{suffix}", nn.LayerNorm(dim))
            setattr(self, f"norm2{suffix}", nn.LayerNorm(dim))
        self.attn = Attention(dim, heads)
        self.mlp = Mlp(dim, int(dim * mlp_ratio))

    def forward(self, x: Tensor, suffix: str = "") -> Tensor:
        """float [B, L, dim] → float [B, L, dim]; the suffix says whose norms."""
        x = x + self.attn(getattr(self, f"norm1{suffix}")(x))
        return x + self.mlp(getattr(self, f"norm2{suffix}")(x))


class PatchEmbed(nn.Module):
    """A convolution that steps by its own size."""

    def __init__(self, channels: int, dim: int, patch: int) -> None:
        super().__init__()
        self.proj = nn.Conv2d(channels, dim, kernel_size=patch, stride=patch)

    def forward(self, pictures: Tensor) -> Tensor:
        """float [B, C, H, W] → float [B, L, dim]."""
        return self.proj(pictures).flatten(2).transpose(1, 2)


@dataclass(frozen=True)
class Noise:
    """The random numbers that decide a step's masks."""

    audio: Tensor  # float [B, La]
    image: Tensor  # float [B, Lv]


class PublishedModel(nn.Module):
    """The pretraining model with the published arithmetic."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.config = config
        dim, patch = config.embed_dim, config.patch_size
        self.patch_embed_a = PatchEmbed(1, dim, patch)
        self.patch_embed_v = PatchEmbed(3, dim, patch)
        own = config.modality_depth
        self.blocks_a, self.blocks_v, self.blocks_u = (
            nn.ModuleList(Block(dim, config.num_heads, config.mlp_ratio) for _ in range(count))
            for count in (own, own, config.depth - own)
        )
        self.norm, self.norm_a, self.norm_v = (nn.LayerNorm(dim) for _ in range(3))
        decoder = config.decoder_dim
        self.decoder_embed = nn.Linear(dim, decoder)
        self.mask_token = nn.Parameter(torch.zeros(1, 1, decoder))
        for stream, patches in (("a", config.patches("audio")), ("v", config.patches("image"))):
            for prefix, width in (("", dim), ("decoder_", decoder)):
                places = nn.Parameter(torch.zeros(1, patches, width), requires_grad=False)
                setattr(self, f"{prefix}pos_embed_{stream}", places)
                setattr(self, f"{prefix}modality_{stream}", nn.Parameter(torch.zeros(1, 1, width)))
        self.decoder_blocks = nn.ModuleList(
            Block(decoder, config.decoder_heads, config.mlp_ratio)
            for _ in range(config.decoder_depth)
        )
        self.decoder_norm = nn.LayerNorm(decoder)
        self.decoder_pred_a = nn.Linear(decoder, patch**2)
        self.decoder_pred_v = nn.Linear(decoder, patch**2 * 3)

    def forward(
        self,
        audio: Tensor,
        image: Tensor,
        noise: Noise,
        mask_ratio: float = 0.75,
        mae_weight: float = 1.0,
        contrast_weight: float = 0.01,
    ) -> Tensor:
        """float [B, frames, mel], float [B, 3, H, W] → the total loss."""
        spectrogram = audio.unsqueeze(1).transpose(2, 3)
        tokens_a = self.patch_embed_a(spectrogram) + self.pos_embed_a + self.modality_a
        tokens_v = self.patch_embed_v(image) + self.pos_embed_v + self.modality_v
        tokens_a, mask_a, restore_a = self._mask(tokens_a, noise.audio, mask_ratio)
        tokens_v, mask_v, restore_v = self._mask(tokens_v, noise.image, mask_ratio)
        for block in self.blocks_a:
            tokens_a = block(tokens_a)
        for block in self.blocks_v:
            tokens_v = block(tokens_v)
        joint, alone_a, alone_v = torch.cat([tokens_a, tokens_v], dim=1), tokens_a, tokens_v
        for block in self.blocks_u:
            joint = block(joint)
            alone_a = block(alone_a, "_a")
            alone_v = block(alone_v, "_v")
        joint, alone_a, alone_v = self.norm(joint), self.norm_a(alone_a), self.norm_v(alone_v)

        pred_a, pred_v = self._decode(joint, tokens_a.shape[1], restore_a, restore_v)
        loss_a = self._mae_loss(spectrogram, pred_a, mask_a)
        loss_v = self._mae_loss(image, pred_v, mask_v)
        contrast = self._contrast(alone_a.mean(dim=1), alone_v.mean(dim=1))
        return mae_weight * (loss_a + loss_v) + contrast_weight * contrast

    def _mask(self, tokens: Tensor, noise: Tensor, ratio: float) -> tuple[Tensor, Tensor, Tensor]:
        batch, length, dim = tokens.shape
        kept = int(length * (1 - ratio))
        order = torch.argsort(noise, dim=1)
        restore = torch.argsort(order, dim=1)
        visible = torch.gather(tokens, 1, order[:, :kept].unsqueeze(-1).repeat(1, 1, dim))
        mask = torch.ones(batch, length, device=tokens.device)
        mask[:, :kept] = 0
        return visible, torch.gather(mask, 1, restore), restore

    def _decode(
        self, joint: Tensor, kept_a: int, restore_a: Tensor, restore_v: Tensor
    ) -> tuple[Tensor, Tensor]:
        tokens = self.decoder_embed(joint)
        parts = []
        for part, restore, stream in (
            (tokens[:, :kept_a], restore_a, "a"),
            (tokens[:, kept_a:], restore_v, "v"),
        ):
            hidden = self.mask_token.repeat(len(part), restore.shape[1] - part.shape[1], 1)
            full = torch.cat([part, hidden.to(part.dtype)], dim=1)
            index = restore.unsqueeze(-1).repeat(1, 1, full.shape[2])
            full = torch.gather(full, 1, index)
            full = full + getattr(self, f"decoder_pos_embed_{stream}")
            parts.append(full + getattr(self, f"decoder_modality_{stream}"))
        tokens = torch.cat(parts, dim=1)
        for block in self.decoder_blocks:
            tokens = block(tokens)
        tokens = self.decoder_norm(tokens)
        length = restore_a.shape[1]
        return self.decoder_pred_a(tokens[:, :length]), self.decoder_pred_v(tokens[:, length:])

    def _mae_loss(self, pictures: Tensor, prediction: Tensor, mask: Tensor) -> Tensor:
        batch, channels, height, width = pictures.shape
        patch = self.config.patch_size
        target = pictures.reshape(batch, channels, height // patch, patch, width // patch, patch)
        target = torch.einsum("nchpwq->nhwpqc", target).reshape(batch, -1, patch**2 * channels)
        mean, variance = target.mean(dim=-1, keepdim=True), target.var(dim=-1, keepdim=True)
        target = (target - mean) / (variance + 1e-6) ** 0.5
        error = ((prediction - target) ** 2).mean(dim=-1)
        return (error * mask).sum() / mask.sum()

    def _contrast(self, audio: Tensor, image: Tensor) -> Tensor:
        audio, image = F.normalize(audio, dim=-1), F.normalize(image, dim=-1)
        similarity = torch.mm(audio, image.transpose(0, 1)) / 0.05
        return -torch.mean(torch.diag(F.log_softmax(similarity, dim=0)))
