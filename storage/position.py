"""Positions on the earth, and the distances between them. Nothing else in placeray measures metres.

The protocols of the field measure Euclidean distance in UTM, within one zone. Zones have coordinates of their
own, so where two positions lie in different zones, or on different sides of the equator, the geodesic on the
WGS84 ellipsoid is measured instead (Karney 2013, through PROJ).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import utm

if TYPE_CHECKING:
    import pyproj

__all__ = ["POSITION_COLUMNS", "Neighbourhoods", "Position", "Positions", "nearby", "within"]

Floats = npt.NDArray[np.float64]
Rows = npt.NDArray[np.int64]

POSITION_COLUMNS = ("lat", "lon", "utm_e", "utm_n", "utm_zone")

# File names carry centimetres: the slack keeps 25.00 m inclusive in binary arithmetic.
_SLACK_M = 1e-6
_UNKNOWN, _NORTH, _SOUTH = -1, 0, 1
_BANDS = "CDEFGHJKLMNPQRSTUVWX"
_SOUTHERN_BANDS = "CDEFGHJKLM"
_METRES_PER_DEGREE = 110_000.0  # of latitude, at the least


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
        """Take the position out of a row with any of `POSITION_COLUMNS`."""
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

        Degrees follow from UTM only where the zone's band letter is known.

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

        Euclidean in UTM within one zone, geodesic between two. A zone that is unknown is taken for the other
        one's; a half of the globe that is unknown likewise, and for the northern one where neither is known.
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
        halves: (N,) int64, half of the globe: 0 northern, 1 southern, -1 unknown.
    """

    utm_m: Floats
    degrees: Floats
    zones: Rows
    halves: Rows

    @classmethod
    def of(cls, positions: Sequence[Position]) -> Positions:
        """Gather single positions."""
        return cls.from_columns(
            {name: [getattr(position, name) for position in positions] for name in POSITION_COLUMNS}
        )

    @classmethod
    def from_columns(cls, columns: Mapping[str, Sequence[Any]]) -> Positions:
        """Take positions out of columns named as `POSITION_COLUMNS`; None and NaN are unknown.

        Args:
            columns: Each with N values. Columns may be left out.
        """
        count = len(next(iter(columns.values())))
        number = {
            name: np.array(columns.get(name, [None] * count), dtype=np.float64)
            for name in ("lat", "lon", "utm_e", "utm_n")
        }
        zones = [_split_zone(zone) for zone in columns.get("utm_zone", [None] * count)]
        degrees = np.stack([number["lat"], number["lon"]], axis=1)
        halves = np.array([half for _, half in zones], np.int64)
        unknown = (halves == _UNKNOWN) & np.isfinite(degrees[:, 0])
        halves[unknown] = np.where(degrees[unknown, 0] < 0, _SOUTH, _NORTH)
        utm_m = np.stack([number["utm_e"], number["utm_n"]], axis=1)
        numbers = np.array([zone for zone, _ in zones], np.int64)
        _projected_where_missing(utm_m, degrees, numbers, halves)
        return cls(utm_m, degrees, numbers, halves)

    def __len__(self) -> int:
        return len(self.zones)

    @property
    def known(self) -> npt.NDArray[np.bool_]:
        """(N,) bool: which positions are known in either system."""
        return np.asarray(np.isfinite(self.utm_m).all(axis=1) | np.isfinite(self.degrees).all(axis=1))

    def take(self, rows: Rows | npt.NDArray[np.bool_]) -> Positions:
        """Return some of the positions, by row or by mask."""
        return Positions(self.utm_m[rows], self.degrees[rows], self.zones[rows], self.halves[rows])

    def distances_m(self, other: Position) -> Floats:
        """Return (N,) float64: metres to one position, NaN where unknown; as `Position.distance_m`."""
        return self._to(Positions.of([other]).take(np.zeros(len(self), np.int64)))

    def on_one_plane(self) -> Floats:
        """Return (N, 2) float64: metres in the zone of the first position whose zone is known, for maps."""
        planar = np.isfinite(self.utm_m).all(axis=1)
        zoned = np.flatnonzero(planar & (self.zones > 0))
        if not len(zoned):
            return self.utm_m
        zone, half = self.zones[zoned[0]], self.halves[zoned[0]]
        rest = self.known & ~(planar & _same_zone(self.zones, self.halves, zone, half))
        points = self.utm_m.copy()
        if rest.any():
            degrees = self.take(rest)._in_degrees(half)
            rest[rest] = in_range = (degrees[:, 0] >= -80) & (degrees[:, 0] <= 84)
            points[rest] = _project(degrees[in_range], int(zone), south=bool(half == _SOUTH))
        return points

    def _to(self, others: Positions) -> Floats:
        """Return (N,) float64: the distance of each pair of rows."""
        planar = _same_zone(self.zones, self.halves, others.zones, others.halves)
        planar &= np.isfinite(self.utm_m).all(axis=1) & np.isfinite(others.utm_m).all(axis=1)
        distances: Floats = np.hypot(*(self.utm_m - others.utm_m).T)
        if planar.all():
            return distances
        rest = ~planar
        distances[rest] = self.take(rest)._geodesic_m(others.take(rest))
        return distances

    def _geodesic_m(self, others: Positions) -> Floats:
        mine, theirs = self._in_degrees(others.halves), others._in_degrees(self.halves)
        metres = np.full(len(self), np.nan)
        known = np.isfinite(mine).all(axis=1) & np.isfinite(theirs).all(axis=1)
        if known.any():
            (lat, lon), (other_lat, other_lon) = mine[known].T, theirs[known].T
            metres[known] = _geod().inv(lon, lat, other_lon, other_lat)[2]
        return metres

    def _in_degrees(self, halves: Rows | int = _UNKNOWN) -> Floats:
        """Return (N, 2) float64: latitude and longitude, computed from UTM where they are missing.

        Args:
            halves: Half of the globe for positions that do not say; where that is unknown too: northern.
        """
        degrees = self.degrees.copy()
        half = np.where(self.halves == _UNKNOWN, halves, self.halves)
        missing = ~np.isfinite(degrees).all(axis=1) & np.isfinite(self.utm_m).all(axis=1) & (self.zones > 0)
        for zone in np.unique(self.zones[missing]):
            for south in (False, True):
                rows = missing & (self.zones == zone) & ((half == _SOUTH) == south)
                if rows.any():
                    east, north = self.utm_m[rows].T
                    degrees[rows] = np.stack(
                        utm.to_latlon(east, north, int(zone), northern=not south, strict=False), axis=1
                    )
        return degrees


