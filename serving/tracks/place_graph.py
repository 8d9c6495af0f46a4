"""The places of a store as a graph: views at positions, and those near each other.

Positions are points on the WGS84 ellipsoid in three dimensions where degrees are known, so that metres are
right everywhere, across zones and the 180th meridian; in a UTM zone that nothing names they lie on its plane.
Straight lines between near points are as long as those on the ground, to a millionth.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from storage.position import Positions

__all__ = ["Edges", "PlaceGraph", "Views", "points_of"]

Floats = NDArray[np.float64]
Rows = NDArray[np.int64]

_A_M, _FLATTENING = 6_378_137.0, 1 / 298.257223563  # WGS84
_SAME_M, _SAME_DEG = 0.5, 15.0  # of one view
REGION_M = 120.0  # width of the cells that a region is made of
MAX_NEAR = 64  # neighbours of one view, the nearest
_OFFSETS = np.stack(np.meshgrid(*[(-1, 0, 1)] * 3, indexing="ij"), axis=-1).reshape(-1, 3)


@dataclass(frozen=True, eq=False)
class Edges:
    """Pairs of views near each other, each with itself too, in order of source.

    Attributes:
        sources: (E,) int64.
        targets: (E,) int64.
        metres: (E,) float64.
    """

    sources: Rows
    targets: Rows
    metres: Floats


@dataclass(frozen=True, eq=False)
class Views:
    """Some views of a store: images of one position and direction count as one.

    Attributes:
        points: (V, 3) float64, metres.
        headings_deg: (V,) float64, NaN unknown.
    """

    points: Floats
    headings_deg: Floats

    def __len__(self) -> int:
        return len(self.points)

    def edges(self, reach_m: float) -> Edges:
        """Return all pairs within a distance, of each view the 64 nearest.

        Args:
            reach_m: Inclusive.
        """
        keys, order = _cells(self.points, reach_m)
        sources, targets = [], []
        for rows, views in _beside(self.points, reach_m, keys, order):
            metres = np.sqrt(((self.points[rows] - self.points[views]) ** 2).sum(axis=1))
            sources.append(rows[metres <= reach_m])
            targets.append(views[metres <= reach_m])
        source, target = (np.concatenate([*each, np.empty(0, np.int64)]) for each in (sources, targets))
        metres = np.sqrt(((self.points[source] - self.points[target]) ** 2).sum(axis=1))
        by_distance = np.lexsort((target, metres, source))
        source, target, metres = source[by_distance], target[by_distance], metres[by_distance]
        kept = np.arange(len(source)) - np.searchsorted(source, source, "left") < MAX_NEAR
        return Edges(source[kept], target[kept], metres[kept])


class PlaceGraph:
    """All views of a store, and which image has which.

    Args:
        points: (R, 3) float64 metres of each image, NaN unknown.
        headings_deg: (R,) float64, NaN unknown.

    Attributes:
        view_of: (R,) int64, the view of each image; -1 without a position.
        views: All V.
        image_of: (V,) int64, an image of each view.
    """

    def __init__(self, points: Floats, headings_deg: Floats) -> None:
        known = np.isfinite(points).all(axis=1)
        keys = np.full((len(points), 4), -1, np.int64)
        keys[known, :3] = np.round(points[known] / _SAME_M)
        turned = known & np.isfinite(headings_deg)
        bins = round(360 / _SAME_DEG)
        keys[turned, 3] = np.round((headings_deg[turned] % 360.0) / _SAME_DEG).astype(np.int64) % bins
        kept = np.flatnonzero(known)
        _, first, inverse = np.unique(keys[kept], axis=0, return_index=True, return_inverse=True)
        self.view_of = np.full(len(points), -1, np.int64)
        self.view_of[kept] = inverse.reshape(-1)
        self.image_of = kept[first]
        self.views = Views(points[self.image_of], headings_deg[self.image_of])
        self._keys, self._order = _cells(self.views.points, REGION_M)

    def around(self, views: Rows) -> Rows:
        """Return the sorted views in the cells of 120 m of some views and beside them."""
        points = self.views.points[views]
        cells = np.unique(np.floor(points / REGION_M).astype(np.int64), axis=0)
        middles = (cells.astype(np.float64) + 0.5) * REGION_M
        found = [near for _, near in _beside(middles, REGION_M, self._keys, self._order)]
        return np.unique(np.concatenate([views, *found]))


def _cells(points: Floats, width_m: float) -> tuple[Rows, Rows]:
    """Return the sorted keys of the cells that points lie in, and the points in that order."""
    keys = _packed(np.floor(points / width_m).astype(np.int64))
    order = np.argsort(keys, kind="stable")
    return keys[order], order


def _beside(points: Floats, width_m: float, keys: Rows, order: Rows) -> list[tuple[Rows, Rows]]:
    """Return pairs of points and what lies in their cell and the 26 around it, in parts."""
    cells, parts = np.floor(points / width_m).astype(np.int64), []
    for offset in _OFFSETS:
        wanted = _packed(cells + offset)
        low, high = np.searchsorted(keys, wanted, "left"), np.searchsorted(keys, wanted, "right")
        rows = np.repeat(np.arange(len(points)), high - low)
        ends = np.cumsum(high - low)
        within = np.arange(len(rows)) - np.repeat(ends - (high - low), high - low)
        parts.append((rows, order[np.repeat(low, high - low) + within]))
    return parts


def _packed(cells: Rows) -> Rows:
    """Return one number per cell of a grid, 21 bits per axis; cells of 13 m and more do not repeat."""
    shifted = (cells + (1 << 20)) & ((1 << 21) - 1)
    return np.asarray((shifted[:, 0] << 42) | (shifted[:, 1] << 21) | shifted[:, 2])


def points_of(positions: Positions) -> Floats:
    """Return (N, 3) float64: points in metres whose distances are those on the ground; NaN unknown."""
    degrees = positions.in_degrees()
    known = np.isfinite(degrees).all(axis=1)
    planar = np.isfinite(positions.utm_m).all(axis=1)
    points = np.full((len(positions), 3), np.nan)
    if not known.any() and planar.any():  # a zone that nothing names
        points[planar] = np.column_stack([positions.utm_m[planar], np.zeros(int(planar.sum()))])
        return points
    lat, lon = np.radians(degrees[known]).T
    square = _FLATTENING * (2 - _FLATTENING)
    normal = _A_M / np.sqrt(1 - square * np.sin(lat) ** 2)
    points[known] = np.stack(
        [
            normal * np.cos(lat) * np.cos(lon),
            normal * np.cos(lat) * np.sin(lon),
            normal * (1 - square) * np.sin(lat),
        ],
        axis=1,
    )
    return points
