"""An exact index in memory: FAISS compares every row."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from storage.search.descriptor_blocks import DescriptorBlocks, Mask

__all__ = ["FlatIndex"]


class FlatIndex:
    """Compares every row in float32; on all GPUs that FAISS supports, with a copy in memory. Immutable.

    Attributes:
        count: Number of rows, N, with those that are gone.
    """

    recall = 1.0

    def __init__(self, stored: npt.NDArray[Any]) -> None:
        """Normalise and keep (N, D) float16 or float32."""
        empty = DescriptorBlocks(stored.shape[1], stored.dtype, unit=True)
        self._blocks = empty.grown(stored)
        self.count = self._blocks.count

    def search(
        self, queries: npt.NDArray[np.float32], k: int, allowed: Mask | None = None
    ) -> npt.NDArray[np.int64]:
        """Return (B, k or more) int64: rows by descending similarity, with all that tie with the last.

        Args:
            queries: (B, D) float32, unit L2 norm.
            k: Number of rows per query.
            allowed: (N,) bool: which rows may be found; default: all.
        """
        return self._blocks.nearest(queries, k, allowed)[1]

    def reconstruct(self, ids: npt.NDArray[np.int64]) -> npt.NDArray[np.float32]:
        """Return (len(ids), D) float32: rows normalised to unit norm."""
        return self._blocks.reconstruct(ids)

    def grown(self, stored: npt.NDArray[Any]) -> FlatIndex:
        """Return this index with (n, D) further rows."""
        index = FlatIndex(stored[:0])
        index._blocks = self._blocks.grown(stored)
        index.count = index._blocks.count
        return index

    def extension_due(self, alive: Mask) -> bool:
        """Return False: every row is compared as it is."""
        return False

    def extended(self, alive: Mask) -> FlatIndex:
        """Return this index."""
        return self

    def joined(self, newer: FlatIndex) -> FlatIndex:
        """Return `newer`."""
        return newer
