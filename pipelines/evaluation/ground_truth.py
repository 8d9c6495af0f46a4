"""Ground truth of an evaluation: the stored images that are right for each query, by distance or by frame."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from pipelines.evaluation.query_places import places_of
from storage.neighbourhoods import nearby
from storage.position import POSITION_COLUMNS, Position, Positions

__all__ = ["FrameTruth", "GroundTruth", "Truth", "positions_of"]


class Truth(Protocol):
    """Which stored images are right for each query.

    Attributes:
        positions: Where the queries were taken.
        database_without_coordinates: Stored images that are right for no query.
        rule: In words.
    """

    positions: list[Position]
    database_without_coordinates: int
    rule: str

    def positives(self, query: int) -> frozenset[str]:
        """Return the `image_id`s that are right for the query of a row."""

    def clusters(self) -> NDArray[np.int64]:
        """Return (Q,) the place that each query is of."""


class GroundTruth:
    """The stored images within a distance of each query.

    Args:
        queries: Rows with `POSITION_COLUMNS`, one per query.
        database: Rows with `image_id` and `POSITION_COLUMNS`, one per stored image.
        threshold_m: Distance up to which a stored image is right, in metres, inclusive.

    Attributes:
        positions: Where the queries were taken.
        database_without_coordinates: Stored images that are right for no query.
        rule: In words.
    """

    def __init__(self, queries: pa.Table, database: pa.Table, threshold_m: float) -> None:
        self.positions = [Position.of(row) for row in queries.select(POSITION_COLUMNS).to_pylist()]
        stored = positions_of(database)
        self.database_without_coordinates = int((~stored.known).sum())
        self.rule = f"right within {threshold_m:g} m, inclusive"
        self._threshold_m = threshold_m
        self._image_ids = database["image_id"].to_pylist()
        self._near = nearby(Positions.of(self.positions), stored, threshold_m)

    def positives(self, query: int) -> frozenset[str]:
        """Return the `image_id`s that are right for the query of a row."""
        return frozenset(self._image_ids[row] for row in self._near.of(query))

    def clusters(self) -> NDArray[np.int64]:
        """Return (Q,) the place that each query is of: those within twice the threshold of its first."""
        return places_of(self.positions, 2.0 * self._threshold_m)


class FrameTruth:
    """The stored images within some frames of each query, of a drive that was repeated.

    Args:
        rows: The queries, with `uri` and `POSITION_COLUMNS`.
        database: Rows of the store, with `image_id` and `uri`.
        query_frames: Frame number of each query by path.
        database_frames: Frame number of each database image by path, or by id where the path is another.
        tolerance: Frames to either side, inclusive.

    Attributes:
        positions: Where the queries were taken; unknown where nobody says.
        database_without_coordinates: Stored images that are of no frame.
        rule: In words.
    """

    def __init__(
        self,
        rows: Sequence[Mapping[str, Any]],
        database: pa.Table,
        *,
        query_frames: Mapping[str, int],
        database_frames: Mapping[str, int],
        tolerance: int,
    ) -> None:
        self.positions = [Position.of(row) for row in rows]
        self.rule = f"right within {tolerance} frames to either side"
        self._tolerance = tolerance
        self._frames = [query_frames[row["uri"]] for row in rows]
        self._images: dict[int, list[str]] = {}
        known = 0
        for row in database.select(["image_id", "uri"]).to_pylist():
            frame = database_frames.get(row["uri"], database_frames.get(row["image_id"]))
            if frame is not None:
                self._images.setdefault(frame, []).append(row["image_id"])
                known += 1
        self.database_without_coordinates = database.num_rows - known

    def positives(self, query: int) -> frozenset[str]:
        """Return the `image_id`s that are right for the query of a row."""
        frame, reach = self._frames[query], self._tolerance
        return frozenset(
            image_id
            for number in range(frame - reach, frame + reach + 1)
            for image_id in self._images.get(number, ())
        )

    def clusters(self) -> NDArray[np.int64]:
        """Return (Q,) the place that each query is of: blocks of frames that can share a right answer."""
        return np.array(self._frames, np.int64) // (2 * self._tolerance + 1)


def positions_of(table: pa.Table) -> Positions:
    """Return the positions in the rows of a table with `POSITION_COLUMNS`; those it lacks are unknown."""
    names = [name for name in POSITION_COLUMNS if name in table.column_names]
    return Positions.from_columns({name: table[name].to_pylist() for name in names})
