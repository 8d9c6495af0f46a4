"""Mutual nearest neighbours by plain tensor operations, on any device."""

from __future__ import annotations

import torch
from torch import Tensor

from models.matching.features import Features, NotFinite, float32_like

__all__ = ["partners_by_blocks"]

_BLOCK = 1 << 23  # similarities per block: 32 MiB, enough to keep an accelerator busy


def partners_by_blocks(cells: Tensor, candidates: Features) -> tuple[Tensor, Tensor]:
    """Find for each query cell its mutual candidate cell.

    Args:
        cells: (N, C) float32, the query's.
        candidates: (K, N', C) any float dtype, on any device.

    Returns:
        partner: (K, N) int64, the mutual candidate cell of each query cell, or -1.
        best: (K, N) float32, each query cell's largest inner product.

    Raises:
        NotFinite: a value is NaN or infinite, or a product is.
    """
    count, size, channels = candidates.shape
    transposed = cells.T
    partner = torch.full((count, len(cells)), -1, dtype=torch.int64, device=cells.device)
    best = torch.full((count, len(cells)), -torch.inf, device=cells.device)
    rows = max(1, _BLOCK // len(cells))
    group = max(1, rows // size)
    finite = torch.isfinite(cells).all()
    for start in range(0, count, group):
        others = float32_like(candidates[start : start + group], cells)
        finite &= torch.isfinite(others).all()
        at = slice(start, start + len(others))
        for first in range(0, size, rows):
            some = others[:, first : first + rows]
            block = (some.reshape(-1, channels) @ transposed).view(len(others), -1, len(cells))
            _fold(block, first, partner[at], best[at])
    if not bool(finite & torch.isfinite(best).all()):
        raise NotFinite
    return partner, best


def _fold(block: Tensor, first: int, partner: Tensor, best: Tensor) -> None:
    """Fold one block of similarities into the running result, in place.

    Args:
        block: (G, R, N) float32, R cells of each of G candidates against N query cells.
        first: Index of the block's first candidate cell.
        partner: (G, N) int64, see `partners_by_blocks`.
        best: (G, N) float32, largest similarity so far.
    """
    row_choice = block.argmax(dim=2)
    top, top_row = block.max(dim=1)
    mutual = row_choice.gather(1, top_row) == torch.arange(block.shape[2], device=block.device)
    # Strictly better: of equal candidate cells the one of an earlier block stays.
    better = top > best
    partner.copy_(torch.where(better, torch.where(mutual, top_row + first, -1), partner))
    best.copy_(torch.where(better, top, best))
