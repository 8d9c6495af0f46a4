"""Mutual nearest neighbours between two sets of local features: counts, pairs, similarities.

A pair of cells (one of the query, one of the candidate) is mutual when each is the other's most similar cell
by inner product; among equals the first index wins. The number of mutual pairs is SelaVPR's re-ranking score
(Lu et al., "Towards Seamless Adaptation of Pre-trained Models for Visual Place Recognition", ICLR 2024,
section 3.3); no geometry is verified.

The whole similarity tensor is never held: it is folded tile by tile, a tile being some cells of one large
candidate or several whole small candidates. `models.matching.cpu` does that on a CPU,
`models.matching.triton_gpu` on a CUDA device; what is left here serves other accelerators, and CUDA where
Triton is missing.
"""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from models.matching.cpu import NotFinite, as_float32, partners_on_cpu, rounds_to_int8
from models.matching.precision import MatchingPrecision
from models.matching.triton_gpu import Unavailable, partners_on_cuda

__all__ = ["matched_pairs", "mutual_nn_count", "mutual_nn_mean_similarity"]

Features = Tensor | NDArray[np.floating]

_BLOCK = 1 << 23  # similarities held at once without a kernel: 32 MiB, enough to keep an accelerator busy

# Counts from 8-bit similarities are off by about 0.1 times their square root (standard deviation on photos,
# benchmarks/README.md, Matching): this is six of them.
_COUNT_ERROR = 0.6
# Or a tenth of the candidates: where more are so close, counting again would cost too much.
_MIN_LEADERS = 5


