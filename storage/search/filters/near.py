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
# The plane below is exact to 0.004 % up to here, and its error falls with the cube of the radius: five times
# that, and a millimetre. What it cannot decide is measured on the ellipsoid.
_PLANE_M, _PLANE_LAT, _DOUBT, _DOUBT_M = 50_000.0, 75.0, 2e-4, 1e-3
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

    def spans(self, south: Floats, north: Floats) -> tuple[float, Floats, Floats] | None:
        """Return how far the disc reaches to the east and the west in bands of latitude, see `Disc`."""
        bounds = self._bounds
        across = not -180 < self.lon - bounds.width / 2 < self.lon + bounds.width / 2 < 180
        if self.radius_m > _PLANE_M or abs(self.lat) > _PLANE_LAT or across:
            return None
        nearest = np.clip(self.lat, south, north)
        furthest = np.where(self.lat - south > north - self.lat, south, north)
        # Between the edges of a band, and of the equator in it, scales differ by less than the doubt here.
        scales = [_scales(lat, self.lat) for lat in (south, north, nearest)]
        least, most = (
            (np.array([scale[1] for scale in scales])).min(0),
            np.array([s[1] for s in scales]).max(0),
        )
        doubt_m = self._doubt_m + 1e-4 * self.radius_m
        outer_m = _leg(self.radius_m + doubt_m, np.radians(nearest - self.lat) * scales[2][0])
        inner_m = _leg(
            self.radius_m - doubt_m, np.radians(furthest - self.lat) * _scales(furthest, self.lat)[0]
        )
        return self.lon, np.degrees(outer_m / least), np.degrees(inner_m / most)

    @property
    def _bounds(self) -> Bounds:
        return around(self.lat, self.lon, self.radius_m)

    @property
    def _doubt_m(self) -> float:
        """How far from the radius the plane cannot decide."""
        return _DOUBT_M + _DOUBT * self.radius_m * (self.radius_m / _PLANE_M) ** 2

    def _near(self, lat: Floats, lon: Floats) -> Mask:
        if self.radius_m > _PLANE_M or abs(self.lat) > _PLANE_LAT:
            return within(self._metres(lat, lon), self.radius_m)
        roughly_m = self._plane_m(lat, lon)
        inside: Mask = roughly_m <= self.radius_m
        doubtful = np.abs(roughly_m - self.radius_m) <= self._doubt_m
        inside[doubtful] = within(self._metres(lat[doubtful], lon[doubtful]), self.radius_m)
        return inside

    def _metres(self, lat: Floats, lon: Floats) -> Floats:
        """Return the geodesic distances (Karney 2013, through PROJ)."""
        if not len(lat):
            return np.empty(0)
        here = np.full(len(lat), self.lon), np.full(len(lat), self.lat)
        return np.asarray(geodesics().inv(*here, lon, lat)[2])

    def _plane_m(self, lat: Floats, lon: Floats) -> Floats:
        """Return the distances on a plane."""
        along, across = _scales(lat, self.lat)
        turn = (lon - self.lon + 180.0) % 360.0 - 180.0
        return np.hypot(np.radians(lat - self.lat) * along, np.radians(turn) * across)


def _scales(lat: Floats, centre: float) -> tuple[Floats, Floats]:
    """Return metres per radian to the north and to the east, halfway between two latitudes (WGS84)."""
    middle = np.radians((lat + centre) / 2)
    squeezed = 1 - _E2 * np.sin(middle) ** 2
    return _A * (1 - _E2) / squeezed**1.5, (_A / np.sqrt(squeezed)) * np.cos(middle)


def _leg(hypotenuse: float, other: Floats) -> Floats:
    """Return the other leg of right-angled triangles, 0 where there is none."""
    return np.sqrt(np.maximum(0.0, max(0.0, hypotenuse) ** 2 - other**2))
