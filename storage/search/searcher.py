"""The interface of a searcher."""

from __future__ import annotations

from typing import Protocol

import numpy as np
import numpy.typing as npt

from storage.records import Candidate
from storage.search.row_filter import RowFilter

__all__ = ["Searcher"]


class Searcher(Protocol):
    """Finds the nearest rows in one version of a store, or in one partition of it.

    Attributes:
        count: How many rows it searches.
    """

    count: int

    @property
    def degraded(self) -> bool:
        """Whether rows had to be left out."""
        ...

    def search(
        self,
        descriptors: npt.NDArray[np.float32],
        *,
        k: int,
        codes: npt.NDArray[np.uint8] | None = None,
        within: RowFilter | None = None,
    ) -> list[list[Candidate]]:
        """Return up to k candidates per query, best first, ties by image_id.

        Args:
            descriptors: (B, D) float32, unit L2 norm.
            k: Number of candidates per query.
            codes: (B, code_bits / 8) uint8, for search by codes.
            within: Which rows may be found; default: all.
        """
        ...

    def considered(self, within: RowFilter | None) -> int:
        """Return how many rows a filter leaves; all of them without one."""
        ...
