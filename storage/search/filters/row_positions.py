"""Positions of stored rows in degrees, as arrays: what filters by place compare."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import utm

from storage.utm_zones import SOUTH, UNKNOWN, split_zone

__all__ = ["Anchor", "degrees_of_rows"]

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Anchor:
    """The place whose UTM zone and hemisphere rows are assumed to be of that name none.

    Attributes:
        zone: Number of the zone; 0 beyond the range of UTM.
        south: Whether it lies in the southern hemisphere.
    """

    zone: int
    south: bool

    @classmethod
    def at(cls, lat: float, lon: float) -> Anchor:
        """Return the anchor of a position in degrees."""
        inside = -80 <= lat <= 84
        return cls(int(utm.latlon_to_zone_number(lat, lon)) if inside else 0, lat < 0)


def degrees_of_rows(rows: pa.Table, anchor: Anchor) -> tuple[Floats, Floats]:
    """Return the latitudes and longitudes of N rows, from UTM where they have no degrees.

    Args:
        rows: With the columns of `storage.position.POSITION_COLUMNS`.
        anchor: Its zone and hemisphere are assumed where a row does not name its own.

    Returns:
        Two arrays (N,) float64; NaN where the position is not known.
    """
    lat, lon = _numbers(rows, "lat"), _numbers(rows, "lon")
    missing = np.flatnonzero(~(np.isfinite(lat) & np.isfinite(lon)))
    if not len(missing):
        return lat, lon
    lat, lon = lat.copy(), lon.copy()
    lat[missing] = lon[missing] = np.nan
    east, north = _numbers(rows, "utm_e"), _numbers(rows, "utm_n")
    zones, south = _zones(rows, anchor)
    missing = missing[(np.isfinite(east) & np.isfinite(north) & (zones > 0))[missing]]
    for zone in np.unique(zones[missing]):
        for southern in (False, True):
            here = missing[(zones[missing] == zone) & (south[missing] == southern)]
            if len(here):
                lat[here], lon[here] = utm.to_latlon(
                    east[here], north[here], int(zone), northern=not southern, strict=False
                )
    return lat, lon


def _numbers(rows: pa.Table, name: str) -> Floats:
    return np.asarray(rows[name].to_numpy(), np.float64)  # a missing value is NaN


def _zones(rows: pa.Table, anchor: Anchor) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.bool_]]:
    """Return number and hemisphere of each row's zone, the anchor's where it names none."""
    column = rows["utm_zone"].combine_chunks()
    if isinstance(column, pa.ChunkedArray):  # no rows
        return np.empty(0, np.int64), np.empty(0, np.bool_)
    encoded = column if pa.types.is_dictionary(column.type) else column.dictionary_encode()
    named = [split_zone(name) for name in [*encoded.dictionary.to_pylist(), None]]
    numbers = np.array([number or anchor.zone for number, _ in named], np.int64)
    southern = np.array(
        [anchor.south if hemisphere == UNKNOWN else hemisphere == SOUTH for _, hemisphere in named]
    )
    at = np.asarray(encoded.indices.fill_null(len(named) - 1))
    return numbers[at], southern[at]
