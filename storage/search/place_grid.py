"""Rows by bands of latitude, so that a filter by place looks only at the rows nearby or near its edge."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from storage.search.filters.bounds import Bounds
from storage.search.filters.disc import Disc

__all__ = ["PlaceGrid"]

_BAND_DEG = 0.0002  # about 22 m
_COLUMN_DEG = 2e-7  # 2 cm at the equator
_COLUMNS = 1 << 31  # more than columns around the earth
_MAX_BANDS = 8192  # beyond, looking at every row is as fast

Floats = npt.NDArray[np.float64]
Rows = npt.NDArray[np.int64]


class PlaceGrid:
    """N rows by band of latitude, within it by longitude; immutable. Twelve bytes per row."""

    def __init__(self, lat: Floats, lon: Floats) -> None:
        """Sort rows.

        Args:
            lat: (N,) float64 degrees; NaN where a row has none.
            lon: (N,) float64 degrees, likewise.
        """
        known = np.isfinite(lat) & np.isfinite(lon)
        rows = np.flatnonzero(known)
        places = _band(lat[rows]) * _COLUMNS + _column(lon[rows])
        order = np.argsort(places, kind="stable")
        self._rows, self._places = rows[order].astype(np.int32), places[order]
        self._elsewhere = np.flatnonzero(~known)
        self._count = len(lat)

    def inside(self, bounds: Bounds) -> Rows | None:
        """Return rows among which are all inside of the bounds, and those without degrees; None: any row.

        Args:
            bounds: Of latitude and longitude.
        """
        bands = _bands(bounds)
        if bands is None:
            return None
        found: list[npt.NDArray[np.integer]] = [self._elsewhere]
        for west, east in bounds.ranges() or [(-180.0, 180.0)]:
            starts = self._first(bands, np.full(len(bands), west))
            stops = self._first(bands, np.full(len(bands), east), beyond=True)
            found += self._slices(starts, stops)
        return np.unique(np.concatenate(found)).astype(np.int64)

    def within(self, disc: Disc) -> tuple[npt.NDArray[np.bool_], Rows] | None:
        """Return which rows are inside of a disc, but for a few near its edge; None: look at every row.

        Returns:
            inside: (N,) bool, True where a row is inside for certain.
            doubtful: The rows near the edge, and those without degrees.
        """
        bands = _bands(disc.bounds())
        if bands is None:
            return None
        south: Floats = bands.astype(np.float64) * _BAND_DEG - 90.0
        spans = disc.spans(south, south + _BAND_DEG)
        if spans is None:
            return None
        lon, outer, inner = spans
        starts, stops = self._first(bands, lon - outer), self._first(bands, lon + outer, beyond=True)
        certain = self._first(bands, lon - inner, beyond=True), self._first(bands, lon + inner)
        empty = (inner <= 0) | (certain[1] <= certain[0])
        begins, ends = np.where(empty, starts, certain[0]), np.where(empty, starts, certain[1])
        near_edge = [*self._slices(starts, begins), *self._slices(ends, stops)]
        return self._mask(begins, ends), np.concatenate([self._elsewhere, *near_edge]).astype(np.int64)

    def _mask(self, begins: Rows, ends: Rows) -> npt.NDArray[np.bool_]:
        """Return (N,) bool of the rows from `begins` to `ends` of each band, by the shorter way."""
        few = 2 * int((ends - begins).sum()) <= self._count
        mask = np.full(self._count, not few)
        if few:
            chosen = self._slices(begins, ends)
        else:  # all but those between
            edges = np.concatenate([[0], np.stack([begins, ends], axis=1).reshape(-1), [len(self._rows)]])
            chosen = [self._elsewhere.astype(np.int32), *self._slices(edges[::2], edges[1::2])]
        for rows in chosen:
            mask[rows] = few
        return mask

    def _first(self, bands: Rows, lon: Floats, *, beyond: bool = False) -> Rows:
        """Return the first row of each band from a longitude on, or `beyond` it, in sorted order."""
        places = bands * _COLUMNS + _column(np.clip(lon, -180.0, 180.0))
        return np.searchsorted(self._places, places, side="right" if beyond else "left")

    def _slices(self, starts: Rows, stops: Rows) -> list[npt.NDArray[np.int32]]:
        some = stops > starts
        return [self._rows[a:b] for a, b in zip(starts[some].tolist(), stops[some].tolist(), strict=True)]


def _bands(bounds: Bounds) -> Rows | None:
    """Return the bands between two latitudes; None if they are too many."""
    south, north = (int(_band(np.array([edge]))[0]) for edge in (bounds.south, bounds.north))
    return None if north - south > _MAX_BANDS else np.arange(south, north + 1)


def _band(lat: Floats) -> Rows:
    return np.asarray(np.floor((lat + 90.0) / _BAND_DEG), np.int64)


def _column(lon: Floats) -> Rows:
    return np.asarray(np.floor((lon + 180.0) / _COLUMN_DEG), np.int64)
