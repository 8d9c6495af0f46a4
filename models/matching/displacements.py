"""Displacements of matches in whole bins, and the squares of bins that hold the most votes. NumPy alone."""

from __future__ import annotations

import functools

import numpy as np
from numpy.typing import NDArray

__all__ = [
    "BINS",
    "CENTRE",
    "FINE",
    "UNITS",
    "WIDTHS",
    "Grid",
    "agreeing_square",
    "cell_positions",
    "largest_squares",
]

Grid = tuple[int, int]

UNITS = 14  # of displacement, along either side of an image
FINE = 64  # cell centres are whole multiples of this part of a unit
BINS = 2 * UNITS + 1
CENTRE = UNITS * FINE + FINE // 2  # makes the displacement 0 the middle of the middle bin
WIDTHS = (5, 9)  # of squares, in bins

_EXACT = 1 << 24  # float32 holds each whole number below it


@functools.lru_cache(maxsize=8)
def cell_positions(grid: Grid) -> tuple[NDArray[np.int32], NDArray[np.int32]]:
    """Return y and x of the cells' centres, each (H * W,) int32, in parts of a unit."""
    y, x = (((2 * np.arange(size) + 1) * UNITS * FINE + size) // (2 * size) for size in grid)
    rows, columns = np.meshgrid(y.astype(np.int32), x.astype(np.int32), indexing="ij")
    return rows.ravel(), columns.ravel()


def largest_squares(
    partner: NDArray[np.integer], weights: NDArray[np.float32], grid: Grid, other_grid: Grid
) -> list[NDArray[np.floating]]:
    """Sum the weights of matches in every square of displacements, and return the largest sums.

    Args:
        partner: (K, N) integer, the candidate cell of each query cell.
        weights: (K, N) float32 whole numbers, 0 where there is no match.
        grid: H and W of the query's cells, N = H * W.
        other_grid: Of the candidates' cells.

    Returns:
        For each of `WIDTHS` (K,) whole numbers.
    """
    # All cells are counted, those without a match with the weight 0: choosing others first takes longer.
    bins = _bins(
        list(cell_positions(grid)),
        [axis.take(partner, mode="clip") for axis in cell_positions(other_grid)],
    )
    return [sums.max(axis=(1, 2)) for sums in _square_sums(bins, weights)]


def agreeing_square(
    pairs: NDArray[np.int64], weights: NDArray[np.float32], grid: Grid, other_grid: Grid
) -> NDArray[np.bool_]:
    """Tell which matches of two photos lie in the square of the largest width with the most votes.

    Args:
        pairs: (M, 2) int64, query cell and candidate cell.
        weights: (M,) float32 whole numbers.
        grid: H and W of the query's cells.
        other_grid: Of the candidate's cells.

    Returns:
        (M,) bool.
    """
    bins = _bins(
        [axis[pairs[:, 0]] for axis in cell_positions(grid)],
        [axis[pairs[:, 1]] for axis in cell_positions(other_grid)],
    )
    sums, width = _square_sums(bins[None], weights[None])[-1][0], WIDTHS[-1]
    corner = np.unravel_index(sums.argmax(), sums.shape)
    inside = [(low <= at) & (at < low + width) for at, low in zip(divmod(bins, BINS), corner, strict=True)]
    return np.asarray(inside[0] & inside[1])


def _bins(here: list[NDArray[np.int32]], there: list[NDArray[np.int32]]) -> NDArray[np.int32]:
    """Return displacements as numbers of bins: `BINS` times that in y plus that in x.

    Args:
        here: y and x of query cells, each (N,).
        there: y and x of candidate cells, each (..., N), overwritten.
    """
    for start, end in zip(here, there, strict=True):
        end -= start
        end += CENTRE
        end //= FINE
    y, x = there
    y *= BINS
    y += x
    return y


def _square_sums(bins: NDArray[np.int32], weights: NDArray[np.float32]) -> list[NDArray[np.floating]]:
    """Return the sums over all squares of each width within the histogram; others hold no more.

    Args:
        bins: (K, N) int32, overwritten.
        weights: (K, N) float32 whole numbers.

    Returns:
        For each width w (K, BINS - w + 1, BINS - w + 1), in a type that holds the sums exactly.
    """
    count, size = len(bins), BINS * BINS
    exact = np.float32 if weights.shape[1] * float(weights.max(initial=0)) < _EXACT else np.float64
    bins += np.arange(0, count * size, size, dtype=np.int32)[:, None]
    # One row of numbers for all histograms, and zeros behind, so that sums stay as long. Squares that reach
    # over the edge of a histogram are wrong there; they are left out in the end.
    histograms: NDArray[np.floating] = np.zeros(count * size + (WIDTHS[-1] - 1) * (BINS + 1), exact)
    np.add.at(histograms, bins.ravel(), weights.ravel())
    four, five = _sums_of_four_and_five(histograms, BINS)
    nine = _sums_of_nine(four, five, BINS)
    fives = _sums_of_four_and_five(five, 1)[1]
    nines = _sums_of_nine(*_sums_of_four_and_five(nine, 1), 1)
    return [
        sums[: count * size].reshape(count, BINS, BINS)[:, : BINS - width + 1, : BINS - width + 1]
        for sums, width in zip((fives, nines), WIDTHS, strict=True)
    ]


def _sums_of_four_and_five(
    values: NDArray[np.floating], step: int
) -> tuple[NDArray[np.floating], NDArray[np.floating]]:
    """Return the sums of four and of five values, each `step` behind the one before."""
    two = values[:-step] + values[step:]
    four = two[: -2 * step] + two[2 * step :]
    return four, four[:-step] + values[4 * step :]


def _sums_of_nine(four: NDArray[np.floating], five: NDArray[np.floating], step: int) -> NDArray[np.floating]:
    return four[: -5 * step] + five[4 * step :]
