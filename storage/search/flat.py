"""An exact index in memory: FAISS compares every row."""

from __future__ import annotations

import threading
from typing import Any

import numpy as np
import numpy.typing as npt

from storage.search.faiss_module import copy_to_gpus, import_faiss, selection

__all__ = ["FlatIndex"]

_TIE_WIDTH = 1e-6
_GPU_MAX_K = 2048  # FAISS's kernels select no more neighbours than this
_BLOCK = 32_768


class FlatIndex:
    """Compares every row in float32; on all GPUs that FAISS supports, with a copy in memory."""

    recall = 1.0

    def __init__(self, stored: npt.NDArray[Any]) -> None:
        rows, dimensions = stored.shape
        self._count = rows
        self._index = import_faiss().IndexFlatIP(dimensions)
        for start in range(0, rows, _BLOCK):
            vectors = stored[start : start + _BLOCK].astype(np.float32)
            vectors /= np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), np.float32(1e-12))
            self._index.add(vectors)
        self._on_gpu = copy_to_gpus(self._index)
        self._gpu_lock = threading.Lock()  # FAISS's GPU indexes support one search at a time

    def search(
        self, queries: npt.NDArray[np.float32], k: int, allowed: npt.NDArray[np.bool_] | None = None
    ) -> npt.NDArray[np.int64]:
        """Return (B, k or more) int64: rows by descending similarity, with all that tie with the last.

        Args:
            queries: (B, D) float32, unit L2 norm.
            k: Number of rows per query, at most as many as there are.
            allowed: (N,) bool, at least k of them: which rows may be found; default: all.
        """
        count = self._count if allowed is None else int(allowed.sum())
        # A few more than k show whether scores equal to the last one follow.
        wanted = min(k + 8, count)
        while True:
            scores, ids = self._nearest(queries, wanted, allowed)
            tied = scores[:, k - 1] - scores[:, -1] <= _TIE_WIDTH
            if wanted == count or not tied.any():
                return np.asarray(ids)
            wanted = min(4 * wanted, count)

    def _nearest(
        self, queries: npt.NDArray[np.float32], k: int, allowed: npt.NDArray[np.bool_] | None
    ) -> tuple[Any, Any]:
        if allowed is not None:  # FAISS's GPU indexes take no selection
            scores, ids = self._index.search(queries, k, params=selection(allowed))
        elif self._on_gpu is None or k > _GPU_MAX_K:
            scores, ids = self._index.search(queries, k)
        else:
            with self._gpu_lock:
                scores, ids = self._on_gpu.search(queries, k)
        return scores, ids

    def reconstruct(self, ids: npt.NDArray[np.int64]) -> npt.NDArray[np.float32]:
        """Return (len(ids), D) float32: rows normalised to unit norm."""
        return np.asarray(self._index.reconstruct_batch(ids))
