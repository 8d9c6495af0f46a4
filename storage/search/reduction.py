"""Which principal components the codes of rows cover: those with which a query is expected to cost least.

Few components make short codes, of which many candidates must be compared again; many make long ones. Where
the line lies depends on the spectrum: descriptors that a network pools have most of their variance in a
third of their components, whitened ones that a store has learned need nearly all of them. So it is tried on a
sample: product codes (Jegou et al. 2011) of several numbers of components rank the true neighbours of some
queries among rows drawn at random.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from storage.search.descriptor_blocks import DescriptorBlocks
from storage.search.faiss_module import import_faiss

__all__ = ["SCATTERED_COST", "Sample", "Trial", "evenly", "reduction"]

SCATTERED_COST = 12  # of a byte that is compared again, in bytes of codes that are read in sequence
_VARIANCES = (0.8, 0.87, 0.93, 0.97, 1.0)
_DRAWN = 16_384  # rows that neighbours are ranked among
_PROBED = 0.5  # of the lists, about
_PER_CENTROID, _ITERATIONS = 64, 8
_WIDENED = 8192  # rows at a time

Vectors = npt.NDArray[np.float32]


@dataclass(frozen=True, eq=False)
class Trial:
    """Queries whose neighbours are known.

    Attributes:
        queries: (Q, D), unit L2 norm.
        neighbours: (Q, k, D): the nearest rows of each.
        rows: How many rows there are.
        row_bytes: Of a row that is compared again.
        target: Share of the neighbours to find.
    """

    queries: Vectors
    neighbours: Vectors
    rows: int
    row_bytes: int
    target: float


class Sample:
    """Some rows of those that are stored, S of them, widened to float32 block by block: never all at once.

    Attributes:
        rows: (S,) int64: their numbers.
    """

    def __init__(self, stored: DescriptorBlocks, rows: npt.NDArray[np.int64]) -> None:
        self._stored, self.rows = stored, rows

    def drawn(self, count: int) -> Vectors:
        """Return about (count, D) of them, evenly spaced."""
        return self._stored.reconstruct(self.rows[evenly(len(self.rows), count)])

    def moments(self) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
        """Return their mean (D,) and covariance (D, D)."""
        blocks = self._blocks()
        first = next(blocks)
        about = first.mean(axis=0)  # near the mean of all, so that products are small
        total, products = np.zeros(len(about)), np.zeros((len(about), len(about)))
        for block in itertools.chain([first], blocks):
            block -= about
            total += block.sum(axis=0, dtype=np.float64)
            products += block.T @ block
        count = len(self.rows)
        offset = total / count
        return about + offset, (products - count * np.outer(offset, offset)) / max(1, count - 1)

    def reduced(self, linear: Any, components: int) -> Vectors:
        """Return (S, components): moved by FAISS's linear map."""
        moved, at = np.empty((len(self.rows), components), np.float32), 0
        for block in self._blocks():
            moved[at : at + len(block)] = linear.apply(block)
            at += len(block)
        return moved

    def _blocks(self) -> Iterator[Vectors]:
        for at in range(0, len(self.rows), _WIDENED):
            yield self._stored.reconstruct(self.rows[at : at + _WIDENED])


def reduction(sample: Sample, trial: Trial) -> tuple[Any, int]:
    """Return a linear map to fewer dimensions for FAISS, and their number: a multiple of four.

    Args:
        sample: Rows to learn from.
        trial: What it is chosen by.
    """
    mean, covariance = sample.moments()
    variances, axes = np.linalg.eigh(covariance)
    variances, axes = np.maximum(variances[::-1], 0), axes[:, ::-1]
    explained = np.cumsum(variances) / max(float(variances.sum()), 1e-12)
    wanted = sorted({_components(explained, share) for share in _VARIANCES})
    maps = [_rotated(axes, components) for components in wanted]
    costs = [0.0]
    if len(maps) > 1:
        drawn = sample.drawn(_DRAWN)
        costs = [_cost(drawn, matrix, trial) for matrix in maps]
    matrix = maps[int(np.argmin(costs))]
    faiss = import_faiss()
    linear = faiss.LinearTransform(len(mean), len(matrix), True)
    faiss.copy_array_to_vector(matrix.ravel(), linear.A)
    faiss.copy_array_to_vector((-matrix @ mean).astype(np.float32), linear.b)
    linear.is_trained = True
    return linear, len(matrix)


def evenly(rows: int, count: int) -> npt.NDArray[np.int64]:
    """Return about `count` of the numbers below `rows`, evenly spaced."""
    return np.unique(np.linspace(0, rows - 1, min(rows, count)).astype(np.int64))


def _components(explained: npt.NDArray[np.float64], share: float) -> int:
    """Return how many components hold a share of the variance, rounded up to a multiple of four."""
    wanted = min(int(np.searchsorted(explained, share - 1e-9)) + 1, len(explained))
    return max(4 * -(-wanted // 4), 8)


def _rotated(axes: npt.NDArray[np.float64], components: int) -> Vectors:
    """Return (components, D): the first axes, turned so that the variance is spread evenly over the codes."""
    drawn = np.random.default_rng(0).standard_normal((components, components))
    kept = min(components, axes.shape[1])
    return np.ascontiguousarray(np.linalg.qr(drawn)[0][:, :kept] @ axes[:, :kept].T, np.float32)


def _cost(drawn: Vectors, matrix: Vectors, trial: Trial) -> float:
    """Return what a query costs with codes of these components, in bytes read in sequence."""
    faiss = import_faiss()
    components = len(matrix)
    codec = faiss.ProductQuantizer(components, components // 2, 4)
    codec.cp.max_points_per_centroid, codec.cp.min_points_per_centroid = _PER_CENTROID, 1
    codec.cp.niter = _ITERATIONS
    rows = drawn @ matrix.T
    codec.train(rows)
    queries = trial.queries @ matrix.T
    far = np.sort(_distances(queries, _as_coded(codec, rows)), axis=1)
    nearest = _as_coded(codec, trial.neighbours.reshape(-1, trial.neighbours.shape[-1]) @ matrix.T)
    ranks = []
    for query, others, near in zip(queries, far, np.split(nearest, len(queries)), strict=True):
        own = np.sort(_distances(query[None], near)[0])
        before = np.searchsorted(others, own) / len(drawn) * trial.rows
        ranks.append(np.maximum(before, 1 + np.arange(len(own))))
    compared = float(np.quantile(np.concatenate(ranks), min(1.0, trial.target)))
    return trial.rows * _PROBED * components / 4 + SCATTERED_COST * compared * trial.row_bytes


def _as_coded(codec: Any, rows: Vectors) -> Vectors:
    return np.asarray(codec.decode(codec.compute_codes(np.ascontiguousarray(rows))))


def _distances(queries: Vectors, rows: Vectors) -> Vectors:
    """Return (Q, N): squared distances, less the squared norm of the query."""
    return np.asarray(np.einsum("nd,nd->n", rows, rows) - 2 * queries @ rows.T)