@dataclass(frozen=True)
class Neighbourhoods:
    """Rows near each of Q positions, end to end: those of position i are `rows[ends[i]:ends[i + 1]]`.

    Attributes:
        rows: (M,) int64, sorted for each position.
        ends: (Q + 1,) int64.
        distances_m: (M,) float64.
    """

    rows: Rows
    ends: Rows
    distances_m: Floats

    def of(self, position: int) -> Rows:
        """Return the sorted rows near one position."""
        return self.rows[self.ends[position] : self.ends[position + 1]]

    def counts(self) -> Rows:
        """Return (Q,) int64: how many rows are near each position."""
        return np.diff(self.ends)

    def up_to(self, radius_m: float) -> Neighbourhoods:
        """Return those within a smaller radius, inclusive."""
        near = within(self.distances_m, radius_m)
        before = np.concatenate([[0], np.cumsum(near)])
        return Neighbourhoods(self.rows[near], before[self.ends], self.distances_m[near])


def within(distances_m: Floats, radius_m: float) -> npt.NDArray[np.bool_]:
    """Return which distances are within a radius, inclusive; unknown ones (NaN) are not."""
    inside: npt.NDArray[np.bool_] = distances_m <= radius_m + _SLACK_M
    return inside


def nearby(positions: Positions, others: Positions, radius_m: float) -> Neighbourhoods:
    """Find the others within a radius of each position; unknown positions are near nothing.

    Args:
        positions: Q positions.
        others: M positions.
        radius_m: In metres, inclusive.
    """
    rows = [np.empty(0, np.int64)] * len(positions)
    metres = [np.empty(0)] * len(positions)
    planar = np.isfinite(positions.utm_m).all(axis=1)
    groups = np.stack([positions.zones, positions.halves], axis=1)
    for group in np.unique(groups[planar], axis=0):
        members = np.flatnonzero(planar & (groups == group).all(axis=1))
        here = positions.take(members)
        reached, points, foreign = _in_zone_of(here, others, radius_m)
        for i, near in zip(members, _cells(here.utm_m, points, 1.02 * radius_m + 1.0), strict=True):
            distances = np.hypot(*(points[near] - positions.utm_m[i]).T)
            if foreign[near].any():
                across = others.take(reached[near[foreign[near]]])
                distances[foreign[near]] = across._to(positions.take(np.full(len(across), i)))
            inside = np.flatnonzero(within(distances, radius_m))
            order = inside[np.argsort(reached[near[inside]])]
            rows[i], metres[i] = reached[near[order]], distances[order]
    # Beyond the range of UTM there are too few to need cells.
    for i in np.flatnonzero(positions.known & ~planar):
        distances = others._to(positions.take(np.full(len(others), i)))
        rows[i] = np.flatnonzero(within(distances, radius_m))
        metres[i] = distances[rows[i]]
    ends = np.concatenate([[0], np.cumsum([len(found) for found in rows])]).astype(np.int64)
    return Neighbourhoods(np.concatenate([*rows, ends[:0]]), ends, np.concatenate([*metres, np.empty(0)]))


