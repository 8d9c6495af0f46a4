"""Descriptors in memory, in blocks that never change, so that versions of a store share them."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import cache
from typing import Any

import numpy as np
import numpy.typing as npt

from storage.cores import usable_cores
from storage.search.faiss_module import copy_to_gpus, import_faiss, kept_rows, selection
from storage.search.half_precision import widened

__all__ = ["BLOCK_ROWS", "DescriptorBlocks"]

BLOCK_ROWS = 65_536
_TIE_WIDTH = 1e-6
_GPU_MAX_K = 2048  # FAISS's kernels select no more neighbours than this
_ADDED_ROWS = 32_768  # at a time: they are widened to float32
_BATCH = 20  # so many queries are worth widening the rows to float32, for a product of matrices
_WIDENED_ROWS = 8192

Mask = npt.NDArray[np.bool_]
Found = tuple[npt.NDArray[np.float32], npt.NDArray[np.int64]]


@dataclass(frozen=True, eq=False)
class _Block:
    start: int
    index: Any
    rows: npt.NDArray[Any]  # (n, D), the memory of `index`: thrice as fast as its `reconstruct_batch`
    on_gpu: Any | None
    gpu_lock: threading.Lock = field(default_factory=threading.Lock)  # one search at a time on GPUs

    @property
    def stop(self) -> int:
        return self.start + int(self.index.ntotal)


class DescriptorBlocks:
    """N descriptors, as float32 of unit norm or as they are stored; immutable, safe to share between threads.

    Attributes:
        count: N.
    """

    def __init__(self, width: int, dtype: Any, *, unit: bool, blocks: tuple[_Block, ...] = ()) -> None:
        """Make one without descriptors.

        Args:
            width: Dimensions.
            dtype: float16 or float32, as they are stored.
            unit: Normalise them in float32; on all GPUs that FAISS supports, with a copy in memory. Else they
                take what they take stored.
            blocks: Not for callers.
        """
        self._width, self._dtype, self._unit = width, np.dtype(dtype), unit
        self._blocks = blocks
        self.count = blocks[-1].stop if blocks else 0
        self.itemsize = 4 if unit else self._dtype.itemsize

    def grown(self, stored: npt.NDArray[Any]) -> DescriptorBlocks:
        """Return these descriptors and (n, D) further ones; all but the last block are shared."""
        blocks = list(self._blocks)
        at = 0
        while at < len(stored):
            index, start = self._empty(), self.count + at
            if at == 0 and blocks and blocks[-1].index.ntotal < BLOCK_ROWS:
                start = blocks[-1].start
                index = import_faiss().clone_index(blocks.pop().index)
            stop = min(len(stored), at + BLOCK_ROWS - index.ntotal)
            for begin in range(at, stop, _ADDED_ROWS):
                index.add(self._prepared(stored[begin : min(stop, begin + _ADDED_ROWS)]))
            on_gpu = copy_to_gpus(index) if self._unit else None
            blocks.append(_Block(start, index, kept_rows(index, self._width), on_gpu))
            at = stop
        return DescriptorBlocks(self._width, self._dtype, unit=self._unit, blocks=tuple(blocks))

    def nearest(
        self, queries: npt.NDArray[np.float32], k: int, allowed: Mask | None = None, *, start: int = 0
    ) -> Found:
        """Compare every row: the nearest with all that tie with the last.

        Args:
            queries: (B, D) float32, unit L2 norm.
            k: Number of rows per query.
            allowed: (N,) bool: which rows may be found; default: all.
            start: The first row that may be found.

        Returns:
            scores: (B, M) float32, M at least k where there are as many: inner products, of rows that are not
                normalised half the negative squared distance. By descending score, -inf padded.
            ids: (B, M) int64: rows, -1 padded.
        """
        blocks = [block for block in self._blocks if block.stop > start]
        masks = [_mask_of(block, allowed, start) for block in blocks]
        asked = [
            (block, mask) for block, mask in zip(blocks, masks, strict=True) if mask is None or mask.any()
        ]
        if len(asked) == 1:
            found = [self._nearest_of(asked[0][0], asked[0][1], queries, k)]
        else:
            found = list(_pool().map(lambda each: self._alone(each[0], each[1], queries, k), asked))
        if not found:
            return np.full((len(queries), k), -np.inf, np.float32), np.full((len(queries), k), -1, np.int64)
        return _merged(found, k)

    def reconstruct(self, ids: npt.NDArray[np.int64]) -> npt.NDArray[np.float32]:
        """Return (len(ids), D) float32: rows as they are kept; fastest for ascending ids.

        Raises:
            IndexError: a row is beyond the last one, or negative.
        """
        order = None if (ids[1:] >= ids[:-1]).all() else np.argsort(ids, kind="stable")
        ascending = ids if order is None else ids[order]
        if len(ids) and not 0 <= ascending[0] <= ascending[-1] < self.count:
            raise IndexError(f"rows {ascending[0]} to {ascending[-1]} of {self.count}")
        found = np.empty((len(ids), self._width), self._blocks[0].rows.dtype if self._blocks else np.float32)
        bounds = np.searchsorted(ascending, [*(block.start for block in self._blocks), self.count])
        for block, begin, end in zip(self._blocks, bounds[:-1], bounds[1:], strict=True):
            if end > begin:
                rows = ascending[begin:end] - block.start
                # With mode "raise", which is checked above, the rows would be copied twice.
                np.take(block.rows, rows, axis=0, out=found[begin:end], mode="clip")
        single = widened(found)
        if order is None:
            return single
        single[order] = single.copy()
        return single

    def _empty(self) -> Any:
        faiss = import_faiss()
        if self._unit:
            return faiss.IndexFlatIP(self._width)
        if self._dtype == np.float16:
            return faiss.IndexScalarQuantizer(self._width, faiss.ScalarQuantizer.QT_fp16)
        return faiss.IndexFlatL2(self._width)

    def _prepared(self, stored: npt.NDArray[Any]) -> npt.NDArray[np.float32]:
        vectors = widened(stored)
        if self._unit:
            norms = np.linalg.norm(vectors, axis=1, keepdims=True)
            vectors = vectors / np.maximum(norms, np.float32(1e-12))
        return vectors

    def _alone(self, block: _Block, mask: Mask | None, queries: npt.NDArray[np.float32], k: int) -> Found:
        import_faiss().omp_set_num_threads(1)  # of this thread: the blocks run side by side
        return self._nearest_of(block, mask, queries, k)

    def _nearest_of(
        self, block: _Block, mask: Mask | None, queries: npt.NDArray[np.float32], k: int
    ) -> Found:
        count = int(block.index.ntotal) if mask is None else int(mask.sum())
        k = min(k, count)
        wanted = min(k + 8, count)  # a few more show whether scores equal to the last one follow
        while True:
            scores, ids = self._search(block, mask, queries, wanted)
            tied = scores[:, k - 1] - scores[:, -1] <= _TIE_WIDTH
            if wanted == count or not tied.any():
                return scores, np.where(ids < 0, -1, ids + block.start)
            wanted = min(4 * wanted, count)

    def _search(
        self, block: _Block, mask: Mask | None, queries: npt.NDArray[np.float32], k: int
    ) -> tuple[Any, Any]:
        if not self._unit and self._dtype == np.float16 and len(queries) >= _BATCH:
            scores, ids = _many_nearest(block.rows, mask, queries, k)
        elif mask is not None:  # FAISS's GPU indexes take no selection
            scores, ids = block.index.search(queries, k, params=selection(mask))
        elif block.on_gpu is None or k > _GPU_MAX_K:
            scores, ids = block.index.search(queries, k)
        else:
            with block.gpu_lock:
                scores, ids = block.on_gpu.search(queries, k)
        return (scores if self._unit else -0.5 * scores), ids


def _many_nearest(
    rows: npt.NDArray[Any], mask: Mask | None, queries: npt.NDArray[np.float32], k: int
) -> tuple[Any, Any]:
    """Return squared distances (B, k), ascending, and numbers of rows (B, k), -1 padded."""
    faiss = import_faiss()
    numbers = np.arange(len(rows)) if mask is None else np.flatnonzero(mask)
    heap = faiss.ResultHeap(len(queries), k)
    for at in range(0, len(numbers), _WIDENED_ROWS):
        some = numbers[at : at + _WIDENED_ROWS]
        distances, found = faiss.knn(queries, widened(rows[some]), min(k, len(some)), metric=faiss.METRIC_L2)
        heap.add_result(distances, some[found])
    heap.finalize()
    return heap.D, heap.I


def _mask_of(block: _Block, allowed: Mask | None, start: int) -> Mask | None:
    """Return which of a block's rows may be found; None: all."""
    if allowed is None and start <= block.start:
        return None
    rows = block.stop - block.start
    mask = np.ones(rows, bool) if allowed is None else allowed[block.start : block.stop].copy()
    mask[: max(0, start - block.start)] = False
    return None if mask.all() else mask


def _merged(found: list[Found], k: int) -> Found:
    """Merge what several blocks found into the k best of each query, with all that tie with the last."""
    scores = np.concatenate([scores for scores, _ in found], axis=1)
    ids = np.concatenate([ids for _, ids in found], axis=1)
    scores = np.where(ids < 0, -np.inf, scores)
    order = np.argsort(-scores, axis=1, kind="stable")
    scores, ids = np.take_along_axis(scores, order, 1), np.take_along_axis(ids, order, 1)
    if len(found) > 1 and scores.shape[1] > k:
        last = np.maximum(scores[:, k - 1 : k] - _TIE_WIDTH, np.finfo(np.float32).min)
        width = max(k, int((scores >= last).sum(axis=1).max()))
        scores, ids = scores[:, :width], ids[:, :width]
    return scores, ids


@cache
def _pool() -> ThreadPoolExecutor:
    return ThreadPoolExecutor(min(8, len(usable_cores())), thread_name_prefix="nearest")
