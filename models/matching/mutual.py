"""Mutual nearest neighbours between two sets of local features: counts, pairs, similarities.

A pair of cells (one of the query, one of the candidate) is mutual when each is the other's most similar cell
by inner product; among equals the first index wins. The number of mutual pairs is SelaVPR's re-ranking score
(Lu et al., "Towards Seamless Adaptation of Pre-trained Models for Visual Place Recognition", ICLR 2024,
section 3.3); no geometry is verified.

The full similarity tensor is never materialised: it is reduced tile by tile, a tile being some cells of one
large candidate or several small candidates. `models.matching.cpu` does that on a CPU,
`models.matching.triton_gpu` on a CUDA device, `models.matching.blocks` on other accelerators and where Triton
is missing.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from models.matching.blocks import partners_by_blocks
from models.matching.cpu import partners_on_cpu
from models.matching.cpu_products import rounds_to_int8
from models.matching.features import Features, candidate_cells, float32_like, query_cells
from models.matching.precision import MatchingPrecision
from models.matching.triton_gpu import Unavailable, partners_on_cuda

__all__ = ["matched_pairs", "mutual_neighbours", "mutual_nn_count", "mutual_nn_mean_similarity"]

# Counts from 8-bit similarities have a standard error of about 0.1 times their square root (measured on
# photos, benchmarks/README.md, Matching): this is six standard errors.
_COUNT_ERROR = 0.6
# Or a tenth of the candidates: counting more of them again would cost too much.
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
    the best one stays first. Where no faster arithmetic is available, "fast" equals "exact".

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
    partner, similarity = mutual_neighbours(
        query,
        candidates,
        precision=precision,
        score=lambda partner, similarity: _count(partner, similarity, min_similarity),
        floor=min_similarity,
    )
    return _count(partner, similarity, min_similarity)


def mutual_neighbours(
    query: Features,
    candidates: Features,
    *,
    precision: MatchingPrecision = "exact",
    score: Callable[[Tensor, Tensor], Tensor] | None = None,
    exact_first: int = 0,
    floor: float | None = None,
) -> tuple[Tensor, Tensor]:
    """Find the mutual nearest neighbours between a query and each candidate.

    Args:
        query: As of `mutual_nn_count`.
        candidates: As of `mutual_nn_count`.
        precision: As of `mutual_nn_count`.
        score: Takes the two results and returns (K,) scores: "fast" matches those with the largest again
            exactly. None: none of them.
        exact_first: How many of the first candidates "fast" matches exactly in any case.
        floor: Pairs of a smaller inner product may be left out.

    Returns:
        partner: (K, N) int64, the mutual candidate cell of each query cell, or -1.
        similarity: (K, N) float32, each query cell's largest inner product.

    Raises:
        ValueError: as of `mutual_nn_count`.
    """
    if precision not in ("exact", "fast"):
        raise ValueError(f'precision is {precision!r}: pass "exact" or "fast"')
    cells, others = query_cells(query), candidate_cells(candidates)
    fast = precision == "fast"
    partner, similarity = _mutual_partners(cells, others, floor=floor, fast=fast)
    if (
        not fast
        or score is None
        or len(partner) < 2
        or cells.device.type != "cpu"
        or not rounds_to_int8(len(cells), others.shape[1])
    ):
        return partner, similarity

    def match_exactly(chosen: Tensor) -> None:
        selected = others[chosen] if isinstance(others, Tensor) else others[chosen.numpy()]
        partner[chosen], similarity[chosen] = _mutual_partners(cells, selected, floor=floor)

    first = torch.arange(min(max(0, exact_first), len(partner)))
    if len(first):
        match_exactly(first)
    scores = score(partner, similarity)
    ranked = scores.argsort(descending=True, stable=True)[: max(_MIN_LEADERS, len(scores) // 10)]
    leaders = ranked[scores[ranked] >= scores.max() - _COUNT_ERROR * scores.max().sqrt()]
    leaders = leaders[leaders >= len(first)]
    if len(leaders):
        match_exactly(leaders)
    return partner, similarity


def _count(partner: Tensor, similarity: Tensor, floor: float | None) -> Tensor:
    mutual = partner >= 0
    if floor is not None:
        mutual &= similarity >= floor
    return mutual.sum(dim=1)


def matched_pairs(
    query: Features, candidate: Features, *, min_similarity: float | None = None
) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """Return the mutual nearest neighbours between two feature sets, for example to draw them.

    Args:
        query: (N, C) or (H, W, C) any float dtype, finite.
        candidate: (N', C) or (H', W', C) any float dtype, finite.
        min_similarity: Only pairs of at least this inner product are returned; None: all.

    Returns:
        indices: (M, 2) int64, query cell and candidate cell in row-major order, sorted by query cell.
        similarity: (M,) float32, the inner product of each pair.

    Raises:
        ValueError: shapes do not fit, a dtype is not a float, or a value is not finite.
    """
    cells, others = query_cells(query), query_cells(candidate, name="candidate")[None]
    partner, similarity = _mutual_partners(cells, others)
    mutual = partner[0] >= 0
    if min_similarity is not None:
        mutual &= similarity[0] >= min_similarity
    rows = mutual.nonzero().squeeze(1)
    indices = torch.stack((rows, partner[0, rows]), dim=1)
    return indices.cpu().numpy(), similarity[0, rows].cpu().numpy()


def mutual_nn_mean_similarity(query: Features, candidates: Features) -> Tensor:
    """Average the similarity over the mutual nearest neighbours; gradients flow through the matched pairs.

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
    cells, others = query_cells(query), candidate_cells(candidates)
    with torch.no_grad():
        partner, _ = _mutual_partners(cells, others)
    cells = float32_like(cells, cells)
    means = []
    for cell_of, other in zip(partner, others, strict=True):
        rows = (cell_of >= 0).nonzero().squeeze(1)
        pairs = cells[rows] * float32_like(other, cells)[cell_of[rows]]
        means.append(pairs.sum(dim=1).mean())
    return torch.stack(means) if means else cells.new_zeros(0)


@torch.no_grad()
def _mutual_partners(
    query: Tensor, candidates: Features, *, floor: float | None = None, fast: bool = False
) -> tuple[Tensor, Tensor]:
    """Find for each query cell its mutual candidate cell.

    Args:
        query: (N, C) float.
        candidates: (K, N', C) float.
        floor: Pairs of a smaller inner product may be left out.
        fast: Allow approximate similarities.

    Returns:
        partner: (K, N) int64, the mutual candidate cell of each query cell, or -1.
        similarity: (K, N) float32, each query cell's largest inner product.
    """
    query, width = query.detach(), candidates.shape[2]
    if width != query.shape[1]:
        raise ValueError(
            f"query cells have {query.shape[1]} channels, candidate cells {width}: "
            "compare features of one model"
        )
    if query.device.type == "cpu":
        return partners_on_cpu(float32_like(query, query), candidates, floor=floor, fast=fast)
    if query.device.type == "cuda":
        try:
            return partners_on_cuda(query, candidates, fast=fast)
        except Unavailable:  # the launch has warned once
            pass
    return partners_by_blocks(float32_like(query, query), candidates)
