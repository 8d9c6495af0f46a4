"""Bounds of latitude and longitude: a quick check before the exact one, as arrays and as SQL."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

__all__ = ["Bounds", "around", "bounds_of"]

Floats = npt.NDArray[np.float64]

# Lower bounds on WGS84: a degree of latitude at the equator, the radius of the equator.
_METRES_PER_DEGREE, _RADIUS_M = 110_573.0, 6_378_137.0
_SLACK_DEG = 1e-7  # a centimetre, for rounding


@dataclass(frozen=True)
class Bounds:
    """A range of latitudes, and of longitudes that may run across the 180th meridian.

    Attributes:
        south: Lowest latitude.
        north: Highest latitude.
        west: Where the range of longitudes begins; any number of degrees.
        width: Degrees from there eastwards; from 360 on all longitudes.
    """

    south: float
    north: float
    west: float
    width: float

    def hold(self, lat: Floats, lon: Floats) -> npt.NDArray[np.bool_]:
        """Return which positions lie inside; unknown ones (NaN) do not."""
        inside: npt.NDArray[np.bool_] = (lat >= self.south) & (lat <= self.north) & np.isfinite(lon)
        if self.width < 360:
            near = np.flatnonzero(inside)
            inside[near] = (lon[near] - self.west) % 360.0 <= self.width
        return inside

    def sql(self) -> str:
        """Return the condition for columns lat and lon; rows without degrees meet it, they may be in UTM."""
        ranges = " OR ".join(f"lon BETWEEN {low!r} AND {high!r}" for low, high in self.ranges())
        inside = f"lat BETWEEN {self.south!r} AND {self.north!r}" + (f" AND ({ranges})" if ranges else "")
        return f"(lat IS NULL OR lon IS NULL OR ({inside}))"

    def ranges(self) -> list[tuple[float, float]]:
        """Return the ranges of longitudes within -180..180; none where all are inside."""
        if self.width >= 360:
            return []
        west = (self.west + 180.0) % 360.0 - 180.0
        east = west + self.width
        parts = [(west, east)] if east <= 180 else [(west, 180.0), (-180.0, east - 360.0)]
        if west <= -180 + _SLACK_DEG:  # 180 and -180 are one meridian
            parts.append((180.0, 180.0))
        if east >= 180 - _SLACK_DEG:
            parts.append((-180.0, -180.0))
        return [(low - _SLACK_DEG, high + _SLACK_DEG) for low, high in parts]


def bounds_of(within: object) -> Bounds | None:
    """Return the bounds outside of which a filter lets no row with degrees pass; None: it tells none."""
    tell = getattr(within, "bounds", None)
    return tell() if tell is not None else None


def around(lat: float, lon: float, radius_m: float) -> Bounds:
    """Return bounds that hold every position within a radius.

    No way between two parallels is shorter than the meridian, and none inside the circle meets a parallel
    shorter than that of its highest latitude.
    """
    reach = radius_m / _METRES_PER_DEGREE + _SLACK_DEG
    south, north = max(lat - reach, -90.0), min(lat + reach, 90.0)
    highest = max(abs(south), abs(north))
    half = 180.0
    if highest < 89.9:
        half = math.degrees(radius_m / (_RADIUS_M * math.cos(math.radians(highest)))) + _SLACK_DEG
    return Bounds(south, north, lon - half, 2 * half)
