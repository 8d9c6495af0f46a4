"""Search by LanceDB in the table on disk."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from storage.card import Card
from storage.records import Candidate
from storage.search.ranking import rank_rows
from storage.table.checksums import intact_rows
from storage.table.open_table import Table
from storage.table.schema import descriptor_matrix

__all__ = ["LanceSearcher"]


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

    def search(
        self, descriptors: npt.NDArray[np.float32], *, k: int, codes: npt.NDArray[np.uint8] | None = None
    ) -> list[list[Candidate]]:
        """Return up to k candidates per query, best first, ties by image_id.

        Args:
            descriptors: (B, D) float32, unit L2 norm.
            k: Number of candidates per query.
            codes: Not used.

        Raises:
            CorruptStore: a data file cannot be read.
        """
        results = []
        for query in descriptors:
            nearest = self._table.nearest(query, min(k + 8, max(1, self.count)), rows=self.count)
            intact = intact_rows(nearest.drop_columns(["_distance"]), self._card)
            self.degraded |= len(intact) < len(nearest)
            vectors = descriptor_matrix(intact).astype(np.float32)
            results.append(rank_rows(intact, vectors, query, k))
        return results
