"""Votes of mutual nearest neighbours: matches that agree on a displacement count more than scattered ones.

Mutual neighbours of two photos of one place agree on how far the view has moved; those of different places
scatter. The nearest published relative is the rapid spatial scoring of Patch-NetVLAD (Hausler et al., CVPR
2021, section 3.4), which measures how far the displacements of matches lie from their mean. Here matches
vote:

- Cell i of the query reaches the similarity s_ik in candidate k; m_i is its mean over the first 12
  candidates. The match has the weight w_ik = 3/4 clip((s_ik - m_i) / 0.3, 0, 1) + 1/4 clip((s_ik - 0.5) /
  0.2, 0, 1): a cell that finds an equally similar partner in every candidate (sky, asphalt, the rim of a
  lens) says little about the place, however similar.
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

import functools

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from models.matching.triton_gpu import Unavailable, votes_on_cuda

__all__ = ["BASELINE_CANDIDATES", "Grid", "agreeing_pairs", "vote_scores"]

Grid = tuple[int, int]

BASELINE_CANDIDATES = 12
STEPS = 2000  # per unit of similarity
RELATIVE = 600  # steps above the mean that give the whole relative part, 0.3
ABSOLUTE, ABSOLUTE_FROM = 400, 1000  # steps that give the whole absolute part, 0.2, and where it begins, 0.5
FULL = 2 * RELATIVE + ABSOLUTE  # a whole vote: three quarters relative, one absolute
WIDTHS = (5, 9)  # of squares, in bins
ALL = 3  # how often the sum of all weights counts, for each width's once
UNITS = 14  # of displacement, along either side of an image
_FINE = 64  # cell centres are whole multiples of this part of a unit
_BINS = 2 * UNITS + 1
_CENTRE = UNITS * _FINE + _FINE // 2  # makes the displacement 0 the middle of the middle bin
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
    weights = _weights(similarity).mul_(partner >= 0)
    total = weights.sum(dim=1, dtype=torch.float64)
    if partner.device.type == "cuda" and len(partner):
        try:
            return _mean(_square_votes_on_cuda(partner, weights, grid, other_grid), total)
        except Unavailable:  # the launch has warned once
            pass
    squares = _square_votes(partner.cpu().numpy(), weights.cpu().numpy(), grid, other_grid)
    return _mean([torch.from_numpy(square).to(total.device) for square in squares], total)


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
    weights = _weights(torch.from_numpy(similarity)[None])[0].numpy()
    if not weights.any():
        return np.zeros(len(pairs), dtype=bool)
    bins = _bins(pairs[:, 0], pairs[:, 1], grid, other_grid or grid)
    width = WIDTHS[-1]
    sums = _square_sums(_histograms(np.zeros_like(bins[0]), bins, weights, count=1), width)[:, :, 0]
    corner = np.unravel_index(sums.argmax(), sums.shape)
    inside = [(low <= at) & (at < low + width) for at, low in zip(bins, corner, strict=True)]
    return np.asarray(inside[0] & inside[1])


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
    if partner.is_floating_point() or partner.is_complex() or int(partner.max()) >= others:
        raise ValueError(f"partners are not cells of {other_grid}: pass their indices, or -1")
    if not bool(torch.isfinite(similarity).all()):
        raise ValueError("similarities hold NaN or infinite values: extract the features again")


def _weights(similarity: Tensor) -> Tensor:
    """Return the (K, N) float32 weights of matches, whole numbers from 0 to `FULL`."""
    steps = similarity.float().clamp(-_MAX_SIMILARITY, _MAX_SIMILARITY).mul_(STEPS).round_()
    first = steps[:BASELINE_CANDIDATES]
    # Whole numbers and their quotients by up to 12 are far from the limits of float32.
    mean = first.sum(dim=0).div_(max(1, len(first))).add_(0.5).floor_()
    relative = (steps - mean).clamp_(0, RELATIVE)
    return relative.mul_(2).add_(steps.sub_(ABSOLUTE_FROM).clamp_(0, ABSOLUTE))


@functools.lru_cache(maxsize=8)
def _positions(grid: Grid) -> tuple[NDArray[np.int32], NDArray[np.int32]]:
    """Return y and x of the cells' centres, each (H * W,) int32, in parts of a unit."""
    y, x = (((2 * np.arange(size) + 1) * UNITS * _FINE + size) // (2 * size) for size in grid)
    rows, columns = np.meshgrid(y.astype(np.int32), x.astype(np.int32), indexing="ij")
    return rows.ravel(), columns.ravel()


def _bins(
    cells: NDArray[np.integer], others: NDArray[np.integer], grid: Grid, other_grid: Grid
) -> list[NDArray[np.int32]]:
    """Return the displacements of matches in y and x as numbers of bins, 0 to `_BINS` - 1."""
    return [
        (there[others] - here[cells] + _CENTRE) // _FINE
        for here, there in zip(_positions(grid), _positions(other_grid), strict=True)
    ]


def _histograms(
    candidate: NDArray[np.integer],
    bins: list[NDArray[np.int32]],
    weights: NDArray[np.float32],
    *,
    count: int,
) -> NDArray[np.floating]:
    """Return (bins, bins, count) sums of weights by displacement, whole numbers."""
    flat = bins[0] * _BINS
    flat += bins[1]
    flat = flat * count + candidate
    sums = np.bincount(flat, weights=weights, minlength=count * _BINS * _BINS)
    exact = np.float32 if weights.size * FULL < 1 << 24 else np.float64
    return np.asarray(sums.astype(exact).reshape(_BINS, _BINS, count))


def _square_sums(histograms: NDArray[np.floating], width: int) -> NDArray[np.floating]:
    """Return the sums over all squares of `width` bins a side within the histogram; others hold no more."""
    down = _running_sums(histograms, width)
    return _running_sums(down.swapaxes(0, 1), width).swapaxes(0, 1)


def _running_sums(values: NDArray[np.floating], width: int) -> NDArray[np.floating]:
    """Return the sums of `width` successive values along the first axis."""
    size = 1 << (width.bit_length() - 1)
    doubled = values
    for step in (1 << i for i in range(width.bit_length() - 1)):
        doubled = doubled[:-step] + doubled[step:]  # sums of 2 * step values
    if size == width:
        return doubled
    return doubled[: len(values) - width + 1] + _running_sums(values[size:], width - size)


def _square_votes(
    partner: NDArray[np.integer], weights: NDArray[np.float32], grid: Grid, other_grid: Grid
) -> list[NDArray[np.floating]]:
    """Return the (K,) largest sums over a square of each width; weights are 0 where there is no match."""
    count = len(partner)
    voting = weights.ravel().nonzero()[0]
    candidate, cells = np.divmod(voting, weights.shape[1])
    bins = _bins(cells, partner.ravel()[voting], grid, other_grid)
    histograms = _histograms(candidate, bins, weights.ravel()[voting], count=count)
    return [_square_sums(histograms, width).max(axis=(0, 1)) for width in WIDTHS]


def _square_votes_on_cuda(partner: Tensor, weights: Tensor, grid: Grid, other_grid: Grid) -> list[Tensor]:
    y, x = _positions(other_grid)
    positions, others = _positions(grid), (y + _CENTRE, x + _CENTRE)
    return [
        votes_on_cuda(partner, weights.int(), positions, others, unit=_FINE, bins=_BINS, width=width)
        for width in WIDTHS
    ]


def _mean(squares: list[Tensor], total: Tensor) -> Tensor:
    """Return the (K,) scores from whole numbers: of each width, and of all weights."""
    sums = ALL * total
    for square in squares:
        sums = sums + square
    return sums / (FULL * (len(squares) + ALL))