def _in_zone_of(
    here: Positions, others: Positions, radius_m: float
) -> tuple[Rows, Floats, npt.NDArray[np.bool_]]:
    """Put others that may be near into the coordinates of one zone.

    Args:
        here: Positions of one zone and half.
        others: Of any.
        radius_m: How far they may be from one of `here`.

    Returns:
        rows: (P,) int64 of the others.
        points: (P, 2) float64, metres in the zone of `here`.
        foreign: (P,) bool, whose own zone is another one.
    """
    same = _same_zone(here.zones[:1], here.halves[:1], others.zones, others.halves)
    planar = np.flatnonzero(same & np.isfinite(others.utm_m).all(axis=1))
    rest = np.flatnonzero(others.known & ~same)
    if not len(rest):
        return planar, others.utm_m[planar], np.zeros(len(planar), bool)
    centre, places = here._in_degrees(), others.take(rest)._in_degrees(here.halves[:1])
    low, high = np.nanmin(centre, axis=0), np.nanmax(centre, axis=0)
    reach = 1.1 * radius_m / _METRES_PER_DEGREE + 1e-6
    close = (places[:, 0] >= low[0] - reach) & (places[:, 0] <= high[0] + reach)
    across = reach / max(0.01, np.cos(np.radians(min(89.0, np.abs([low[0], high[0]]).max() + reach))))
    # Longitudes meet at 180 degrees.
    middle, half = (low[1] + high[1]) / 2, (high[1] - low[1]) / 2 + across
    close &= np.abs((places[:, 1] - middle + 180) % 360 - 180) <= half
    rest, places = rest[close], places[close]
    if not len(rest):
        return planar, others.utm_m[planar], np.zeros(len(planar), bool)
    points = _project(places, int(here.zones[0]), south=bool(here.halves[0] == _SOUTH))
    return (
        np.concatenate([planar, rest]),
        np.concatenate([others.utm_m[planar], points]),
        np.arange(len(planar) + len(rest)) >= len(planar),
    )


def _cells(points: Floats, others: Floats, width_m: float) -> Iterator[Rows]:
    """Yield for each point the rows of the others that may be within a distance, by a grid of that width.

    Args:
        points: (Q, 2) float64, metres.
        others: (M, 2) float64, metres.
        width_m: Others nearer than this are all among those yielded.
    """
    if not len(others):
        for _ in points:
            yield np.empty(0, np.int64)
        return
    # A little wider than the radius, so that rounding moves nobody two cells away.
    width_m *= 1.001
    origin = np.minimum(points.min(axis=0), others.min(axis=0)) - width_m
    cell = np.floor((others - origin) / width_m).astype(np.int64)
    x, y = np.floor((points - origin) / width_m).astype(np.int64).T
    height = int(max(cell[:, 1].max(), y.max())) + 2
    order = np.lexsort((cell[:, 1], cell[:, 0]))
    keys = (cell[:, 0] * height + cell[:, 1])[order]
    # The three cells of a column that touch the point's lie together in the sorted keys.
    columns = [(x + shift) * height + y for shift in (-1, 0, 1)]
    first = np.stack([np.searchsorted(keys, column - 1, side="left") for column in columns], axis=1)
    last = np.stack([np.searchsorted(keys, column + 1, side="right") for column in columns], axis=1)
    for begins, ends in zip(first, last, strict=True):
        yield np.concatenate([order[a:b] for a, b in zip(begins, ends, strict=True)])


def _same_zone(zones: Rows, halves: Rows, other_zones: Rows, other_halves: Rows) -> npt.NDArray[np.bool_]:
    """Whether metres of each pair compare; what is unknown of one is taken for the other's."""
    zone = (zones == other_zones) | (zones == 0) | (other_zones == 0)
    half = (halves == other_halves) | (halves == _UNKNOWN) | (other_halves == _UNKNOWN)
    same: npt.NDArray[np.bool_] = zone & half
    return same


def _split_zone(zone: Any) -> tuple[int, int]:
    """Split a zone such as `33U` into its number, 0 when unknown, and its half of the globe."""
    if not isinstance(zone, str) or not zone:
        return 0, _UNKNOWN
    digits = zone.upper().rstrip(_BANDS)
    band = zone.upper()[len(digits) :]
    half = _UNKNOWN if not band else _SOUTH if band[0] in _SOUTHERN_BANDS else _NORTH
    return int(digits) if digits.isdigit() else 0, half


def _project(degrees: Floats, zone: int, *, south: bool) -> Floats:
    """Return (N, 2) float64: metres in one UTM zone, also of positions a little outside it."""
    east, north = utm.from_latlon(
        degrees[:, 0], degrees[:, 1], force_zone_number=zone, force_northern=not south
    )[:2]
    return np.stack([east, north], axis=1)


def _projected_where_missing(utm_m: Floats, degrees: Floats, zones: Rows, halves: Rows) -> None:
    """Fill in, in place, UTM coordinates and zones of positions that have only degrees."""
    lat = degrees[:, 0]
    missing = ~np.isfinite(utm_m).all(axis=1) & np.isfinite(degrees).all(axis=1)
    missing &= (lat >= -80) & (lat <= 84)
    for row in np.flatnonzero(missing):
        zones[row] = utm.latlon_to_zone_number(degrees[row, 0], degrees[row, 1])
    for zone in np.unique(zones[missing]):
        for south in (False, True):
            rows = missing & (zones == zone) & ((lat < 0) == south)
            if rows.any():
                utm_m[rows] = _project(degrees[rows], int(zone), south=south)


@cache
def _geod() -> pyproj.Geod:
    import pyproj  # 40 ms, for the few cities that a border of zones runs through

    return pyproj.Geod(ellps="WGS84")
