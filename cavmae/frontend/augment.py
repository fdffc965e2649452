"""Random changes to a batch of spectrograms. Every draw comes from the generator given."""

from __future__ import annotations

import torch
from torch import Tensor


def spec_augment(
    fbank: Tensor, freq_mask: int, time_mask: int, generator: torch.Generator
) -> Tensor:
    """Zero a random band of bins and a random stretch of frames of each sample (SpecAugment).

    Args:
        fbank: float [B, frames, bins].
        freq_mask: widest band, bins.
        time_mask: longest stretch, frames.
        generator: on the same device.
    """
    _, frames, bins = fbank.shape
    hidden = _band(len(fbank), frames, time_mask, generator, fbank.device)[:, :, None]
    hidden = hidden | _band(len(fbank), bins, freq_mask, generator, fbank.device)[:, None, :]
    return fbank.masked_fill(hidden, 0.0)


def _band(
    batch: int, size: int, widest: int, generator: torch.Generator, device: torch.device
) -> Tensor:
    """bool [B, size]: one random interval a row, its width uniform below `widest`."""
    width = torch.rand(batch, 1, generator=generator, device=device) * min(widest, size)
    start = (torch.rand(batch, 1, generator=generator, device=device) * (size - width)).floor()
    place = torch.arange(size, device=device)
    return (place >= start) & (place < start + width.floor())


def add_noise_and_roll(fbank: Tensor, generator: torch.Generator) -> Tensor:
    """Add uniform noise of a random strength below 0.1, then rotate along time.

    Args:
        fbank: float [B, frames, bins], normalised.
        generator: on the same device.
    """
    batch, frames, _ = fbank.shape
    device = fbank.device
    strength = torch.rand(batch, 1, 1, generator=generator, device=device) / 10
    noisy = torch.rand(fbank.shape, generator=generator, device=device).mul_(strength).add_(fbank)
    shift = torch.randint(-frames, frames, (batch, 1), generator=generator, device=device)
    source = (torch.arange(frames, device=device) - shift) % frames
    return noisy[torch.arange(batch, device=device)[:, None], source]
