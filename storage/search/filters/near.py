"""Filter by distance: rows within a radius of a position."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from storage.position import POSITION_COLUMNS, geodesics, within
from storage.search.filters.bounds import Bounds, around
from storage.search.filters.errors import BadFilter
from storage.search.filters.row_positions import Anchor, degrees_of_rows

__all__ = ["MAX_RADIUS_M", "Near"]

Floats = npt.NDArray[np.float64]
Mask = npt.NDArray[np.bool_]

MAX_RADIUS_M = 20_004_000.0  # half a meridian: everywhere
# The plane below is exact to 0.01 % up to here; what it cannot decide is measured on the ellipsoid.
_PLANE_M, _PLANE_LAT, _DOUBT = 50_000.0, 75.0, 0.002
_A, _E2 = 6_378_137.0, 0.00669437999014132  # WGS84


@dataclass(frozen=True)
class Near:
    """Rows whose position is within a radius, by the geodesic on the WGS84 ellipsoid.

    Exact in every UTM zone, across the 180th meridian and at the poles.

    Attributes:
        lat: Latitude in degrees.
        lon: Longitude in degrees, -180 to 180.
        radius_m: In metres, inclusive.

    Raises:
        BadFilter: a value is out of range.
    """

    columns: ClassVar[tuple[str, ...]] = POSITION_COLUMNS

    lat: float
    lon: float
    radius_m: float

    def __post_init__(self) -> None:
        if not (abs(self.lat) <= 90 and abs(self.lon) <= 180):
            raise BadFilter(
                f"{self.lat},{self.lon} is not a position: give latitude and longitude in degrees, "
                "such as 48.137,11.575"
            )
        if not 0 < self.radius_m <= MAX_RADIUS_M:
            raise BadFilter(
                f"a radius of {self.radius_m:g} m cannot be searched: give one above 0 and up to "
                f"{MAX_RADIUS_M:.0f}"
            )

    def mask(self, rows: pa.Table) -> Mask:
        """Return (N,) bool: which rows are near; those without a position are not.

        Args:
            rows: N stored rows with `columns`.
        """
        lat, lon = degrees_of_rows(rows, Anchor.at(self.lat, self.lon))
        inside = self._bounds.hold(lat, lon)
        left = np.flatnonzero(inside)
        inside[left] = self._near(lat[left], lon[left])
        return inside

    def predicate(self) -> str:
        """Return a SQL condition that holds for these rows and maybe others."""
        return self._bounds.sql()

    def bounds(self) -> Bounds:
        """Return bounds outside of which no row with degrees passes."""
        return self._bounds

    @property
    def _bounds(self) -> Bounds:
        return around(self.lat, self.lon, self.radius_m)

    def _near(self, lat: Floats, lon: Floats) -> Mask:
        if self.radius_m > _PLANE_M or abs(self.lat) > _PLANE_LAT:
            return within(self._metres(lat, lon), self.radius_m)
        roughly_m = self._plane_m(lat, lon)
        inside: Mask = roughly_m <= self.radius_m
        doubtful = np.abs(roughly_m - self.radius_m) <= _DOUBT * self.radius_m + 1e-3
        inside[doubtful] = within(self._metres(lat[doubtful], lon[doubtful]), self.radius_m)
        return inside

    def _metres(self, lat: Floats, lon: Floats) -> Floats:
        """Return the geodesic distances (Karney 2013, through PROJ)."""
        if not len(lat):
            return np.empty(0)
        here = np.full(len(lat), self.lon), np.full(len(lat), self.lat)
        return np.asarray(geodesics().inv(*here, lon, lat)[2])

    def _plane_m(self, lat: Floats, lon: Floats) -> Floats:
        """Return the distances on a plane, scaled by the radii of curvature halfway to each row."""
        middle = np.radians((lat + self.lat) / 2)
        squeezed = 1 - _E2 * np.sin(middle) ** 2
        north = np.radians(lat - self.lat) * (_A * (1 - _E2) / squeezed**1.5)
        turn = (lon - self.lon + 180.0) % 360.0 - 180.0
        east = np.radians(turn) * (_A / np.sqrt(squeezed)) * np.cos(middle)
        return np.hypot(east, north)
