"""Mutual nearest neighbours on a CPU: similarity tiles that fit in a core's caches, threads over candidates.

A tile is a product (see `cpu_products`) and two vectorised passes over it: the maximum of each column within
every band of a few rows, and the first maximum of each row. A row whose maximum is also that of its column
claims the column. An earlier row may reach the same value yet prefer another column: then the column has no
mutual partner. The maxima of the bands show this for all bands but the row's own, of which few values are
read again.
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

from models.matching.caches import cache_share
from models.matching.cpu_products import Float32Product, Int8Product, rounds_to_int8
from models.matching.features import NotFinite, as_float32
from models.runtime.threads import lone_threads
from storage.cores import usable_cores

__all__ = ["partners_on_cpu"]

# Similarities per tile: what fits in a core's share of the second and third level caches, from which the two
# passes read it; 2 to 8 MiB. Smaller tiles cost more calls, and each product reads the query again
# (benchmarks/README.md, Matching).
_TILE = min(max((cache_share() or 1 << 22) // 4, 1 << 19), 1 << 21)

# Rows per band: with fewer the maxima of the bands, with more the values read again take longer.
_BAND = 16


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
        found = _Found(partner[at], best[at], limit)
        buffer = torch.empty(rows * len(others), len(query))
        for first in range(0, size, rows):
            some = packed[:, first : first + rows]
            tile = tiles.multiply(some.reshape(-1, some.shape[-1]), buffer).numpy()
            found.fold(tile.reshape(len(others), -1, len(query)), first)
            del tile  # the next product may take its memory, which is in the cache
        found.finish()
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


class _Found:
    """What the tiles of some candidates show so far.

    Args:
        partner: (G, N) int64 of -1, see `partners_on_cpu`; written in place.
        best: (G, N) float32 of -inf, the largest similarities; written in place.
        limit: (G, 1) float32, similarities that count; None for all.
    """

    def __init__(
        self, partner: NDArray[np.int64], best: NDArray[np.float32], limit: NDArray[np.float32] | None
    ) -> None:
        self._partner, self._best, self._limit = partner.reshape(-1), best.reshape(-1), limit
        self._claimed = np.full(best.size, -np.inf, dtype=np.float32)  # the similarity of each partner
        self._least = np.float32(np.inf)  # of the rows' maxima

    def fold(self, tile: NDArray[np.float32], first: int) -> None:
        """Fold in one tile of similarities.

        Args:
            tile: (G, R, N) float32, contiguous, R cells of each of G candidates against N query cells.
            first: Index of the tile's first candidate cell.
        """
        groups, size, columns = tile.shape
        rows = tile.reshape(-1, columns)
        tops = _band_maxima(tile)
        choice = rows.argmax(axis=1)
        row_max = rows[np.arange(len(rows)), choice]
        self._least = np.minimum(self._least, row_max.min())
        column = choice  # of all groups' columns
        if groups > 1:
            column = choice + np.repeat(np.arange(0, groups * columns, columns), size)
        earlier = self._best[column]
        np.maximum(self._best, tops.max(axis=1).reshape(-1), out=self._best)
        # Strictly larger: of equal candidate cells the one of an earlier tile stays.
        claims = (row_max == self._best[column]) & (row_max > earlier)
        if self._limit is not None:
            claims &= row_max >= np.repeat(self._limit[:, 0], size)
        row = claims.nonzero()[0]
        if len(row) > self._best.size:  # some claim the same column: many equal cells
            row = row[np.unique(column[row], return_index=True)[1]]
        row = row[_first_in_column(rows, tops, row, choice[row], size)]
        self._partner[column[row]] = row % size + first
        self._claimed[column[row]] = row_max[row]

    def finish(self) -> None:
        """Drop the partners that a later tile surpassed.

        Raises:
            NotFinite: a similarity was NaN or infinite.
        """
        # Such a value makes the maximum of its row or column NaN or infinite.
        if not (np.isfinite(self._least) and np.isfinite(self._best).all()):
            raise NotFinite
        self._partner[self._claimed != self._best] = -1


def _band_maxima(tile: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return the (G, B, N) maxima of each column of a (G, R, N) tile within bands of `_BAND` rows."""
    groups, size, columns = tile.shape
    whole, rest = divmod(size, _BAND)
    tops = np.empty((groups, whole + (rest > 0), columns), dtype=np.float32)
    bands = tile[:, : whole * _BAND].reshape(groups, whole, _BAND, columns)
    np.maximum.reduce(bands, axis=2, out=tops[:, :whole])
    if rest:
        np.maximum.reduce(tile[:, whole * _BAND :], axis=1, out=tops[:, whole])
    return tops


def _first_in_column(
    rows: NDArray[np.float32],
    tops: NDArray[np.float32],
    row: NDArray[np.int64],
    choice: NDArray[np.int64],
    size: int,
) -> NDArray[np.bool_]:
    """Return which rows are the first of their column to reach its maximum.

    Args:
        rows: (G * R, N) float32, the tile.
        tops: (G, B, N) float32 from `_band_maxima`.
        row: (P,) int64, rows of all groups that reach their column's maximum.
        choice: (P,) int64, their columns.
        size: R, rows per group.

    Returns:
        (P,) bool.
    """
    group, inside = np.divmod(row, size)
    band = tops[group, :, choice].argmax(axis=1)
    # Rows before the band may be read as well; before the first row of a group, that one is.
    back = np.minimum(np.arange(1, min(_BAND, size))[:, None], inside)
    at = row * rows.shape[1] + choice
    values = rows.reshape(-1)
    beside = (values.take(at - back * rows.shape[1]) == values.take(at)).any(axis=0)
    first: NDArray[np.bool_] = (band == inside // _BAND) & ((inside == 0) | ~beside)
    return first


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
