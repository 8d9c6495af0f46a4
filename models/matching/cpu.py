"""Mutual nearest neighbours on a CPU: tiles that stay in a core's cache, threads over candidates.

A tile is a product (BLAS or oneDNN in float32, or oneDNN in 8-bit integers) and two vectorised passes over
it: the largest of each column and the first largest of each row. A row whose largest value is also that of
its column claims the column; claimed columns are looked at once more, for an earlier row with the same value.
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

from models.runtime.onednn import lay_out, lays_out, product

__all__ = ["NotFinite", "as_float32", "int8_available", "partners_on_cpu", "rounds_to_int8"]

# Similarities in a tile: 2 MiB, small enough to be still in the cache when the two passes read it, large
# enough to keep the product at its speed (benchmarks/README.md, Matching).
_TILE = 1 << 19

# One value of a column takes as long to look at as so many values of a tile that lie side by side.
_MANY_CLAIMS = 12

# Candidate cells have 8 bits, query cells 7: without VNNI instructions pairs of products are added in 16
# bits, which 255 * 63 * 2 cannot overflow. The same widths everywhere give the same counts on every CPU.
_CANDIDATE_LEVELS, _QUERY_LEVELS, _ZERO_POINT = 127, 63, 128

# Similarities of one candidate from which on rounding its cells, or laying out the query's for oneDNN, costs
# less than it saves.
_INT8_FROM = _ONEDNN_FROM = 1 << 18


class NotFinite(ValueError):
    """Features hold NaN or infinite values."""

    def __init__(self) -> None:
        super().__init__("features hold NaN or infinite values: extract them again, or run `placeray verify`")


def partners_on_cpu(
    query: Tensor,
    candidates: Tensor | NDArray[np.floating],
    *,
    floor: float | None = None,
    fast: bool = False,
) -> tuple[Tensor, Tensor]:
    """Find for each query cell its mutual candidate cell.

    As many candidates are worked on at once as torch has threads (`torch.get_num_threads`).

    Args:
        query: (N, C) float32 on the CPU.
        candidates: (K, M, C) any float dtype.
        floor: Pairs of a smaller inner product may be left out.
        fast: Multiply in 8-bit integers where `rounds_to_int8`, else in float32.

    Returns:
        partner: (K, N) int64, the candidate cell that is mutual with each query cell, -1 where none is.
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
    tiles = _Int8Product(query, rows * group) if rounded else _Float32Product(query, rows, size)

    def match(start: int) -> None:
        at = slice(start, start + group)
        others = as_float32(candidates[at])
        packed, scale = tiles.pack(others)
        limit = None if floor is None else np.float32(floor) / scale
        room = torch.empty(rows * len(others), len(query))
        for first in range(0, size, rows):
            some = packed[:, first : first + rows]
            tile = tiles.of(some.reshape(-1, some.shape[-1]), room).numpy()
            _fold(tile.reshape(len(others), -1, len(query)), first, partner[at], best[at], limit)
        best[at] *= scale

    starts = range(0, count, group)
    if threads < 2 or len(starts) < 2:
        for start in starts:
            match(start)
    else:
        turns, lock = iter(starts), threading.Lock()
        tasks = [_pool().submit(_work_off, turns, lock, match) for _ in range(threads)]
        for task in tasks:
            task.result()
    return torch.from_numpy(partner), torch.from_numpy(best)


