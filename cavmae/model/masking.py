"""Which patches the encoder sees. Pure functions of random numbers."""

from __future__ import annotations

import torch
from torch import Tensor

from cavmae.options import MASK_MODES, MaskMode

# Above all random numbers, so that its patch is kept last. Where more patches have it than may be
# removed, the first ones stay, as in the published code.
_MASKED = 1.1
_TF_SHARE = 0.7  # rows and columns overlap, so each axis gets less than the ratio


def mask_noise(
    batch: int,
    grid: tuple[int, int],
    ratio: float,
    mode: MaskMode = "unstructured",
    generator: torch.Generator | None = None,
    device: torch.device | None = None,
) -> Tensor:
    """Random numbers whose smallest are the patches to keep.

    Args:
        batch: samples.
        grid: (rows, columns) of patches; for audio (frequency, time).
        ratio: of patches to remove.
        mode: unstructured, or whole columns (`time`), rows (`freq`) or both (`tf`) first.
        generator: source of randomness, on `device`; None for the global one.
        device: where the result is made.

    Returns:
        float32 [batch, rows * columns].

    Raises:
        ValueError: no such mode.
    """
    if mode not in MASK_MODES:
        raise ValueError(f"unknown mask mode {mode!r}; choose from {', '.join(MASK_MODES)}.")
    rows, columns = grid
    noise = torch.rand(batch, rows, columns, generator=generator, device=device)
    if mode in ("time", "tf"):
        share = ratio if mode == "time" else ratio * _TF_SHARE
        chosen = _choose(batch, columns, int(columns * share), generator, device)
        noise = noise.masked_fill(chosen[:, None, :], _MASKED)
    if mode in ("freq", "tf"):
        share = ratio if mode == "freq" else ratio * _TF_SHARE
        chosen = _choose(batch, rows, int(rows * share), generator, device)
        noise = noise.masked_fill(chosen[:, :, None], _MASKED)
    return noise.reshape(batch, rows * columns)


def _choose(
    batch: int,
    size: int,
    count: int,
    generator: torch.Generator | None,
    device: torch.device | None,
) -> Tensor:
    """bool [batch, size] with `count` random positions true in each row."""
    ranks = torch.rand(batch, size, generator=generator, device=device).argsort(1).argsort(1)
    return ranks < count


def kept_patches(length: int, ratio: float) -> int:
    """How many of `length` patches stay when `ratio` of them are removed."""
    return int(length * (1 - ratio))


def split_by_noise(noise: Tensor, ratio: float) -> tuple[Tensor, Tensor, Tensor]:
    """Keep the patches with the smallest noise, the first of equal ones.

    Args:
        noise: float [B, L].
        ratio: of patches to remove.

    Returns:
        (ids, hidden, mask): int64 [B, kept], the patches that stay; int64 [B, L - kept], those
        removed; and float32 [B, L], 1 where removed.
    """
    batch, length = noise.shape
    kept = kept_patches(length, ratio)
    ids, hidden = noise.argsort(dim=1, stable=True).split([kept, length - kept], dim=1)
    mask = torch.zeros(batch, length, device=noise.device)
    return ids, hidden, mask.scatter(1, hidden, 1.0)
