"""A plane of metres around one position, to average and group positions that lie close together.

Within one UTM zone the plane is that zone, as evaluation protocols measure distances. Where positions lie in
several zones, across the 180th meridian or beyond the range of UTM, it is the azimuthal equidistant
projection around the first of them on the WGS84 ellipsoid (Snyder, "Map projections", USGS 1987, section 25),
by the geodesics of `storage.position`.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import utm

from storage.position import Position, Positions, geodesics
from storage.utm_zones import UNKNOWN, same_zone

__all__ = ["LocalPlane"]

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class LocalPlane:
    """Metres east and north of an origin.

    Attributes:
        origin: The position that the plane was laid around, one row.
        in_zone: Whether the plane is the origin's UTM zone; else it is azimuthal equidistant.
    """

    origin: Positions
    in_zone: bool

    @classmethod
    def around(cls, positions: Positions) -> LocalPlane:
        """Lay a plane around the first of N known positions that suits all of them.

        Raises:
            ValueError: there is no position, or the first is unknown.
        """
        if not len(positions) or not positions.known[0]:
            raise ValueError("a plane needs a known position first: leave unknown ones out")
        origin = positions.take(np.zeros(1, np.int64))
        same = same_zone(
            positions.zones, positions.hemispheres, np.full(1, origin.zones[0]), origin.hemispheres
        )
        planar = np.isfinite(positions.utm_m).all(axis=1) & same
        return cls(origin, bool(planar[positions.known].all()))

    def points(self, positions: Positions) -> Floats:
        """Return (N, 2) float64: metres east and north of the origin; NaN unknown."""
        if self.in_zone:
            return np.asarray(positions.utm_m - self.origin.utm_m)
        lat, lon = positions.in_degrees(self.origin.hemispheres[0]).T
        known = np.isfinite(lat) & np.isfinite(lon)
        points = np.full((len(positions), 2), np.nan)
        if known.any():
            origin_lat, origin_lon = np.broadcast_to(self.origin.in_degrees()[0], (int(known.sum()), 2)).T
            azimuth_deg, _, metres = geodesics().inv(origin_lon, origin_lat, lon[known], lat[known])
            radians = np.radians(azimuth_deg)
            points[known] = np.stack([metres * np.sin(radians), metres * np.cos(radians)], axis=1)
        return points

    def position(self, point: Floats) -> Position:
        """Return the position of (2,) metres east and north of the origin, in both systems where possible."""
        east, north = (float(value) for value in point)
        if not self.in_zone:
            lat, lon = self.origin.in_degrees()[0].tolist()
            azimuth_deg = float(np.degrees(np.arctan2(east, north)))
            lon, lat, _ = geodesics().fwd(lon, lat, azimuth_deg, float(np.hypot(east, north)))
            return _completed(Position(lat=float(lat), lon=float(lon)))
        zone, hemisphere = int(self.origin.zones[0]), int(self.origin.hemispheres[0])
        moved = dataclasses.replace(self.origin, utm_m=self.origin.utm_m + np.array([east, north]))
        easting, northing = moved.utm_m[0].tolist()
        if not zone or hemisphere == UNKNOWN:
            return Position(utm_e=easting, utm_n=northing, utm_zone=f"{zone}" if zone else None)
        blank = dataclasses.replace(moved, degrees=np.full((1, 2), np.nan))
        lat, lon = blank.in_degrees()[0].tolist()
        letter = utm.latitude_to_zone_letter(lat) or ""
        return Position(lat, lon, easting, northing, f"{zone}{letter}")


def _completed(position: Position) -> Position:
    try:
        return position.completed()
    except ValueError:  # beyond the range of UTM
        return position