def rounds_to_int8(cells: int, others: int) -> bool:
    """Tell whether "fast" means 8-bit integers for a query and candidates of so many cells."""
    return cells * others >= _INT8_FROM and int8_available()


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
    # A value that is not finite makes its whole row or its whole column so.
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
    # A row before the claimant may reach the same value and yet prefer another column: then nobody is mutual.
    # Of many claimed columns a pass over the tile tells sooner that no column holds its largest value twice.
    if len(row) * _MANY_CLAIMS < top.size or np.count_nonzero(tile == top[:, None]) > top.size:
        row = row[tile[row // size, :, choice[row]].argmax(axis=1) == row % size]
    partner[row // size, choice[row]] = row % size + first


def as_float32(features: Tensor | NDArray[np.floating]) -> Tensor:
    """Return features of any shape and float dtype as a float32 tensor on the CPU; arrays are copied."""
    if isinstance(features, Tensor):
        return features.detach().to(device="cpu", dtype=torch.float32)
    # A copy, since the array may be read-only. NumPy takes twenty times as long as torch to widen halves.
    dtype = np.float16 if features.dtype == np.float16 else np.float32
    return torch.from_numpy(np.array(features, dtype=dtype)).to(torch.float32)


class _Float32Product:
    """Inner products in float32, of large maps with the query's cells laid out for oneDNN once."""

    def __init__(self, query: Tensor, rows: int, size: int) -> None:
        self._transposed = query.T
        worth = len(query) * size >= _ONEDNN_FROM and lays_out(torch.float32)
        self._laid_out = lay_out(query, rows=rows) if worth else None

    def pack(self, others: Tensor) -> tuple[Tensor, NDArray[np.float32]]:
        return others, np.ones((len(others), 1), dtype=np.float32)

    def of(self, rows: Tensor, room: Tensor) -> Tensor:
        if self._laid_out is None:
            return torch.mm(rows, self._transposed, out=room[: len(rows)])
        return product(rows, self._laid_out)  # the operator brings its own room


class _Int8Product:
    """Inner products of cells rounded to integers, with one step for all of an image's values.

    Sums of integers are exact, so that ties stay ties and comparisons need no scale.
    """

    def __init__(self, query: Tensor, rows: int) -> None:
        step = _step(query.abs().amax(), _QUERY_LEVELS)
        self._step = step.item()
        self._packed = torch.ops.onednn.qlinear_prepack(
            (query / step).round().to(torch.int8), [rows, query.shape[1]]
        )
        self._ones = torch.ones(len(query))
        self._zeros = torch.zeros(len(query), dtype=torch.int64)

    def pack(self, others: Tensor) -> tuple[Tensor, NDArray[np.float32]]:
        step = _step(others.abs().amax(dim=(1, 2), keepdim=True), _CANDIDATE_LEVELS)
        packed = (others / step).round_().add_(_ZERO_POINT).to(torch.uint8)
        return packed, (step[:, 0] * self._step).numpy()

    def of(self, rows: Tensor, room: Tensor) -> Tensor:  # the operator brings its own room
        return _qlinear(rows, self._packed, self._ones, self._zeros)


def _step(largest: Tensor, levels: int) -> Tensor:
    if not bool(torch.isfinite(largest).all()):
        raise NotFinite
    return (largest / levels).clamp_min(torch.finfo(torch.float32).tiny)


def _qlinear(rows: Tensor, packed: Tensor, ones: Tensor, zeros: Tensor) -> Tensor:
    similarities: Tensor = torch.ops.onednn.qlinear_pointwise(
        rows, 1.0, _ZERO_POINT, packed, ones, zeros, None, 1.0, 0, torch.float32, "none", [], ""
    )
    return similarities


@functools.cache
def int8_available() -> bool:
    """Tell whether this CPU and this torch multiply 8-bit integers, faster than float32 and without error."""
    if not torch.cpu.get_capabilities().get("avx2") or not hasattr(torch.ops.onednn, "qlinear_pointwise"):
        return False
    draw = torch.Generator().manual_seed(0)
    rows = torch.randint(0, 256, (40, 128), generator=draw, dtype=torch.uint8)
    rows[:8] = 255  # the largest sums of all
    query = torch.randint(-_QUERY_LEVELS, _QUERY_LEVELS + 1, (24, 128), generator=draw, dtype=torch.int8)
    query[:8] = _QUERY_LEVELS
    try:
        packed = torch.ops.onednn.qlinear_prepack(query, [40, 128])
        products = _qlinear(rows, packed, torch.ones(24), torch.zeros(24, dtype=torch.int64))
    except (RuntimeError, TypeError):  # built without oneDNN, or with another signature
        return False
    return torch.equal(products, ((rows.float() - _ZERO_POINT) @ query.float().T))


def _work_off(turns: Iterator[int], lock: threading.Lock, match: Callable[[int], None]) -> None:
    while True:
        with lock:
            start = next(turns, None)
        if start is None:
            return
        match(start)


@functools.cache
def _pool() -> ThreadPoolExecutor:
    return ThreadPoolExecutor(os.cpu_count(), thread_name_prefix="matching", initializer=_use_one_thread)


def _use_one_thread() -> None:
    """Let this thread's products run in it alone, and leave the setting of threads yet to come as it was."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    restoring = threading.Thread(target=torch.set_num_threads, args=(before,))
    restoring.start()
    restoring.join()


# A forked process has none of its parent's threads.
os.register_at_fork(after_in_child=_pool.cache_clear)
