"""Filter by area: rows inside of polygons."""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from storage.position import POSITION_COLUMNS
from storage.search.filters.bounds import Bounds
from storage.search.filters.errors import BadFilter
from storage.search.filters.row_positions import Anchor, degrees_of_rows

__all__ = ["MAX_VERTICES", "Inside", "Polygon", "Ring"]

Floats = npt.NDArray[np.float64]
Mask = npt.NDArray[np.bool_]
Ring = tuple[tuple[float, float], ...]
"""Corners as longitude and latitude in degrees, the first one again at the end."""
Polygon = tuple[Ring, ...]
"""An outline, and the outlines of its holes."""

MAX_VERTICES = 20_000
# Outlines that a parallel crosses more often on average are drawn to keep a searcher busy.
MAX_CROSSINGS = 200.0
_MAX_LON = 540.0
_MAX_CONDITIONS = 20  # of SQL


@dataclass(frozen=True)
class Inside:
    """Rows inside of at least one polygon; what lies on an edge or a corner is inside.

    Edges are straight lines in longitude and latitude (RFC 7946, section 3.1.1); an edge of more than 180
    degrees goes the other way around, across the 180th meridian. A row is inside of a polygon if a ray from
    it meets its outlines an odd number of times, so that an outline inside of another one is a hole.

    Attributes:
        polygons: See `Polygon`; from GeoJSON by `storage.search.filters.geojson`.

    Raises:
        BadFilter: there is none, a corner is out of range, or an outline is too intricate, has no area, or
            runs around a pole.
    """

    columns: ClassVar[tuple[str, ...]] = POSITION_COLUMNS

    polygons: tuple[Polygon, ...]

    def __post_init__(self) -> None:
        if not self.polygons or not all(self.polygons):
            raise BadFilter("there is no polygon: give a GeoJSON Polygon or MultiPolygon")
        vertices = sum(len(ring) for polygon in self.polygons for ring in polygon)
        if vertices > MAX_VERTICES:
            raise BadFilter(
                f"the polygons have {vertices} corners, {MAX_VERTICES} are read at most: simplify them"
            )
        unrolled = tuple(tuple(_unrolled(ring) for ring in polygon) for polygon in self.polygons)
        object.__setattr__(self, "polygons", unrolled)
        if _crossings(unrolled) > MAX_CROSSINGS:
            raise BadFilter("the outlines cross each parallel too often: simplify the polygons")

    def mask(self, rows: pa.Table) -> Mask:
        """Return (N,) bool: which rows are inside; those without a position are not.

        Args:
            rows: N stored rows with `columns`.
        """
        lon, lat = self.polygons[0][0][0]
        anchor = Anchor.at(lat, (lon + 180.0) % 360.0 - 180.0)
        row_lat, row_lon = degrees_of_rows(rows, anchor)
        near = np.flatnonzero(self._bounds.hold(row_lat, row_lon))
        near = near[np.argsort(row_lat[near], kind="stable")]
        inside = np.zeros(len(rows), np.bool_)
        inside[near] = _in_any(self.polygons, row_lat[near], row_lon[near])
        return inside

    def predicate(self) -> str:
        """Return a SQL condition that holds for these rows and maybe others."""
        if len(self.polygons) > _MAX_CONDITIONS:
            return self._bounds.sql()
        return f"({' OR '.join(_bounds_of(polygon).sql() for polygon in self.polygons)})"

    def bounds(self) -> Bounds:
        """Return bounds outside of which no row with degrees passes."""
        return self._bounds

    @property
    def _bounds(self) -> Bounds:
        """Bounds of all polygons; of several, all longitudes."""
        each = [_bounds_of(polygon) for polygon in self.polygons]
        if len(each) == 1:
            return each[0]
        return Bounds(min(one.south for one in each), max(one.north for one in each), 0.0, 360.0)


