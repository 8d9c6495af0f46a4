"""Inner products of cells on a CPU: float32 by BLAS or oneDNN, or 8-bit integers by oneDNN."""

from __future__ import annotations

import functools

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from models.matching.features import NotFinite
from models.runtime.onednn import lay_out, lays_out, product

__all__ = ["Float32Product", "Int8Product", "int8_available", "rounds_to_int8"]

# Candidate cells have 8 bits, query cells 7: without VNNI instructions pairs of products are added in 16
# bits, which 255 * 63 * 2 cannot overflow. The same widths everywhere give the same counts on every CPU.
_CANDIDATE_LEVELS, _QUERY_LEVELS, _ZERO_POINT = 127, 63, 128

# Number of similarities of one candidate from which rounding its cells, or laying out the query for oneDNN,
# costs less than it saves.
_INT8_FROM = _ONEDNN_FROM = 1 << 18


def rounds_to_int8(cells: int, others: int) -> bool:
    """Return whether "fast" uses 8-bit integers for a query and candidates of these numbers of cells."""
    return cells * others >= _INT8_FROM and int8_available()


class Float32Product:
    """Inner products in float32; for large maps the query is laid out for oneDNN once."""

    def __init__(self, query: Tensor, rows: int, size: int) -> None:
        self._transposed = query.T
        large = len(query) * size >= _ONEDNN_FROM and lays_out(torch.float32)
        self._laid_out = lay_out(query, rows=rows) if large else None

    def pack(self, others: Tensor) -> tuple[Tensor, NDArray[np.float32]]:
        """Return (G, M, C) candidate cells unchanged, and (G, 1) scales of 1."""
        return others, np.ones((len(others), 1), dtype=np.float32)

    def multiply(self, rows: Tensor, out: Tensor) -> Tensor:
        """Return the (R, N) products of (R, C) packed cells with the query, in `out` where possible."""
        if self._laid_out is None:
            return torch.mm(rows, self._transposed, out=out[: len(rows)])
        return product(rows, self._laid_out)  # the operator allocates its result


class Int8Product:
    """Inner products of cells quantised to integers, with one step size per image.

    Sums of integers are exact, so ties are preserved and comparisons need no scale.
    """

    def __init__(self, query: Tensor, rows: int) -> None:
        cells = query.numpy()
        self._step = _step(cells, _QUERY_LEVELS)
        levels = np.rint(cells / self._step).astype(np.int8)
        self._packed = torch.ops.onednn.qlinear_prepack(torch.from_numpy(levels), [rows, query.shape[1]])
        self._ones = torch.ones(len(query))
        self._zeros = torch.zeros(len(query), dtype=torch.int64)

    def pack(self, others: Tensor) -> tuple[Tensor, NDArray[np.float32]]:
        """Return (G, M, C) candidate cells as uint8, and the (G, 1) float32 scale of each one's products."""
        cells = others.numpy()  # whose arithmetic takes half as long as torch's on one thread
        step = _step(cells, _CANDIDATE_LEVELS)
        levels = cells / step
        np.rint(levels, out=levels)
        levels += _ZERO_POINT
        return torch.from_numpy(levels.astype(np.uint8)), step[:, 0] * self._step

    def multiply(self, rows: Tensor, out: Tensor) -> Tensor:
        """Return the (R, N) products of (R, C) packed cells with the query; `out` is not used."""
        return _qlinear(rows, self._packed, self._ones, self._zeros)


def _step(cells: NDArray[np.float32], levels: int) -> NDArray[np.float32]:
    """Return the step size of each image of (..., M, C) cells, (..., 1, 1)."""
    largest = np.maximum(cells.max(axis=(-2, -1), keepdims=True), -cells.min(axis=(-2, -1), keepdims=True))
    if not np.isfinite(largest).all():
        raise NotFinite
    step: NDArray[np.float32] = np.maximum(largest / np.float32(levels), np.finfo(np.float32).tiny)
    return step


def _qlinear(rows: Tensor, packed: Tensor, ones: Tensor, zeros: Tensor) -> Tensor:
    similarities: Tensor = torch.ops.onednn.qlinear_pointwise(
        rows, 1.0, _ZERO_POINT, packed, ones, zeros, None, 1.0, 0, torch.float32, "none", [], ""
    )
    return similarities


@functools.cache
def int8_available() -> bool:
    """Return whether this CPU and this torch multiply 8-bit integers exactly and faster than float32."""
    if not torch.cpu.get_capabilities().get("avx2") or not hasattr(torch.ops.onednn, "qlinear_pointwise"):
        return False
    draw = torch.Generator().manual_seed(0)
    rows = torch.randint(0, 256, (40, 128), generator=draw, dtype=torch.uint8)
    rows[:8] = 255  # the largest possible sums
    query = torch.randint(-_QUERY_LEVELS, _QUERY_LEVELS + 1, (24, 128), generator=draw, dtype=torch.int8)
    query[:8] = _QUERY_LEVELS
    try:
        packed = torch.ops.onednn.qlinear_prepack(query, [40, 128])
        products = _qlinear(rows, packed, torch.ones(24), torch.zeros(24, dtype=torch.int64))
    except (RuntimeError, TypeError):  # built without oneDNN, or with another signature
        return False
    return torch.equal(products, ((rows.float() - _ZERO_POINT) @ query.float().T))
