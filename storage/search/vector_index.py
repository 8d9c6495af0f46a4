"""The interface of an index of vectors in memory, whatever finds the nearest."""

from __future__ import annotations

from typing import Any, Protocol, Self

import numpy as np
import numpy.typing as npt

__all__ = ["VectorIndex"]

Mask = npt.NDArray[np.bool_]


class VectorIndex(Protocol):
    """N vectors, numbered as they came; immutable, safe to share between threads.

    Rows that are gone keep their numbers: whoever searches leaves them out by `allowed`. Versions share what
    they have in common.

    Attributes:
        recall: Recall@100 against exact search, measured with its own rows as queries.
        count: N.
    """

    recall: float

    @property
    def count(self) -> int:
        """How many vectors, with those that are gone."""
        ...

    def search(self, queries: npt.NDArray[Any], k: int, allowed: Mask | None = None) -> npt.NDArray[np.int64]:
        """Return (B, k or more) int64: rows, the best first, -1 padded.

        Args:
            queries: (B, D), of the index's type.
            k: Number of rows per query.
            allowed: (N,) bool: which rows may be found; default: all.
        """
        ...

    def grown(self, stored: npt.NDArray[Any]) -> Self:
        """Return this index with (n, D) further rows, quickly."""
        ...

    def extension_due(self, alive: Mask) -> bool:
        """Return whether so much has changed that `extended` should be called."""
        ...

    def extended(self, alive: Mask) -> Self:
        """Return this index with its further rows taken in, which takes its time; meanwhile this one answers.

        Args:
            alive: (N,) bool: which rows are not gone.
        """
        ...

    def joined(self, newer: Self) -> Self:
        """Return this index, an extended one, with the rows that `newer` has beyond.

        Args:
            newer: What the index that was extended has grown to meanwhile.
        """
        ...
