"""An approximate index in memory that measures its own recall and tunes itself to reach a target.

Rows as short codes in inverted lists (`coded_rows`), and a refinement of the nearest in stored precision. The
number of probed lists and of refined rows are not constants: a sample of the index's own rows serves as
queries, and the cheapest setting is chosen that reaches the target recall against exact search.

Further rows are compared exactly at first; `extended` gives them codes of the same lists, or trains new lists
where there are many. The descriptors are shared by what was before and what is after.
"""

from __future__ import annotations

import copy
import math
from typing import Any

import numpy as np
import numpy.typing as npt

from storage.search.allocator import return_free_memory
from storage.search.coded_rows import CodedRows, Training
from storage.search.descriptor_blocks import DescriptorBlocks, Mask
from storage.search.reduction import SCATTERED_COST, Trial, evenly

__all__ = ["TARGET_RECALL", "ApproximateIndex"]

TARGET_RECALL = 0.99
_MARGIN = 0.002  # the measured recall is an estimate from a sample
_TARGET_K, _SAMPLE_QUERIES = 100, 200
_SHARES = (1 / 64, 1 / 32, *(i / 16 for i in range(1, 8)), 1 / 2, 5 / 8, 3 / 4, 1.0)
_FACTORS = (4, 6, 8, 10, 12, 16, 20, 24, 32, 48)
_MIN_ROWS = 2000  # with fewer rows every one is compared
_EXTRA = 16  # refined rows beyond k are no cost
# The delta: a share of the coded rows that is compared exactly, and one at which all is trained anew.
_UNCODED_SHARE, _MIN_UNCODED = 1 / 128, 1024
_GROWTH = 0.5
_GROWN = 0.5  # of the share of rows that came after the measurement: so much more is searched
_COMPARED_ROWS = 20_000  # as many that a filter leaves are all compared


