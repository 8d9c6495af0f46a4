"""Several filters at once."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from storage.search.filters.bounds import Bounds, bounds_of
from storage.search.row_filter import RowFilter

__all__ = ["AllOf", "all_of"]


@dataclass(frozen=True)
class AllOf:
    """Rows that pass every one of some filters.

    Attributes:
        filters: At least one.
    """

    filters: tuple[RowFilter, ...]

    @property
    def columns(self) -> tuple[str, ...]:
        """The columns that any of them reads."""
        return tuple(dict.fromkeys(name for each in self.filters for name in each.columns))

    def mask(self, rows: pa.Table) -> npt.NDArray[np.bool_]:
        """Return (N,) bool: which rows pass.

        Args:
            rows: N stored rows with `columns`.
        """
        inside = np.ones(len(rows), np.bool_)
        for each in self.filters:
            inside &= each.mask(rows)
        return inside

    def bounds(self) -> Bounds | None:
        """Return bounds outside of which no row with degrees passes; None: none are known."""
        known = (bounds_of(each) for each in self.filters)
        return next((bounds for bounds in known if bounds is not None), None)

    def predicate(self) -> str | None:
        """Return a SQL condition that holds for these rows and maybe others."""
        conditions = [condition for each in self.filters if (condition := each.predicate()) is not None]
        return " AND ".join(f"({condition})" for condition in conditions) or None


def all_of(filters: Iterable[RowFilter]) -> RowFilter | None:
    """Return one filter that stands for several; None for none."""
    given = tuple(filters)
    return AllOf(given) if len(given) > 1 else given[0] if given else None
