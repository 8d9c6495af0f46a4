"""The places of a store as a drive needs them, read once per version."""

from __future__ import annotations

import math
import threading
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from serving.tracks.place_graph import PlaceGraph, points_of
from storage.position import POSITION_COLUMNS, Position, Positions
from storage.search.snapshot import Snapshot

__all__ = ["CityMap", "CityMaps"]

Rows = NDArray[np.int64]


class CityMap:
    """Ids, positions and views of all images of one version.

    Args:
        rows: With `image_id`, the position columns and, where it is known, `heading_deg`.

    Attributes:
        graph: Their views.
        positions: Of all R images.
    """

    def __init__(self, rows: pa.Table) -> None:
        numbers: dict[str, Any] = {
            name: _numbers(rows, name) for name in POSITION_COLUMNS if name != "utm_zone"
        }
        zones = rows["utm_zone"].to_pylist() if "utm_zone" in rows.schema.names else [None] * rows.num_rows
        self.positions = Positions.from_columns({**numbers, "utm_zone": zones})
        self._numbers, self._zones = numbers, zones
        self.graph = PlaceGraph(points_of(self.positions), _numbers(rows, "heading_deg"))
        self._ids = pa.array(rows["image_id"].combine_chunks())

    def __len__(self) -> int:
        return len(self._ids)

    @classmethod
    def of(cls, snapshot: Snapshot) -> CityMap:
        """Read the places of a version."""
        table = snapshot.table
        names = ("image_id", *POSITION_COLUMNS, "heading_deg")
        present = [name for name in names if name in table.schema.names]
        batches = list(table.scan(present))
        return cls(pa.concat_tables(batches) if batches else table.take([], present))

    def rows_of(self, image_ids: Iterable[str]) -> dict[str, int]:
        """Return the row of each image that is here."""
        wanted = pa.array(sorted(set(image_ids)), pa.string())
        found = pc.index_in(wanted, value_set=self._ids.cast(pa.string()))
        pairs: Sequence[tuple[Any, Any]] = list(zip(wanted.to_pylist(), found.to_pylist(), strict=True))
        return {image_id: row for image_id, row in pairs if row is not None}

    def image_id(self, row: int) -> str:
        """Return the id of an image."""
        return str(self._ids[row].as_py())

    def position(self, row: int) -> Position:
        """Return the position of an image as it is stored."""
        values = {name: float(column[row]) for name, column in self._numbers.items()}
        known = {name: value for name, value in values.items() if math.isfinite(value)}
        return Position(**known, utm_zone=self._zones[row])

    def columns_of_views(self, views: Rows) -> Positions:
        """Return the positions of views."""
        return self.positions.take(self.graph.image_of[views])


def _numbers(rows: pa.Table, name: str) -> NDArray[np.float64]:
    """Return a column, NaN where it is missing."""
    if name not in rows.schema.names:
        return np.full(rows.num_rows, np.nan)
    column = rows[name].cast(pa.float64()).fill_null(np.nan)
    return np.asarray(column.to_numpy(), np.float64)


class CityMaps:
    """Keeps the map of the newest version that was asked for; threads may share it."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._version: object = None
        self._map: CityMap | None = None

    def of(self, snapshot: Snapshot) -> CityMap:
        """Return the map of a version."""
        with self._lock:
            if self._map is None or self._version != snapshot.version:
                self._map, self._version = CityMap.of(snapshot), snapshot.version
            return self._map