class ApproximateIndex:
    """Nearest rows by cosine; immutable, safe to share between threads.

    Attributes:
        recall: Recall@100 against exact search, measured with its own rows as queries.
        components: Number of principal components that the codes cover.
        lists: Number of inverted lists.
        probes: How many of them a query probes; 0 if every row is compared instead.
        factor: This many times k (at least 100) rows are refined in stored precision.
        count: Number of rows, N, with those that are gone.
    """

    def __init__(self, stored: npt.NDArray[Any], *, target: float = TARGET_RECALL) -> None:
        """Build and measure.

        Args:
            stored: (N, D) float16 or float32, unit L2 norm.
            target: Recall to reach. Where no setting does, every row is compared.

        Raises:
            ImportError: FAISS is not installed.
        """
        rows, self.components = stored.shape
        self._target = target
        self._blocks = DescriptorBlocks(self.components, stored.dtype, unit=False).grown(stored)
        self._coded: CodedRows | None = None
        self._tried_rows = rows
        self.recall, self.lists, self.probes, self.factor = 1.0, 0, 0, 1
        self._train(np.ones(rows, bool))

    @property
    def count(self) -> int:
        """Number of rows."""
        return self._blocks.count

    def search(
        self, queries: npt.NDArray[np.float32], k: int, allowed: Mask | None = None
    ) -> npt.NDArray[np.int64]:
        """Return (B, k) int64: rows by descending similarity, -1 padded.

        Args:
            queries: (B, D) float32, unit L2 norm.
            k: Number of rows per query.
            allowed: (N,) bool: which rows may be found; default: all. A few are compared each; of many, the
                codes in all lists.
        """
        left = None if allowed is None else int(allowed.sum())
        if self._coded is None or (left is not None and left <= _COMPARED_ROWS):
            candidates = self._blocks.nearest(queries, k + _EXTRA, allowed)[1]
        else:
            probes, wanted = self._depth(self._coded, k, left)
            candidates = self._coded.nearest(queries, wanted, probes=probes, allowed=allowed)
            start = self._coded.stop
            if start < self.count:
                uncoded = self._blocks.nearest(queries, k + _EXTRA, allowed, start=start)[1]
                candidates = np.concatenate([candidates, uncoded], axis=1)
        return np.stack(
            [self._refined(query, ids, k) for query, ids in zip(queries, candidates, strict=True)]
        )

    def reconstruct(self, ids: npt.NDArray[np.int64]) -> npt.NDArray[np.float32]:
        """Return (len(ids), D) float32: rows as they are stored."""
        return self._blocks.reconstruct(ids)

    def grown(self, stored: npt.NDArray[Any]) -> ApproximateIndex:
        """Return this index with (n, D) further rows, which are compared exactly until `extended`."""
        index = copy.copy(self)
        index._blocks = self._blocks.grown(stored)
        return index

    def extension_due(self, alive: Mask) -> bool:
        """Return whether so many rows have no codes, or are gone, that `extended` should be called."""
        return self._retraining_due(alive) or (self._coded is not None and self._uncoded > self._allowance)

    def extended(self, alive: Mask) -> ApproximateIndex:
        """Return this index with codes for the rows that have none, or trained anew where it grew by half.

        Takes seconds to a minute per million rows, during which this index still answers.

        Args:
            alive: (N,) bool: which rows are not gone.
        """
        index = copy.copy(self)
        if self._retraining_due(alive):
            index._coded, index._tried_rows = None, int(alive.sum())
            index.recall, index.lists, index.probes, index.factor = 1.0, 0, 0, 1
            index._train(alive)
        elif self._coded is not None:
            index._coded = self._coded.extended(self._blocks, alive)
        return index

    def joined(self, newer: ApproximateIndex) -> ApproximateIndex:
        """Return this index with the rows that `newer`, grown from what it was made of, has beyond."""
        index = copy.copy(self)
        index._blocks = newer._blocks
        return index

    @property
    def _uncoded(self) -> int:
        return self.count - (0 if self._coded is None else self._coded.stop)

    @property
    def _allowance(self) -> int:
        return max(_MIN_UNCODED, int(self._tried_rows * _UNCODED_SHARE))

    def _retraining_due(self, alive: Mask) -> bool:
        count = int(alive.sum())
        return count >= _MIN_ROWS and not (
            (1 - _GROWTH / 2) * self._tried_rows <= count <= (1 + _GROWTH) * self._tried_rows
        )

    def _depth(self, coded: CodedRows, k: int, left: int | None) -> tuple[int, int]:
        """Return how many lists a query probes, and how many rows are refined."""
        grown = max(0.0, coded.count / coded.training.rows - 1)
        more = 1 + _GROWN * grown  # what was measured holds for the rows that were there
        factor, probes = self.factor * more, self.probes * more
        if left is not None and 2 * left < self.count:  # the nearest that are left may lie in any list
            probes = self.lists
        # For k beyond the measured one, proportionally more lists.
        probes = probes * max(k, _TARGET_K) / _TARGET_K
        return min(self.lists, round(probes)), round(factor * max(k, _TARGET_K))

    def _refined(
        self, query: npt.NDArray[np.float32], ids: npt.NDArray[np.int64], k: int
    ) -> npt.NDArray[np.int64]:
        """Return (k,) int64: the best of some rows by cosine in stored precision, -1 padded."""
        ids = np.sort(ids[ids >= 0])
        vectors = self._blocks.reconstruct(ids)
        # Not a product of BLAS, whose threads spin after it and hold the cores that FAISS's need next.
        scores = np.einsum("nd,d->n", vectors, query)
        scores /= np.maximum(np.sqrt(np.einsum("nd,nd->n", vectors, vectors)), 1e-12)
        best = ids[np.argsort(-scores, kind="stable")[:k]]
        return np.pad(best, (0, k - len(best)), constant_values=-1)

    def _train(self, alive: Mask) -> None:
        """Give codes to the rows `alive`, and choose the cheapest setting that reaches the target."""
        rows = int(alive.sum())
        if rows < _MIN_ROWS:
            return
        sample = np.flatnonzero(alive)[evenly(rows, _SAMPLE_QUERIES)]
        queries, k = self._blocks.reconstruct(sample), min(_TARGET_K, rows - 1)
        allowed = None if rows == self.count else alive
        truth = _without(self._blocks.nearest(queries, k + 1, allowed)[1][:, : k + 1], sample)
        near = self._blocks.reconstruct(truth.ravel()).reshape(*truth.shape, -1)
        row_bytes = queries.shape[1] * self._blocks.itemsize
        trial = Trial(queries, near, rows, row_bytes, self._target + _MARGIN)
        training = Training.of(self._blocks, alive, trial)
        del near, trial  # of a large index, as much as the codes may still take
        coded = CodedRows(training, self._blocks, alive)
        self.lists, self.components = training.lists, training.components
        self._measure(coded, queries, truth)
        if self.probes:
            self._coded = coded
        return_free_memory()

    def _measure(
        self, coded: CodedRows, queries: npt.NDArray[np.float32], truth: npt.NDArray[np.int64]
    ) -> None:
        """Choose the cheapest setting that reaches the target, for queries whose nearest rows are known."""
        k, best = truth.shape[1], math.inf
        row_bytes = queries.shape[1] * self._blocks.itemsize
        for share in _SHARES:
            probes = max(1, round(share * self.lists))
            found = coded.nearest(queries, min(coded.count, max(_FACTORS) * k), probes=probes)
            # The refinement is exact: a row is found if it is among the refined ones.
            ranks = _ranks(found, truth)
            for factor in _FACTORS:
                recall = float((ranks < factor * k).mean())
                cost = share * coded.count * self.components / 4 + SCATTERED_COST * factor * k * row_bytes
                if recall >= self._target + _MARGIN and cost < best:
                    best, self.recall, self.probes, self.factor = cost, recall, probes, factor


def _ranks(found: npt.NDArray[np.int64], truth: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """Return (B, k) int64: the rank in `found` of each of `truth`; beyond the last if absent."""
    ranks = np.full(truth.shape, found.shape[1])
    for row, (ids, wanted) in enumerate(zip(found, truth, strict=True)):
        order = np.argsort(ids)
        at = np.minimum(np.searchsorted(ids, wanted, sorter=order), len(ids) - 1)
        present = ids[order[at]] == wanted
        ranks[row, present] = order[at][present]
    return ranks


def _without(found: npt.NDArray[np.int64], rows: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """Return (B, k) int64 from (B, k + 1): without the query's own row, or without the last."""
    keep = found != rows[:, None]
    keep[keep.all(axis=1), -1] = False
    return np.asarray(found[keep]).reshape(len(found), found.shape[1] - 1)
