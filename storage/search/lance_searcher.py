"""Search by LanceDB in the table on disk."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from storage.card import Card
from storage.records import Candidate
from storage.search.half_precision import widened
from storage.search.ranking import rank_rows
from storage.search.row_filter import RowFilter
from storage.search.rows_left import rows_left, scanned_rows_left
from storage.table.checksums import intact_rows
from storage.table.open_table import Table
from storage.table.schema import descriptor_matrix

__all__ = ["LanceSearcher"]

_KEPT_FILTERS = 8
_COMPARED_ROWS = 1_000  # as many that a filter leaves are read and compared each


class LanceSearcher:
    """LanceDB's search of one version on disk: through its index if there is one, else a full scan.

    Attributes:
        degraded: Whether a damaged row was among the results so far; such rows are left out.
        count: How many rows it searches.
    """

    def __init__(self, table: Table, card: Card) -> None:
        """Search this version, whose card is `card`."""
        self.degraded = False
        self.count = table.count()
        self._table = table
        self._card = card
        self._kept: dict[RowFilter, npt.NDArray[np.int64]] = {}

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
            codes: Not used.
            within: Which rows may be found; default: all.

        Raises:
            CorruptStore: a data file cannot be read.
        """
        if within is None:
            return [self._ranked(self._nearest(query, k + 8), query, k) for query in descriptors]
        left = self._left(within)
        if len(left) <= _COMPARED_ROWS:
            rows = self._table.take(left.tolist())
            return [self._ranked(rows, query, k) for query in descriptors]
        return [self._ranked(self._nearest_within(query, k, within), query, k) for query in descriptors]

    def considered(self, within: RowFilter | None) -> int:
        """Return how many rows a filter leaves; all of them without one.

        Raises:
            CorruptStore: a data file cannot be read.
        """
        return self.count if within is None else len(self._left(within))

    def _left(self, within: RowFilter) -> npt.NDArray[np.int64]:
        """Return where in the table's order the rows lie that a filter leaves."""
        left = self._kept.get(within)
        if left is None:
            left = self._kept[within] = np.flatnonzero(scanned_rows_left(within, self._table))
            if len(self._kept) > _KEPT_FILTERS:
                self._kept.pop(next(iter(self._kept)), None)
        return left

    def _nearest(self, query: npt.NDArray[np.float32], k: int, where: str | None = None) -> pa.Table:
        nearest = self._table.nearest(query, min(k, max(1, self.count)), where=where)
        return nearest.drop_columns(["_distance"])

    def _nearest_within(self, query: npt.NDArray[np.float32], k: int, within: RowFilter) -> pa.Table:
        """Ask for more until k of the nearest pass the filter; LanceDB knows its condition, not its mask."""
        wanted = k + 8
        while True:
            nearest = self._nearest(query, wanted, within.predicate())
            left = nearest.filter(pa.array(rows_left(within, nearest)))
            if len(left) >= min(k + 8, self.count) or len(nearest) < wanted:
                return left
            wanted *= 4

    def _ranked(self, nearest: pa.Table, query: npt.NDArray[np.float32], k: int) -> list[Candidate]:
        intact = intact_rows(nearest, self._card)
        self.degraded |= len(intact) < len(nearest)
        return rank_rows(intact, widened(descriptor_matrix(intact)), query, k)