def mutual_nn_count(
    query: Features,
    candidates: Features,
    *,
    min_similarity: float | None = None,
    precision: MatchingPrecision = "exact",
) -> Tensor:
    """Count the mutual nearest neighbours between a query and each candidate.

    "fast" computes the similarities from rounded cells: 8-bit integers on a CPU, float16 on CUDA. Its counts
    differ by a few from the exact ones; on a CPU the leading candidates are counted again exactly, so that
    the first of them stays the first. Where nothing is faster than "exact", it is the same.

    Args:
        query: (N, C) or (H, W, C) any float dtype, finite; unit L2 norm per cell for cosine similarity.
        candidates: (K, N', C) or (K, H', W', C) any float dtype, finite; N' may differ from N.
        min_similarity: Only mutual pairs of at least this inner product count; None counts all.
        precision: "exact" compares float32 similarities, "fast" approximate ones.

    Returns:
        (K,) int64 counts, on the query's device.

    Raises:
        ValueError: shapes do not fit, a dtype is not a float, a value is not finite, or the precision is
            unknown.
    """
    if precision not in ("exact", "fast"):
        raise ValueError(f'precision is {precision!r}: pass "exact" or "fast"')
    cells, others = _query_cells(query), _candidate_cells(candidates)
    fast = precision == "fast"
    counts = _counts(cells, others, min_similarity, fast=fast)
    if (
        not fast
        or len(counts) < 2
        or cells.device.type != "cpu"
        or not rounds_to_int8(len(cells), others.shape[1])
    ):
        return counts
    ranked = counts.argsort(descending=True, stable=True)[: max(_MIN_LEADERS, len(counts) // 10)]
    chosen = ranked[counts[ranked] >= counts.max() - _COUNT_ERROR * counts.max().sqrt()]
    picked = others[chosen] if isinstance(others, Tensor) else others[chosen.numpy()]
    counts[chosen] = _counts(cells, picked, min_similarity)
    return counts


def _counts(cells: Tensor, others: Features, floor: float | None, *, fast: bool = False) -> Tensor:
    partner, similarity = _mutual_partners(cells, others, floor=floor, fast=fast)
    counted = partner >= 0
    if floor is not None:
        counted &= similarity >= floor
    return counted.sum(dim=1)


def matched_pairs(
    query: Features, candidate: Features, *, min_similarity: float | None = None
) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """List the mutual nearest neighbours between two feature sets, as for drawing them.

    Args:
        query: (N, C) or (H, W, C) any float dtype, finite.
        candidate: (N', C) or (H', W', C) any float dtype, finite.
        min_similarity: Only pairs of at least this inner product are listed; None lists all.

    Returns:
        indices: (M, 2) int64, query cell and candidate cell in row-major order, sorted by query cell.
        similarity: (M,) float32, the inner product of each pair.

    Raises:
        ValueError: shapes do not fit, a dtype is not a float, or a value is not finite.
    """
    cells, others = _query_cells(query), _query_cells(candidate, name="candidate")[None]
    partner, similarity = _mutual_partners(cells, others)
    listed = partner[0] >= 0
    if min_similarity is not None:
        listed &= similarity[0] >= min_similarity
    rows = listed.nonzero().squeeze(1)
    indices = torch.stack((rows, partner[0, rows]), dim=1)
    return indices.cpu().numpy(), similarity[0, rows].cpu().numpy()


def mutual_nn_mean_similarity(query: Features, candidates: Features) -> Tensor:
    """Average the similarity over the mutual nearest neighbours; gradients flow through the pairs found.

    This is the quantity s inside SelaVPR's mutual-nearest-neighbour local feature loss (section 3.4). At
    least one pair is always mutual: the first largest entry of the similarity matrix.

    Args:
        query: (N, C) or (H, W, C) any float dtype, finite, unit L2 norm per cell.
        candidates: (K, N', C) or (K, H', W', C) any float dtype, finite, unit L2 norm per cell.

    Returns:
        (K,) float32 mean similarities, on the query's device.

    Raises:
        ValueError: shapes do not fit, a dtype is not a float, or a value is not finite.
    """
    cells, others = _query_cells(query), _candidate_cells(candidates)
    with torch.no_grad():
        partner, _ = _mutual_partners(cells, others)
    cells = _as_float32(cells, cells)
    means = []
    for cell_of, other in zip(partner, others, strict=True):
        rows = (cell_of >= 0).nonzero().squeeze(1)
        pairs = cells[rows] * _as_float32(other, cells)[cell_of[rows]]
        means.append(pairs.sum(dim=1).mean())
    return torch.stack(means) if means else cells.new_zeros(0)


def _query_cells(features: Features, *, name: str = "query") -> Tensor:
    if features.ndim not in (2, 3):
        raise ValueError(f"{name} has shape {tuple(features.shape)}: pass (N, C) or (H, W, C)")
    cells = features.reshape(-1, features.shape[-1])
    _require_float_cells(cells, name)
    return cells if isinstance(cells, Tensor) else as_float32(cells)


def _candidate_cells(features: Features) -> Features:
    if features.ndim not in (3, 4):
        raise ValueError(f"candidates have shape {tuple(features.shape)}: pass (K, N, C) or (K, H, W, C)")
    count = int(np.prod(features.shape[1:-1]))
    cells = features.reshape(features.shape[0], count, features.shape[-1])
    _require_float_cells(cells, "candidates")
    return cells


def _require_float_cells(cells: Features, name: str) -> None:
    floating = cells.is_floating_point() if isinstance(cells, Tensor) else cells.dtype.kind == "f"
    if not floating:
        raise ValueError(f"{name} have dtype {cells.dtype}: convert them to float32 or float16 first")
    if 0 in cells.shape[-2:]:
        raise ValueError(f"{name} hold no cells (shape {tuple(cells.shape)}): pass at least one")


def _as_float32(features: Features, like: Tensor) -> Tensor:
    """Move features to the device of `like` as float32; NumPy arrays are copied, they may be read-only."""
    if isinstance(features, Tensor):
        return features.to(device=like.device, dtype=torch.float32)
    return as_float32(features).to(like.device)


@torch.no_grad()
def _mutual_partners(
    query: Tensor, candidates: Features, *, floor: float | None = None, fast: bool = False
) -> tuple[Tensor, Tensor]:
    """Find for each query cell its mutual candidate cell.

    Args:
        query: (N, C) float.
        candidates: (K, N', C) float.
        floor: Pairs of a smaller inner product may be left out.
        fast: Approximate similarities do.

    Returns:
        partner: (K, N) int64, the candidate cell that is mutual with each query cell, -1 where none is.
        similarity: (K, N) float32, each query cell's largest inner product.
    """
    query, width = query.detach(), candidates.shape[2]
    if width != query.shape[1]:
        raise ValueError(
            f"query cells have {query.shape[1]} channels, candidate cells {width}: "
            "compare features of one model"
        )
    if query.device.type == "cpu":
        return partners_on_cpu(_as_float32(query, query), candidates, floor=floor, fast=fast)
    if query.device.type == "cuda":
        try:
            return partners_on_cuda(query, candidates, fast=fast)
        except Unavailable:  # the launch has warned of it once
            pass
    return _partners_by_blocks(_as_float32(query, query), candidates)


def _partners_by_blocks(cells: Tensor, candidates: Features) -> tuple[Tensor, Tensor]:
    """Do what `_mutual_partners` does with plain tensor operations, on any device."""
    count, size, channels = candidates.shape
    transposed = cells.T
    partner = torch.full((count, len(cells)), -1, dtype=torch.int64, device=cells.device)
    best = torch.full((count, len(cells)), -torch.inf, device=cells.device)
    rows = max(1, _BLOCK // len(cells))
    group = max(1, rows // size)
    finite = torch.isfinite(cells).all()
    for start in range(0, count, group):
        others = _as_float32(candidates[start : start + group], cells)
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
        partner: (G, N) int64, see `_mutual_partners`.
        best: (G, N) float32, largest similarity so far.
    """
    row_choice = block.argmax(dim=2)
    top, top_row = block.max(dim=1)
    mutual = row_choice.gather(1, top_row) == torch.arange(block.shape[2], device=block.device)
    # Strictly better: of equal candidate cells the one of an earlier block stays.
    better = top > best
    partner.copy_(torch.where(better, torch.where(mutual, top_row + first, -1), partner))
    best.copy_(torch.where(better, top, best))
