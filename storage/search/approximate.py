"""An approximate index in memory that measures its own recall and tunes itself to reach a target.

Principal components that hold most of the variance; inverted lists of 4-bit product codes over them (IVF with
PQ fast scan; Jegou et al. 2011, Andre et al. 2015); and a refinement of the nearest in stored
precision. The number of probed lists and of refined rows are not constants: a sample of the index's own rows
serves as queries, and the cheapest setting is chosen that reaches the target recall against exact search.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import numpy.typing as npt

from storage.search.faiss_module import import_faiss, selection

__all__ = ["TARGET_RECALL", "ApproximateIndex"]

TARGET_RECALL = 0.99
_MARGIN = 0.002  # the measured recall is an estimate from a sample
_TARGET_K, _SAMPLE_QUERIES = 100, 200
_VARIANCE = 0.87  # more components read more bytes, fewer compare more again: least time at a million rows
_SAMPLES_PER_LIST = 64
_SHARES = (1 / 64, 1 / 32, *(i / 16 for i in range(1, 8)), 1 / 2, 5 / 8, 3 / 4, 1.0)
_FACTORS = (4, 6, 8, 10, 12, 16, 20, 24)
_BY_LIST = 15  # FAISS's number for this implementation
_MIN_BATCH = 3  # queries that are parallelised by query
_BLOCK = 32_768
_MIN_ROWS = 2000  # with fewer rows every one is compared
_SCATTERED_COST = 4  # reading a scattered byte costs as much as reading so many in sequence


class ApproximateIndex:
    """Nearest rows by cosine; safe to share between threads.

    Attributes:
        recall: Recall@100 against exact search, measured with its own rows as queries.
        components: Number of principal components that the codes cover.
        lists: Number of inverted lists.
        probes: How many of them a query probes; 0 if every row is compared instead.
        factor: This many times k (at least 100) rows are refined in stored precision.
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
        self.recall, self.lists, self.probes, self.factor = 1.0, 0, 0, 1
        self._exact = _stored_precision(stored)
        for start in range(0, rows, _BLOCK):
            self._exact.add(_float32(stored[start : start + _BLOCK]))
        if rows < _MIN_ROWS:
            return
        faiss = import_faiss()
        # 512 lists for 100,000 rows, 2,048 for a million.
        self.lists = int(2 ** round(math.log2(2 * math.sqrt(rows))))
        sample = _float32(stored[_evenly(rows, _SAMPLES_PER_LIST * self.lists)])
        reduce, self.components = _reduction(sample)
        coarse = faiss.IndexFlatL2(self.components)
        coded = faiss.IndexIVFPQFastScan(coarse, self.components, self.lists, self.components // 2, 4)
        coded.cp.max_points_per_centroid = _SAMPLES_PER_LIST
        coded.cp.min_points_per_centroid = 1  # no warning on stderr about few rows
        self._coded = faiss.IndexPreTransform(reduce, coded)
        self._coded.train(sample)
        for start in range(0, rows, _BLOCK):
            self._coded.add(_float32(stored[start : start + _BLOCK]))
        self._refined = faiss.IndexRefine(self._coded, self._exact)
        self._lists = coded
        self._referenced = (coarse, reduce)  # FAISS only keeps their addresses
        self._measure(stored, target)

    def search(
        self, queries: npt.NDArray[np.float32], k: int, allowed: npt.NDArray[np.bool_] | None = None
    ) -> npt.NDArray[np.int64]:
        """Return (B, k) int64: rows by descending similarity, -1 padded.

        Args:
            queries: (B, D) float32, unit L2 norm.
            k: Number of rows per query.
            allowed: (N,) bool: which rows may be found, each of which is then compared; default: all.
        """
        if allowed is not None:
            return np.asarray(self._exact.search(queries, k, params=selection(allowed))[1])
        if not self.probes:
            return np.asarray(self._exact.search(queries, k)[1])
        faiss = import_faiss()
        # For k beyond the measured one, proportionally more lists.
        probes = min(self.lists, self.probes * max(k, _TARGET_K) // _TARGET_K)
        parameters = faiss.IndexRefineSearchParameters(
            k_factor=self.factor * max(k, _TARGET_K) / k,
            base_index_params=faiss.SearchParametersIVF(nprobe=probes),
        )
        # Few queries are parallelised by list, many by query. A race between two threads here costs time, not
        # correctness.
        self._lists.implem = _BY_LIST if len(queries) < _MIN_BATCH else 0
        return np.asarray(self._refined.search(queries, k, params=parameters)[1])

    def reconstruct(self, ids: npt.NDArray[np.int64]) -> npt.NDArray[np.float32]:
        """Return (len(ids), D) float32: rows as they are stored."""
        return np.asarray(self._exact.reconstruct_batch(ids))

    def _measure(self, stored: npt.NDArray[Any], target: float) -> None:
        """Choose the cheapest setting that reaches the target, with a sample of the rows as queries."""
        faiss = import_faiss()
        sample = _evenly(len(stored), _SAMPLE_QUERIES)
        queries, k = _float32(stored[sample]), min(_TARGET_K, len(stored) - 1)
        truth = _without(self._exact.search(queries, k + 1)[1], sample)
        best = math.inf
        for share in _SHARES:
            probes = max(1, round(share * self.lists))
            parameters = faiss.SearchParametersIVF(nprobe=probes)
            coded_nearest = self._coded.search(
                queries, min(len(stored), max(_FACTORS) * k), params=parameters
            )[1]
            # The refinement is exact: a row is found if it is among the refined ones.
            ranks = _ranks(coded_nearest, truth)
            for factor in _FACTORS:
                recall = float((ranks < factor * k).mean())
                coded_cost = share * len(stored) * self.components / 4
                cost = coded_cost + _SCATTERED_COST * factor * k * stored.shape[1] * stored.itemsize
                if recall >= target + _MARGIN and cost < best:
                    best, self.recall, self.probes, self.factor = cost, recall, probes, factor


def _stored_precision(stored: npt.NDArray[Any]) -> Any:
    """Return an empty index that stores rows in their own precision."""
    faiss = import_faiss()
    if stored.dtype == np.float16:
        return faiss.IndexScalarQuantizer(stored.shape[1], faiss.ScalarQuantizer.QT_fp16)
    return faiss.IndexFlatL2(stored.shape[1])


def _reduction(sample: npt.NDArray[np.float32]) -> tuple[Any, int]:
    """Return a trained linear map to fewer dimensions, and their number: a multiple of four."""
    faiss = import_faiss()
    dimensions = sample.shape[1]
    variances = np.linalg.eigvalsh(np.cov(sample, rowvar=False).astype(np.float64))[::-1]
    explained = np.cumsum(variances) / max(variances.sum(), 1e-12)
    wanted = int(np.searchsorted(explained, _VARIANCE)) + 1
    components = max(4 * -(-wanted // 4), 8)
    if components >= dimensions:  # all of them, rotated so that the variance is spread evenly
        rotation = faiss.RandomRotationMatrix(dimensions, 4 * -(-dimensions // 4))
        rotation.init(0)
        return rotation, rotation.d_out
    reduce = faiss.PCAMatrix(dimensions, components, 0, True)
    reduce.train(sample)
    return reduce, components


def _ranks(found: npt.NDArray[np.int64], truth: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """Return (B, k) int64: the rank in `found` of each of `truth`; beyond the last if absent."""
    ranks = np.full(truth.shape, found.shape[1])
    for row, (ids, wanted) in enumerate(zip(found, truth, strict=True)):
        order = np.argsort(ids)
        at = np.minimum(np.searchsorted(ids, wanted, sorter=order), len(ids) - 1)
        present = ids[order[at]] == wanted
        ranks[row, present] = order[at][present]
    return ranks


def _evenly(rows: int, count: int) -> npt.NDArray[np.int64]:
    return np.unique(np.linspace(0, rows - 1, min(rows, count)).astype(np.int64))


def _float32(rows: npt.NDArray[Any]) -> npt.NDArray[np.float32]:
    return np.ascontiguousarray(rows, dtype=np.float32)


def _without(found: npt.NDArray[np.int64], rows: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """Return (B, k) int64 from (B, k + 1): without the query's own row, or without the last."""
    keep = found != rows[:, None]
    keep[keep.all(axis=1), -1] = False
    return np.asarray(found[keep]).reshape(len(found), found.shape[1] - 1)
