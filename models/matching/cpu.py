"""Mutual nearest neighbours on a CPU: similarity tiles that fit in a core's cache, threads over candidates.

A tile is a product (see `cpu_products`) and two vectorised passes over it: the maximum of each column and the
first maximum of each row. A row whose maximum is also that of its column claims the column; claimed columns
are checked again for an earlier row with the same value.
"""

from __future__ import annotations

import functools
import os
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from models.matching.cpu_products import Float32Product, Int8Product, rounds_to_int8
from models.matching.features import NotFinite, as_float32
from models.runtime.threads import lone_threads
from storage.cores import usable_cores

__all__ = ["partners_on_cpu"]

# Similarities per tile: 2 MiB, small enough to stay in the cache for the two passes, large enough for a
# product at full speed (benchmarks/README.md, Matching).
_TILE = 1 << 19

# Reading one value of a column costs as much as reading this many contiguous values of a tile.
_MANY_CLAIMS = 12


def partners_on_cpu(
    query: Tensor,
    candidates: Tensor | NDArray[np.floating],
    *,
    floor: float | None = None,
    fast: bool = False,
) -> tuple[Tensor, Tensor]:
    """Find for each query cell its mutual candidate cell.

    Candidates are processed in parallel by as many threads as torch uses (`torch.get_num_threads`).

    Args:
        query: (N, C) float32 on the CPU.
        candidates: (K, M, C) any float dtype.
        floor: Pairs of a smaller inner product may be left out.
        fast: Multiply in 8-bit integers where `rounds_to_int8`, else in float32.

    Returns:
        partner: (K, N) int64, the mutual candidate cell of each query cell, or -1.
        best: (K, N) float32, each query cell's largest inner product.

    Raises:
        NotFinite: a value is NaN or infinite, or a product is.
    """
    count, size, _ = candidates.shape
    partner = np.full((count, len(query)), -1, dtype=np.int64)
    best = np.full((count, len(query)), -np.inf, dtype=np.float32)
    threads = min(torch.get_num_threads(), count)
    rows = min(size, max(1, _TILE // len(query)))
    group = max(1, min(_TILE // len(query) // size, -(-count // max(threads, 1))))
    rounded = fast and rounds_to_int8(len(query), size)
    tiles = Int8Product(query, rows * group) if rounded else Float32Product(query, rows, size)

    def match(start: int) -> None:
        at = slice(start, start + group)
        others = as_float32(candidates[at])
        packed, scale = tiles.pack(others)
        limit = None if floor is None else np.float32(floor) / scale
        buffer = torch.empty(rows * len(others), len(query))
        for first in range(0, size, rows):
            some = packed[:, first : first + rows]
            tile = tiles.multiply(some.reshape(-1, some.shape[-1]), buffer).numpy()
            _fold(tile.reshape(len(others), -1, len(query)), first, partner[at], best[at], limit)
        best[at] *= scale

    starts = range(0, count, group)
    if threads < 2 or len(starts) < 2:
        for start in starts:
            match(start)
    else:
        turns, lock = iter(starts), threading.Lock()
        pool = _pool(one_per_core=torch.get_num_threads() >= len(usable_cores()))
        tasks = [pool.submit(_work_off, turns, lock, match) for _ in range(threads)]
        for task in tasks:
            task.result()
    return torch.from_numpy(partner), torch.from_numpy(best)


def _fold(
    tile: NDArray[np.float32],
    first: int,
    partner: NDArray[np.int64],
    best: NDArray[np.float32],
    limit: NDArray[np.float32] | None,
) -> None:
    """Fold one tile of similarities into the running result, in place.

    Args:
        tile: (G, R, N) float32, R cells of each of G candidates against N query cells.
        first: Index of the tile's first candidate cell.
        partner: (G, N) int64, see `partners_on_cpu`.
        best: (G, N) float32, largest similarity so far.
        limit: (G, 1) float32, similarities that count; None for all.
    """
    groups, size, columns = tile.shape
    top = np.maximum.reduce(tile, axis=1)
    rows = tile.reshape(-1, columns)
    choice = rows.argmax(axis=1)
    row_max = rows[np.arange(len(rows)), choice]
    # A value that is not finite makes the maximum of its row or column non-finite.
    if not (np.isfinite(row_max).all() and np.isfinite(top).all()):
        raise NotFinite
    better = top > best  # strictly: of equal candidate cells the one of an earlier tile stays
    np.putmask(partner, better, -1)
    np.maximum(best, top, out=best)
    chosen = choice + np.repeat(np.arange(0, groups * columns, columns), size)  # of all columns
    claims = (row_max == top.ravel()[chosen]) & better.ravel()[chosen]
    if limit is not None:
        claims &= row_max >= np.repeat(limit[:, 0], size)
    row = claims.nonzero()[0][::-1]
    claimant = np.empty(top.size, dtype=np.int64)
    claimant[chosen[row]] = row  # of several rows the first one stays: it is written last
    row = row[claimant[chosen[row]] == row]
    # An earlier row may reach the same value yet prefer another column: then the column has no mutual
    # partner. With many claimed columns, one pass over the tile is the faster check that no column repeats
    # its maximum.
    if len(row) * _MANY_CLAIMS < top.size or np.count_nonzero(tile == top[:, None]) > top.size:
        row = row[tile[row // size, :, choice[row]].argmax(axis=1) == row % size]
    partner[row // size, choice[row]] = row % size + first


def _work_off(turns: Iterator[int], lock: threading.Lock, match: Callable[[int], None]) -> None:
    while True:
        with lock:
            start = next(turns, None)
        if start is None:
            return
        match(start)


@functools.cache
def _pool(*, one_per_core: bool) -> ThreadPoolExecutor:
    return lone_threads("matching", one_per_core=one_per_core)


# A forked process has none of its parent's threads.
os.register_at_fork(after_in_child=_pool.cache_clear)
