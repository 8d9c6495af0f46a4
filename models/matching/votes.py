"""Votes of mutual nearest neighbours: matches that agree on a displacement count more than scattered ones.

Mutual neighbours of two photos of one place agree on how far the view has moved; those of different places
scatter. The nearest published relative is the rapid spatial scoring of Patch-NetVLAD (Hausler et al., CVPR
2021, section 3.4), which measures how far the displacements of matches lie from their mean. Here matches
vote:

- Cell i of the query reaches the similarity s_ik in candidate k; m_i is its mean over the first 12
  candidates. The match has the weight w_ik = 3/4 clip((s_ik - m_i) / 0.3, 0, 1) + 1/4 clip((s_ik - 0.5) /
  0.2, 0, 1): a cell that finds an equally similar partner in every candidate (sky, asphalt, the rim of a
  lens) says little about the place, however similar. m_i holds a twelfth of the similarity of each of the 12
  and nothing of the others; there 11/12 of the difference count, as if it did.
- The displacement of a match, from the query's cell to the candidate's, is measured in fourteenths of the
  height and width of the image and rounded to whole ones.
- For a width v, V_v is the largest sum of the weights of matches in a square of v x v displacements, wherever
  it lies. With T, the sum of all weights, the score is (V_5 + V_9 + 3 T) / 5: agreement decides between
  candidates whose matches weigh about the same.

A change of scale by a factor s spreads displacements over seven |s - 1| to either side, which fits into a
square of 5 x 5 up to factors of 1.3 and into one of 9 x 9 up to 1.6; what moves further still counts three
fifths.

The score is at least 0 and at most the number of matches; it equals that number exactly where all weights
are 1 and all displacements lie in one square of 5 x 5. Similarities are rounded to 1 / 2000, so that weights,
in 1600ths, and their sums are whole numbers: neither the order of cells nor the device changes the score.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from models.matching.displacements import (
    BINS,
    CENTRE,
    FINE,
    WIDTHS,
    Grid,
    agreeing_square,
    cell_positions,
    largest_squares,
)
from models.matching.triton_gpu import Unavailable, votes_on_cuda

__all__ = ["BASELINE_CANDIDATES", "Grid", "agreeing_pairs", "vote_scores"]

BASELINE_CANDIDATES = 12
STEPS = 2000  # per unit of similarity
RELATIVE = 600  # steps above the mean that give the whole relative part, 0.3
ABSOLUTE, ABSOLUTE_FROM = 400, 1000  # steps that give the whole absolute part, 0.2, and where it begins, 0.5
FULL = 2 * RELATIVE + ABSOLUTE  # a whole vote: three quarters relative, one absolute
ALL = 3  # how often the sum of all weights counts, for each width's once
_MAX_SIMILARITY = 8.0  # features of unit norm reach 1; a bound keeps sums within 32 bits


def vote_scores(partner: Tensor, similarity: Tensor, grid: Grid, other_grid: Grid | None = None) -> Tensor:
    """Score the candidates of one query by the votes of their mutual nearest neighbours.

    Args:
        partner: (K, N) integer, the mutual candidate cell of each query cell in row-major order, or -1.
        similarity: (K, N) float, the similarity of each query cell to its nearest candidate cell, mutual or
            not. The first 12 candidates, the most similar photos, decide how much each cell says.
        grid: H and W of the query's cells, N = H * W.
        other_grid: Of the candidates' cells; default: `grid`.

    Returns:
        (K,) float64 scores on the device of `partner`, each from 0 to the number of its matches.

    Raises:
        ValueError: shapes do not fit, a partner is not a cell, or a similarity is not finite.
    """
    other_grid = other_grid or grid
    _check(partner, similarity, grid, other_grid)
    if partner.device.type == "cuda" and len(partner):
        try:
            return _scores_on_cuda(partner, similarity, grid, other_grid)
        except Unavailable:  # the launch has warned once
            pass
    cells = partner.cpu().numpy()
    weights = _weights(similarity.float().cpu().numpy())
    weights *= cells >= 0
    squares = largest_squares(cells, weights, grid, other_grid)
    return torch.from_numpy(_mean(squares, weights.sum(axis=1, dtype=np.float64))).to(partner.device)


def agreeing_pairs(
    pairs: NDArray[np.int64], similarity: NDArray[np.float32], grid: Grid, other_grid: Grid | None = None
) -> NDArray[np.bool_]:
    """Tell which matches of two photos agree: those in the square of 9 x 9 displacements with the most votes.

    Args:
        pairs: (M, 2) int64, query cell and candidate cell, as of `matched_pairs`.
        similarity: (M,) float32, of each pair.
        grid: H and W of the query's cells.
        other_grid: Of the candidate's; default: `grid`.

    Returns:
        (M,) bool; none where no match has a weight above 0.
    """
    weights = _weights(similarity[None])[0]
    if not weights.any():
        return np.zeros(len(pairs), dtype=bool)
    return agreeing_square(pairs, weights, grid, other_grid or grid)


def _check(partner: Tensor, similarity: Tensor, grid: Grid, other_grid: Grid) -> None:
    cells, others = grid[0] * grid[1], other_grid[0] * other_grid[1]
    if partner.ndim != 2 or partner.shape != similarity.shape or partner.shape[1] != cells:
        raise ValueError(
            f"partner {tuple(partner.shape)} and similarity {tuple(similarity.shape)} do not fit "
            f"{grid} cells: pass (K, H * W) of both"
        )
    if cells * FULL >= 1 << 31:
        raise ValueError(f"{cells} cells are too many to vote: use smaller maps")
    if partner.numel() == 0:
        return
    if partner.is_floating_point() or partner.is_complex() or int(_array_if_cheap(partner).max()) >= others:
        raise ValueError(f"partners are not cells of {other_grid}: pass their indices, or -1")
    values = _array_if_cheap(similarity)
    # NaN is both the smallest and the largest value.
    if not (math.isfinite(values.min()) and math.isfinite(values.max())):
        raise ValueError("similarities hold NaN or infinite values: extract the features again")


def _array_if_cheap(values: Tensor) -> Any:
    """Return an array for a tensor on the CPU: a call on a small one takes half as long in NumPy."""
    return values.numpy() if values.device.type == "cpu" and values.dtype != torch.bfloat16 else values


def _weights(similarity: Any) -> Any:
    """Return the (K, N) float32 weights of matches, whole numbers from 0 to `FULL`, of tensors or arrays."""
    steps = (similarity.clip(-_MAX_SIMILARITY, _MAX_SIMILARITY) * STEPS).round()
    first = steps[:BASELINE_CANDIDATES]
    # Whole numbers and their quotients by up to 12 are far from the limits of float32.
    mean = (first.sum(0) / max(1, len(first)) + 0.5) // 1
    above = steps - mean
    above[BASELINE_CANDIDATES:] = (
        above[BASELINE_CANDIDATES:] * (BASELINE_CANDIDATES - 1) / BASELINE_CANDIDATES + 0.5
    ) // 1
    return above.clip(0, RELATIVE) * 2 + (steps - ABSOLUTE_FROM).clip(0, ABSOLUTE)


def _scores_on_cuda(partner: Tensor, similarity: Tensor, grid: Grid, other_grid: Grid) -> Tensor:
    weights = _weights(similarity.float()) * (partner >= 0)
    squares = _square_votes_on_cuda(partner, weights, grid, other_grid)
    scores: Tensor = _mean(squares, weights.sum(dim=1, dtype=torch.float64))
    return scores


def _square_votes_on_cuda(partner: Tensor, weights: Tensor, grid: Grid, other_grid: Grid) -> list[Tensor]:
    y, x = cell_positions(other_grid)
    positions, others = cell_positions(grid), (y + CENTRE, x + CENTRE)
    return [
        votes_on_cuda(partner, weights.int(), positions, others, unit=FINE, bins=BINS, width=width)
        for width in WIDTHS
    ]


def _mean(squares: Sequence[Any], total: Any) -> Any:
    """Return the (K,) float64 scores from whole numbers: of each width, and of all weights."""
    return sum(squares, ALL * total) / (FULL * (len(squares) + ALL))
