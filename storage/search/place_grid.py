"""Rows by cells of latitude and longitude, so that a filter by place looks at those nearby alone."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from storage.search.filters.bounds import Bounds

__all__ = ["PlaceGrid"]

_CELL_DEG = 0.002  # about 220 m of latitude
_COLUMNS = 1 << 20  # more than cells around the earth
_MAX_BANDS = 2048  # of latitude: beyond, looking at every row is as fast

Floats = npt.NDArray[np.float64]


class PlaceGrid:
    """The cells of N rows; immutable. Twelve bytes per row."""

    def __init__(self, lat: Floats, lon: Floats) -> None:
        """Sort rows by cell.

        Args:
            lat: (N,) float64 degrees; NaN where a row has none.
            lon: (N,) float64 degrees, likewise.
        """
        known = np.isfinite(lat) & np.isfinite(lon)
        rows = np.flatnonzero(known)
        cells = _cell(lat[rows], 90.0) * _COLUMNS + _cell(lon[rows], 180.0)
        order = np.argsort(cells, kind="stable")
        self._rows, self._cells = rows[order].astype(np.int32), cells[order]
        self._elsewhere = np.flatnonzero(~known)

    def inside(self, bounds: Bounds) -> npt.NDArray[np.int64] | None:
        """Return rows among which are all inside of the bounds, and those without degrees; None: any row.

        Args:
            bounds: Of latitude and longitude.
        """
        south, north = (int(_cell(np.array([edge]), 90.0)[0]) for edge in (bounds.south, bounds.north))
        if north - south > _MAX_BANDS:
            return None
        parts: list[npt.NDArray[np.integer]] = [self._elsewhere]
        bands = np.arange(south, north + 1) * _COLUMNS
        for west, east in bounds.ranges() or [(-180.0, 180.0)]:
            first, last = (int(_cell(np.array([edge]), 180.0)[0]) for edge in (west, east))
            starts = np.searchsorted(self._cells, bands + first, side="left")
            stops = np.searchsorted(self._cells, bands + last, side="right")
            parts += [self._rows[a:b] for a, b in zip(starts, stops, strict=True) if b > a]
        return np.unique(np.concatenate(parts)).astype(np.int64)


def _cell(degrees: Floats, shift: float) -> npt.NDArray[np.int64]:
    return np.asarray(np.floor((degrees + shift) / _CELL_DEG), np.int64)
