"""Ground truth of an evaluation: the stored images that are right for each query."""

from __future__ import annotations

import pyarrow as pa

from storage.neighbourhoods import nearby
from storage.position import POSITION_COLUMNS, Position, Positions

__all__ = ["GroundTruth", "positions_of"]


class GroundTruth:
    """The stored images within a distance of each query.

    Args:
        queries: Rows with `POSITION_COLUMNS`, one per query.
        database: Rows with `image_id` and `POSITION_COLUMNS`, one per stored image.
        threshold_m: Distance up to which a stored image is right, in metres, inclusive.

    Attributes:
        positions: Where the queries were taken.
        database_without_coordinates: Stored images that are right for no query.
    """

    def __init__(self, queries: pa.Table, database: pa.Table, threshold_m: float) -> None:
        self.positions = [Position.of(row) for row in queries.select(POSITION_COLUMNS).to_pylist()]
        stored = positions_of(database)
        self.database_without_coordinates = int((~stored.known).sum())
        self._image_ids = database["image_id"].to_pylist()
        self._near = nearby(Positions.of(self.positions), stored, threshold_m)

    def positives(self, query: int) -> frozenset[str]:
        """Return the `image_id`s that are right for the query of a row."""
        return frozenset(self._image_ids[row] for row in self._near.of(query))


def positions_of(table: pa.Table) -> Positions:
    """Return the positions in the rows of a table with `POSITION_COLUMNS`; those it lacks are unknown."""
    names = [name for name in POSITION_COLUMNS if name in table.column_names]
    return Positions.from_columns({name: table[name].to_pylist() for name in names})
