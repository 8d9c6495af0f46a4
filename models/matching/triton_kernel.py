"""The Triton kernels of `models.matching.triton_gpu`: nearest neighbours both ways, and votes of matches.

Importing this needs triton; only that module does it, and only for tensors on a CUDA device.
"""

# mypy: disable-error-code="import-untyped,import-not-found,untyped-decorator,no-untyped-def"

from __future__ import annotations

import triton
import triton.language as tl

__all__ = ["largest_square", "nearest_both_ways"]


@triton.jit
def _tile(features, cell, in_cells, channel, channels, BLOCK_CHANNELS: tl.constexpr):  # noqa: N803
    """Read (cells, BLOCK_CHANNELS) features from a channel on; zeros beyond the last."""
    lane = channel + tl.arange(0, BLOCK_CHANNELS)
    return tl.load(
        features + cell[:, None] * channels + lane[None, :],
        mask=in_cells[:, None] & (lane < channels)[None, :],
        other=0.0,
    )


@triton.jit
def _not_finite(features):
    """Return the number of values that are NaN or infinite: neither is smaller than infinity."""
    return tl.sum(tl.where(tl.abs(features) < float("inf"), 0, 1))


@triton.jit
def _add_products(here, there, tile, PRECISION: tl.constexpr):  # noqa: N803
    if here.dtype != there.dtype:
        here = here.to(tl.float32)
        there = there.to(tl.float32)
    return tl.dot(here, tl.trans(there), tile, input_precision=PRECISION)


@triton.jit
def nearest_both_ways(
    query,
    candidates,
    best,
    choice,
    column_key,
    broken,
    count,
    rows,
    columns,
    channels,
    query_stride,
    BLOCK_ROWS: tl.constexpr,  # noqa: N803, as Triton's own constants are written
    BLOCK_COLUMNS: tl.constexpr,  # noqa: N803
    BLOCK_CHANNELS: tl.constexpr,  # noqa: N803
    ALL_CHANNELS: tl.constexpr,  # noqa: N803
    PRECISION: tl.constexpr,  # noqa: N803
):
    """Compare one block of a query's cells with all cells of one candidate.

    Program (block, candidate, query). Results for its query cells are final; results for the candidate's
    cells are combined with those of other blocks by an atomic maximum over 64-bit keys: the similarity in an
    order-preserving integer form in the high half, the complement of the cell's index in the low half, so
    that ties go to the first cell whatever the order of execution.

    Args:
        query: (B, N, C) float.
        candidates: (B, K, M, C) float.
        best: (B, K, N) float32, written: each query cell's largest similarity.
        choice: (B, K, N) int32, written: the first candidate cell that reaches it.
        column_key: (B, K, M) int64, smallest int64 at first, joined: each candidate cell's choice.
        broken: (1,) int32, zero at first, set to one where a feature is not finite.
        count: K.
        rows: N.
        columns: M.
        channels: C.
        query_stride: N * C.
        BLOCK_ROWS: Query cells in a tile.
        BLOCK_COLUMNS: Candidate cells in a tile.
        BLOCK_CHANNELS: Channels multiplied at once.
        ALL_CHANNELS: Whether that is all of them. Then the query's tile is read once and the loop over
            candidate cells is the innermost, the one whose loads Triton overlaps with products.
        PRECISION: How float32 is multiplied, see `tl.dot`; half precision ignores it.
    """
    block = tl.program_id(0)
    pair = tl.program_id(2).to(tl.int64) * count + tl.program_id(1)
    query += tl.program_id(2).to(tl.int64) * query_stride
    candidates += pair * columns * channels
    row = block * BLOCK_ROWS + tl.arange(0, BLOCK_ROWS)
    in_rows = row < rows
    largest = tl.full((BLOCK_ROWS,), float("-inf"), tl.float32)
    chosen = tl.zeros((BLOCK_ROWS,), tl.int32)
    faults = 0
    if ALL_CHANNELS:
        here = _tile(query, row, in_rows, 0, channels, BLOCK_CHANNELS)
        faults += _not_finite(here)
    for first in range(0, columns, BLOCK_COLUMNS):
        column = first + tl.arange(0, BLOCK_COLUMNS)
        in_columns = column < columns
        tile = tl.zeros((BLOCK_ROWS, BLOCK_COLUMNS), tl.float32)
        # Across all programs every feature is checked.
        if ALL_CHANNELS:
            there = _tile(candidates, column, in_columns, 0, channels, BLOCK_CHANNELS)
            if block == 0:
                faults += _not_finite(there)
            tile = _add_products(here, there, tile, PRECISION)
        else:
            for channel in range(0, channels, BLOCK_CHANNELS):
                part = _tile(query, row, in_rows, channel, channels, BLOCK_CHANNELS)
                there = _tile(candidates, column, in_columns, channel, channels, BLOCK_CHANNELS)
                if first == 0:
                    faults += _not_finite(part)
                if block == 0:
                    faults += _not_finite(there)
                tile = _add_products(part, there, tile, PRECISION)
        # NaN equals nothing, so that the maxima below never see it.
        tile = tl.where(in_rows[:, None] & in_columns[None, :] & (tile == tile), tile, float("-inf"))

        value, index = tl.max(tile, axis=1, return_indices=True, return_indices_tie_break_left=True)
        chosen = tl.where(value > largest, first + index, chosen)  # strictly: the first of equals stays
        largest = tl.maximum(value, largest)

        value, index = tl.max(tile, axis=0, return_indices=True, return_indices_tie_break_left=True)
        bits = tl.where(value == 0.0, 0.0, value).to(tl.int32, bitcast=True)  # minus zero equals zero
        ordered = bits ^ ((bits >> 31) & 0x7FFFFFFF)
        key = (ordered.to(tl.int64) << 32) | (0x7FFFFFFF - (block * BLOCK_ROWS + index)).to(tl.int64)
        tl.atomic_max(column_key + pair * columns + column, key, mask=in_columns, sem="relaxed")
    tl.store(best + pair * rows + row, largest, mask=in_rows)
    tl.store(choice + pair * rows + row, chosen, mask=in_rows)
    if faults > 0:
        tl.atomic_max(broken, 1)


