"""An approximate index in memory that measures its own recall and searches as hard as that asks for.

Principal components that hold most of the variance; inverted lists of 4-bit product codes over them (IVF with
PQ fast scan; Jegou et al. 2011, Andre et al. 2015); and the best of what these find compared again in stored
precision. How many lists are read and how much is compared again are not constants: rows of the index are
asked for, and the cheapest setting is taken that finds enough of what comparing with every row finds.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import numpy.typing as npt

__all__ = ["TARGET_RECALL", "ApproximateIndex", "import_faiss"]

TARGET_RECALL = 0.99
_MARGIN = 0.002  # the measured recall is an estimate from a sample
_TARGET_K, _ASKED = 100, 200
_VARIANCE = 0.87  # more components read more bytes, fewer compare more again: least time at a million rows
_SAMPLES_A_LIST = 64
_SHARES = (1 / 64, 1 / 32, *(i / 16 for i in range(1, 8)), 1 / 2, 5 / 8, 3 / 4, 1.0)
_FACTORS = (4, 6, 8, 10, 12, 16, 20, 24)
_BY_LIST, _MANY = 15, 3  # FAISS's number for it
_BLOCK = 32_768
_FEWEST = 2000  # fewer rows are all compared
_SCATTERED = 4  # a byte read here and there costs as much as so many in a row


class ApproximateIndex:
    """Nearest rows by cosine; safe to share between threads.

    Attributes:
        recall: Share of the exact nearest (100, or all) found when rows of its own were asked for.
        components: How many dimensions the lists see.
        lists: How many inverted lists there are.
        probes: How many of them a query reads; 0 where every row is compared instead.
        factor: How many times k (at least 100) rows are compared again in stored precision.
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
        if rows < _FEWEST:
            return
        faiss = import_faiss()
        # 512 lists for 100,000 rows, 2,048 for a million.
        self.lists = int(2 ** round(math.log2(2 * math.sqrt(rows))))
        sample = _float32(stored[_evenly(rows, _SAMPLES_A_LIST * self.lists)])
        reduce, self.components = _reduction(sample)
        coarse = faiss.IndexFlatL2(self.components)
        coded = faiss.IndexIVFPQFastScan(coarse, self.components, self.lists, self.components // 2, 4)
        coded.cp.max_points_per_centroid = _SAMPLES_A_LIST
        coded.cp.min_points_per_centroid = 1  # few rows are no reason for a warning on stderr
        self._coded = faiss.IndexPreTransform(reduce, coded)
        self._coded.train(sample)
        for start in range(0, rows, _BLOCK):
            self._coded.add(_float32(stored[start : start + _BLOCK]))
        self._refined = faiss.IndexRefine(self._coded, self._exact)
        self._lists = coded
        self._kept = (coarse, reduce)  # FAISS knows them by address alone
        self._measure(stored, target)

    def search(self, queries: npt.NDArray[np.float32], k: int) -> npt.NDArray[np.int64]:
        """Return (B, k) int64: rows by falling similarity, -1 where no more were found.

        Args:
            queries: (B, D) float32, unit L2 norm.
            k: How many.
        """
        if not self.probes:
            return np.asarray(self._exact.search(queries, k)[1])
        faiss = import_faiss()
        # Beyond the k that was measured, as many more lists.
        probes = min(self.lists, self.probes * max(k, _TARGET_K) // _TARGET_K)
        parameters = faiss.IndexRefineSearchParameters(
            k_factor=self.factor * max(k, _TARGET_K) / k,
            base_index_params=faiss.SearchParametersIVF(nprobe=probes),
        )
        # Few queries share out their lists to the cores, many are shared out themselves. A race between two
        # threads here costs time, not answers.
        self._lists.implem = _BY_LIST if len(queries) < _MANY else 0
        return np.asarray(self._refined.search(queries, k, params=parameters)[1])

    def reconstruct(self, ids: npt.NDArray[np.int64]) -> npt.NDArray[np.float32]:
        """Return (len(ids), D) float32: rows as they are stored."""
        return np.asarray(self._exact.reconstruct_batch(ids))

    def _measure(self, stored: npt.NDArray[Any], target: float) -> None:
        """Take the cheapest setting that finds the target's share on rows of its own, each without itself."""
        faiss = import_faiss()
        asked = _evenly(len(stored), _ASKED)
        queries, k = _float32(stored[asked]), min(_TARGET_K, len(stored) - 1)
        truth = _without(self._exact.search(queries, k + 1)[1], asked)
        best = math.inf
        for share in _SHARES:
            probes = max(1, round(share * self.lists))
            parameters = faiss.SearchParametersIVF(nprobe=probes)
            found = self._coded.search(queries, min(len(stored), max(_FACTORS) * k), params=parameters)[1]
            # What is compared again is compared exactly: a row is found if it is among those.
            ranks = _ranks(found, truth)
            for factor in _FACTORS:
                recall = float((ranks < factor * k).mean())
                coded = share * len(stored) * self.components / 4
                cost = coded + _SCATTERED * factor * k * stored.shape[1] * stored.itemsize
                if recall >= target + _MARGIN and cost < best:
                    best, self.recall, self.probes, self.factor = cost, recall, probes, factor


def import_faiss() -> Any:
    """Return the module faiss.

    Raises:
        ImportError: it is not installed.
    """
    try:
        import faiss
    except ImportError as error:
        raise ImportError(
            "searching in memory needs FAISS: pip install 'placeray[cpu]', or 'placeray[gpu]' with CUDA"
        ) from error
    return faiss


def _stored_precision(stored: npt.NDArray[Any]) -> Any:
    """Return an empty index that keeps rows exactly as they are stored."""
    faiss = import_faiss()
    if stored.dtype == np.float16:
        return faiss.IndexScalarQuantizer(stored.shape[1], faiss.ScalarQuantizer.QT_fp16)
    return faiss.IndexFlatL2(stored.shape[1])


def _reduction(sample: npt.NDArray[np.float32]) -> tuple[Any, int]:
    """Return a trained linear map to fewer dimensions, and how many it leaves: a multiple of four."""
    faiss = import_faiss()
    dimensions = sample.shape[1]
    variances = np.linalg.eigvalsh(np.cov(sample, rowvar=False).astype(np.float64))[::-1]
    held = np.cumsum(variances) / max(variances.sum(), 1e-12)
    wanted = int(np.searchsorted(held, _VARIANCE)) + 1
    components = max(4 * -(-wanted // 4), 8)
    if components >= dimensions:  # all of them, in a basis where all matter alike
        turned = faiss.RandomRotationMatrix(dimensions, 4 * -(-dimensions // 4))
        turned.init(0)
        return turned, turned.d_out
    reduce = faiss.PCAMatrix(dimensions, components, 0, True)
    reduce.train(sample)
    return reduce, components


def _ranks(found: npt.NDArray[np.int64], truth: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """Return (B, k) int64: at which place of `found` each of `truth` stands; beyond the last if nowhere."""
    ranks = np.full(truth.shape, found.shape[1])
    for row, (ids, wanted) in enumerate(zip(found, truth, strict=True)):
        order = np.argsort(ids)
        at = np.minimum(np.searchsorted(ids, wanted, sorter=order), len(ids) - 1)
        there = ids[order[at]] == wanted
        ranks[row, there] = order[at][there]
    return ranks


def _evenly(rows: int, count: int) -> npt.NDArray[np.int64]:
    return np.unique(np.linspace(0, rows - 1, min(rows, count)).astype(np.int64))


def _float32(rows: npt.NDArray[Any]) -> npt.NDArray[np.float32]:
    return np.ascontiguousarray(rows, dtype=np.float32)


def _without(found: npt.NDArray[np.int64], asked: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """Return (B, k) int64 from (B, k + 1): without the row asked for, or without the last."""
    keep = found != asked[:, None]
    keep[keep.all(axis=1), -1] = False
    return np.asarray(found[keep]).reshape(len(found), found.shape[1] - 1)