def _unrolled(ring: Ring) -> Ring:
    """Return a closed ring whose longitudes run on across the 180th meridian.

    Raises:
        BadFilter: it has no area, runs around a pole, or a corner is out of range.
    """
    closed = ring if ring and ring[0] == ring[-1] else (*ring, *ring[:1])
    if len(closed) < 4:
        raise BadFilter("an outline has fewer than three corners: give polygons")
    for lon, lat in closed:
        if not (abs(lat) <= 90 and abs(lon) <= _MAX_LON):
            raise BadFilter(
                f"the corner {lon:.7g},{lat:.7g} is out of range: GeoJSON has degrees, longitude first"
            )
    turns = 0.0
    corners = [closed[0]]
    for (before, _), (lon, lat) in itertools.pairwise(closed):
        if 180 < abs(lon - before) < 360:
            turns -= math.copysign(360.0, lon - before)
        corners.append((lon + turns, lat))
    if turns or _extent(corners) > 360:
        raise BadFilter("an outline runs around a pole: cut the polygon at the 180th meridian")
    return tuple(corners)


def _extent(corners: list[tuple[float, float]]) -> float:
    longitudes = [lon for lon, _ in corners]
    return max(longitudes) - min(longitudes)


def _crossings(polygons: tuple[Polygon, ...]) -> float:
    """Return how many edges a parallel between the outermost corners crosses on average."""
    rings = [[lat for _, lat in ring] for polygon in polygons for ring in polygon]
    height = max(map(max, rings)) - min(map(min, rings))
    climbed = sum(abs(b - a) for ring in rings for a, b in itertools.pairwise(ring))
    return climbed / height if height > 0 else 0.0


def _bounds_of(polygon: Polygon) -> Bounds:
    corners = np.concatenate([np.array(ring) for ring in polygon])
    if len(polygon) > 1 and _extent([tuple(corner) for corner in corners.tolist()]) > 180:
        return Bounds(float(corners[:, 1].min()), float(corners[:, 1].max()), 0.0, 360.0)
    (west, south), (east, north) = corners.min(axis=0).tolist(), corners.max(axis=0).tolist()
    return Bounds(south, north, west - 1e-7, east - west + 2e-7)


def _in_any(polygons: tuple[Polygon, ...], lat: Floats, lon: Floats) -> Mask:
    """Return which of N points are inside of any polygon.

    Args:
        polygons: With unrolled rings.
        lat: (N,) degrees, rising.
        lon: (N,) degrees.
    """
    inside = np.zeros(len(lat), np.bool_)
    for polygon in polygons:
        bounds = _bounds_of(polygon)
        begin, end = np.searchsorted(lat, bounds.south, "left"), np.searchsorted(lat, bounds.north, "right")
        here = begin + np.flatnonzero(~inside[begin:end] & bounds.hold(lat[begin:end], lon[begin:end]))
        odd, on_edge = np.zeros(len(here), np.bool_), np.zeros(len(here), np.bool_)
        for ring in polygon:
            west = min(corner for corner, _ in ring)
            turned = lon[here] - 360.0 * np.floor((lon[here] - west) / 360.0)
            _count_ring(ring, lat[here], turned, odd, on_edge)
        inside[here] = odd | on_edge
    return inside


def _count_ring(ring: Ring, lat: Floats, lon: Floats, odd: Mask, on_edge: Mask) -> None:
    """Toggle `odd` for points with a crossing to their west, and set `on_edge`; both in place.

    Args:
        ring: Closed.
        lat: (N,) degrees, rising.
        lon: (N,) degrees.
        odd: (N,) bool.
        on_edge: (N,) bool.
    """
    for (x1, y1), (x2, y2) in itertools.pairwise(ring):
        low, high = (y1, y2) if y1 <= y2 else (y2, y1)
        begin, end = np.searchsorted(lat, [low, high], side="left")
        last = int(np.searchsorted(lat, high, side="right"))
        if begin == last:
            continue
        x, y = lon[begin:last], lat[begin:last]
        # Positive where the point lies to the left of the edge, seen from its first corner.
        side = (x2 - x1) * (y - y1) - (x - x1) * (y2 - y1)
        on_edge[begin:last] |= (side == 0) & (x >= min(x1, x2)) & (x <= max(x1, x2))
        if y1 != y2:
            count = int(end - begin)
            odd[begin:end] ^= (side[:count] < 0) == (y2 > y1)
