"""Fixed 2-D sine-cosine position embeddings, as published MAE models use them."""

from __future__ import annotations

import torch


def sincos_positions(dim: int, grid: tuple[int, int]) -> torch.Tensor:
    """Position embeddings of a grid of patches.

    Half of the channels encode the column, the other half the row.

    Args:
        dim: channels, a multiple of 4.
        grid: (rows, columns).

    Returns:
        float32 [1, rows * columns, dim], row by row.
    """
    rows, columns = (torch.arange(size, dtype=torch.float64) for size in grid)
    row, column = torch.meshgrid(rows, columns, indexing="ij")
    halves = [_sincos(dim // 2, axis.reshape(-1)) for axis in (column, row)]
    return torch.cat(halves, dim=1).float().unsqueeze(0)


def _sincos(dim: int, positions: torch.Tensor) -> torch.Tensor:
    """float64 [L] → float64 [L, dim]: sines of geometrically falling frequencies, then cosines."""
    steps = torch.arange(dim // 2, dtype=torch.float64) / (dim / 2)
    angles = torch.outer(positions, 10000.0**-steps)
    return torch.cat([angles.sin(), angles.cos()], dim=1)
