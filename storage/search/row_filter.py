"""The interface of a filter of rows."""

from __future__ import annotations

from typing import Protocol

import numpy as np
import numpy.typing as npt
import pyarrow as pa

__all__ = ["RowFilter"]


class RowFilter(Protocol):
    """Says which rows may be found; immutable, hashable and picklable, so that results of it can be kept."""

    @property
    def columns(self) -> tuple[str, ...]:
        """The stored columns that `mask` reads, see `storage.table.schema`."""
        ...

    def mask(self, rows: pa.Table) -> npt.NDArray[np.bool_]:
        """Return (N,) bool: which rows may be found. A missing value never matches.

        Args:
            rows: N rows with `columns`, in the store's types.
        """
        ...

    def predicate(self) -> str | None:
        """Return an SQL condition that holds for all rows that may be found, and perhaps for others.

        LanceDB reads fewer rows by it. None: every row is read.
        """
        ...
