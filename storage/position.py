"""Geographic positions and the distances between them: the only place where placeray measures metres.

Evaluation protocols use the Euclidean distance in UTM, which is defined within one zone. Between different
zones or hemispheres the distance is the geodesic on the WGS84 ellipsoid instead (Karney, "Algorithms for
geodesics", Journal of Geodesy 2013, through PROJ).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import utm

from storage.utm_zones import NORTH, SOUTH, UNKNOWN, project, project_missing, same_zone, split_zone

if TYPE_CHECKING:
    import pyproj

__all__ = ["POSITION_COLUMNS", "Position", "Positions", "geodesics", "within"]

Floats = npt.NDArray[np.float64]
Rows = npt.NDArray[np.int64]

POSITION_COLUMNS = ("lat", "lon", "utm_e", "utm_n", "utm_zone")

# File names carry centimetres: the slack keeps 25.00 m inclusive in binary arithmetic.
_SLACK_M = 1e-6


@dataclass(frozen=True, slots=True)
class Position:
    """Where a photo was taken: in degrees, in UTM, in both, or unknown.

    Attributes:
        lat: Latitude in degrees (WGS84), or None.
        lon: Longitude in degrees (WGS84), or None.
        utm_e: UTM easting in metres, or None.
        utm_n: UTM northing in metres, or None.
        utm_zone: UTM zone with its band letter, such as `33U`, or without, such as `33`; None when unknown.
    """

    lat: float | None = None
    lon: float | None = None
    utm_e: float | None = None
    utm_n: float | None = None
    utm_zone: str | None = None

    @classmethod
    def of(cls, row: Mapping[str, Any]) -> Position:
        """Read the position from a row with any of `POSITION_COLUMNS`."""
        return cls(**{name: row[name] for name in POSITION_COLUMNS if row.get(name) is not None})

    @property
    def known(self) -> bool:
        """Whether there is a position in either system."""
        return self.lat is not None or self.utm_e is not None

    def to_dict(self) -> dict[str, Any]:
        """Return the values by column name."""
        return {name: getattr(self, name) for name in POSITION_COLUMNS}

    def completed(self) -> Position:
        """Return the position in both systems where one follows from the other.

        Converting UTM to degrees requires the band letter of the zone.

        Raises:
            ValueError: the coordinates are outside the range of UTM.
        """
        if self.utm_e is None and self.lat is not None:
            e, n, number, letter = utm.from_latlon(self.lat, self.lon)
            return dataclasses.replace(self, utm_e=float(e), utm_n=float(n), utm_zone=f"{number}{letter}")
        zone = self.utm_zone or ""
        if self.lat is None and self.utm_e is not None and zone[-1:].isalpha():
            lat, lon = utm.to_latlon(self.utm_e, self.utm_n, int(zone[:-1]), zone[-1])
            return dataclasses.replace(self, lat=float(lat), lon=float(lon))
        return self

    def distance_m(self, other: Position) -> float | None:
        """Return the distance in metres, or None where either position is unknown.

        Euclidean in UTM within one zone, geodesic between two. An unknown zone or hemisphere is assumed to be
        that of the other position; if both hemispheres are unknown, northern.
        """
        distance = float(Positions.of([self]).distances_m(other)[0])
        return None if np.isnan(distance) else distance


@dataclass(frozen=True, eq=False)
class Positions:
    """N positions as columns; unknown values are NaN.

    Attributes:
        utm_m: (N, 2) float64, easting and northing in metres.
        degrees: (N, 2) float64, latitude and longitude.
        zones: (N,) int64, number of the UTM zone; 0 when unknown.
        hemispheres: (N,) int64, 0 northern, 1 southern, -1 unknown.
    """

    utm_m: Floats
    degrees: Floats
    zones: Rows
    hemispheres: Rows

    @classmethod
    def of(cls, positions: Sequence[Position]) -> Positions:
        """Convert a sequence of positions to columns."""
        return cls.from_columns(
            {name: [getattr(position, name) for position in positions] for name in POSITION_COLUMNS}
        )

    @classmethod
    def from_columns(cls, columns: Mapping[str, Sequence[Any]]) -> Positions:
        """Read positions from columns named as `POSITION_COLUMNS`; None and NaN are unknown.

        Args:
            columns: Each with N values. Columns may be left out.
        """
        count = len(next(iter(columns.values())))
        number = {
            name: np.array(columns.get(name, [None] * count), dtype=np.float64)
            for name in ("lat", "lon", "utm_e", "utm_n")
        }
        zones = [split_zone(zone) for zone in columns.get("utm_zone", [None] * count)]
        degrees = np.stack([number["lat"], number["lon"]], axis=1)
        hemispheres = np.array([hemisphere for _, hemisphere in zones], np.int64)
        unknown = (hemispheres == UNKNOWN) & np.isfinite(degrees[:, 0])
        hemispheres[unknown] = np.where(degrees[unknown, 0] < 0, SOUTH, NORTH)
        utm_m = np.stack([number["utm_e"], number["utm_n"]], axis=1)
        numbers = np.array([zone for zone, _ in zones], np.int64)
        project_missing(utm_m, degrees, numbers, hemispheres)
        return cls(utm_m, degrees, numbers, hemispheres)

    def __len__(self) -> int:
        return len(self.zones)

    @property
    def known(self) -> npt.NDArray[np.bool_]:
        """(N,) bool: which positions are known in either system."""
        return np.asarray(np.isfinite(self.utm_m).all(axis=1) | np.isfinite(self.degrees).all(axis=1))

    def take(self, rows: Rows | npt.NDArray[np.bool_]) -> Positions:
        """Return the selected positions.

        Args:
            rows: Row numbers, or an (N,) bool mask.
        """
        return Positions(self.utm_m[rows], self.degrees[rows], self.zones[rows], self.hemispheres[rows])

    def distances_m(self, other: Position) -> Floats:
        """Return (N,) float64: metres to one position, NaN where unknown; as `Position.distance_m`."""
        return self.paired_distances_m(Positions.of([other]).take(np.zeros(len(self), np.int64)))

    def paired_distances_m(self, others: Positions) -> Floats:
        """Return (N,) float64: metres between row i of both, NaN where unknown; as `Position.distance_m`."""
        planar = same_zone(self.zones, self.hemispheres, others.zones, others.hemispheres)
        planar &= np.isfinite(self.utm_m).all(axis=1) & np.isfinite(others.utm_m).all(axis=1)
        distances: Floats = np.hypot(*(self.utm_m - others.utm_m).T)
        if planar.all():
            return distances
        rest = ~planar
        distances[rest] = self.take(rest)._geodesic_m(others.take(rest))
        return distances

    def in_degrees(self, hemispheres: Rows | int = UNKNOWN) -> Floats:
        """Return (N, 2) float64: latitude and longitude, computed from UTM where they are missing.

        Args:
            hemispheres: Assumed where a position's own is unknown; northern where both are.
        """
        degrees = self.degrees.copy()
        hemisphere = np.where(self.hemispheres == UNKNOWN, hemispheres, self.hemispheres)
        missing = ~np.isfinite(degrees).all(axis=1) & np.isfinite(self.utm_m).all(axis=1) & (self.zones > 0)
        for zone in np.unique(self.zones[missing]):
            for south in (False, True):
                rows = missing & (self.zones == zone) & ((hemisphere == SOUTH) == south)
                if rows.any():
                    east, north = self.utm_m[rows].T
                    degrees[rows] = np.stack(
                        utm.to_latlon(east, north, int(zone), northern=not south, strict=False), axis=1
                    )
        return degrees

    def on_one_plane(self) -> Floats:
        """Return (N, 2) float64: metres in the zone of the first position whose zone is known, for maps.

        Positions that cannot be projected into that zone are NaN.
        """
        planar = np.isfinite(self.utm_m).all(axis=1)
        zoned = np.flatnonzero(planar & (self.zones > 0))
        if not len(zoned):
            return self.utm_m
        zone, hemisphere = self.zones[zoned[0]], self.hemispheres[zoned[0]]
        rest = self.known & ~(planar & same_zone(self.zones, self.hemispheres, zone, hemisphere))
        points = self.utm_m.copy()
        if rest.any():
            degrees = self.take(rest).in_degrees(hemisphere)
            rest[rest] = in_range = (degrees[:, 0] >= -80) & (degrees[:, 0] <= 84)
            points[rest] = project(degrees[in_range], int(zone), south=bool(hemisphere == SOUTH))
        return points

    def _geodesic_m(self, others: Positions) -> Floats:
        mine, theirs = self.in_degrees(others.hemispheres), others.in_degrees(self.hemispheres)
        metres = np.full(len(self), np.nan)
        known = np.isfinite(mine).all(axis=1) & np.isfinite(theirs).all(axis=1)
        if known.any():
            (lat, lon), (other_lat, other_lon) = mine[known].T, theirs[known].T
            metres[known] = geodesics().inv(lon, lat, other_lon, other_lat)[2]
        return metres


def within(distances_m: Floats, radius_m: float) -> npt.NDArray[np.bool_]:
    """Return which distances are within a radius, inclusive; unknown ones (NaN) are not."""
    inside: npt.NDArray[np.bool_] = distances_m <= radius_m + _SLACK_M
    return inside


@cache
def geodesics() -> pyproj.Geod:
    """Return the geodesics of the WGS84 ellipsoid."""
    import pyproj  # 40 ms, for the few cities that a border of zones runs through

    return pyproj.Geod(ellps="WGS84")