@triton.jit
def largest_square(
    partner,
    weights,
    positions,
    other_positions,
    largest,
    rows,
    columns,
    unit,
    side,
    width,
    BLOCK_SQUARES: tl.constexpr,  # noqa: N803
    BLOCK_ROWS: tl.constexpr,  # noqa: N803
):
    """Sum the weights of one candidate's matches in some squares of displacements; join the largest sum.

    Program (block of squares, candidate). Whole numbers are added, so the order does not matter.

    Args:
        partner: (K, N) integer, candidate cell of each query cell, or -1.
        weights: (K, N) int32, 0 where there is no match.
        positions: (2, N) int32, y and x of the query's cells.
        other_positions: (2, M) int32, y and x of the candidates' cells.
        largest: (K,) int32, zero at first, joined by an atomic maximum.
        rows: N.
        columns: M.
        unit: Positions per bin.
        side: Number of squares in y and in x.
        width: Bins per side of a square.
        BLOCK_SQUARES: Squares per program.
        BLOCK_ROWS: Matches compared at once.
    """
    candidate = tl.program_id(1).to(tl.int64)
    square = tl.program_id(0) * BLOCK_SQUARES + tl.arange(0, BLOCK_SQUARES)
    top = (square // side)[:, None]
    left = (square % side)[:, None]
    sums = tl.zeros((BLOCK_SQUARES,), tl.int32)
    for first in range(0, rows, BLOCK_ROWS):
        row = first + tl.arange(0, BLOCK_ROWS)
        in_rows = row < rows
        cell = tl.load(partner + candidate * rows + row, mask=in_rows, other=-1)
        weight = tl.load(weights + candidate * rows + row, mask=in_rows & (cell >= 0), other=0)
        cell = tl.maximum(cell, 0)
        here_y = tl.load(positions + row, mask=in_rows, other=0)
        here_x = tl.load(positions + rows + row, mask=in_rows, other=0)
        y = ((tl.load(other_positions + cell) - here_y) // unit)[None, :]
        x = ((tl.load(other_positions + columns + cell) - here_x) // unit)[None, :]
        inside = (y >= top) & (y < top + width) & (x >= left) & (x < left + width)
        sums += tl.sum(tl.where(inside, weight[None, :], 0), axis=1)
    sums = tl.where(square < side * side, sums, 0)
    tl.atomic_max(largest + candidate, tl.max(sums, axis=0), sem="relaxed")
