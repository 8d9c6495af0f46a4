"""UTM zones: parsing their names, comparing them, and projecting degrees into one."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import utm

__all__ = ["NORTH", "SOUTH", "UNKNOWN", "project", "project_missing", "same_zone", "split_zone"]

Floats = npt.NDArray[np.float64]
Rows = npt.NDArray[np.int64]

UNKNOWN, NORTH, SOUTH = -1, 0, 1  # hemispheres

_BANDS = "CDEFGHJKLMNPQRSTUVWX"
_SOUTHERN_BANDS = "CDEFGHJKLM"


def same_zone(
    zones: Rows, hemispheres: Rows, other_zones: Rows, other_hemispheres: Rows
) -> npt.NDArray[np.bool_]:
    """Return which pairs share a coordinate system; an unknown zone or hemisphere matches any."""
    zone = (zones == other_zones) | (zones == 0) | (other_zones == 0)
    unknown = (hemispheres == UNKNOWN) | (other_hemispheres == UNKNOWN)
    same: npt.NDArray[np.bool_] = zone & (unknown | (hemispheres == other_hemispheres))
    return same


def split_zone(zone: Any) -> tuple[int, int]:
    """Split a zone such as `33U` into its number, 0 when unknown, and its hemisphere."""
    if not isinstance(zone, str) or not zone:
        return 0, UNKNOWN
    digits = zone.upper().rstrip(_BANDS)
    band = zone.upper()[len(digits) :]
    hemisphere = UNKNOWN if not band else SOUTH if band[0] in _SOUTHERN_BANDS else NORTH
    return int(digits) if digits.isdigit() else 0, hemisphere


def project(degrees: Floats, zone: int, *, south: bool) -> Floats:
    """Project (N, 2) latitudes and longitudes to (N, 2) metres in one zone, also from a little outside it."""
    east, north = utm.from_latlon(
        degrees[:, 0], degrees[:, 1], force_zone_number=zone, force_northern=not south
    )[:2]
    return np.stack([east, north], axis=1)


def project_missing(utm_m: Floats, degrees: Floats, zones: Rows, hemispheres: Rows) -> None:
    """Fill in, in place, the UTM coordinates and zones of positions that have only degrees."""
    lat = degrees[:, 0]
    missing = ~np.isfinite(utm_m).all(axis=1) & np.isfinite(degrees).all(axis=1)
    missing &= (lat >= -80) & (lat <= 84)
    for row in np.flatnonzero(missing):
        zones[row] = utm.latlon_to_zone_number(degrees[row, 0], degrees[row, 1])
    for zone in np.unique(zones[missing]):
        for south in (False, True):
            rows = missing & (zones == zone) & ((lat < 0) == south)
            if rows.any():
                utm_m[rows] = project(degrees[rows], int(zone), south=south)
