"""The interface of a filter by distance, for an index of rows by place."""

from __future__ import annotations

from typing import Protocol, TypeGuard

import numpy as np
import numpy.typing as npt

from storage.search.filters.bounds import Bounds
from storage.search.row_filter import RowFilter

__all__ = ["Disc", "is_disc"]

Floats = npt.NDArray[np.float64]


class Disc(RowFilter, Protocol):
    """A filter whose rows lie around a centre: within each band of latitude between two longitudes."""

    def bounds(self) -> Bounds:
        """Return bounds outside of which no row with degrees passes."""
        ...

    def spans(self, south: Floats, north: Floats) -> tuple[float, Floats, Floats] | None:
        """Return how far the disc reaches to the east and the west in bands of latitude.

        Args:
            south: (n,) degrees, the lower edge of each band.
            north: (n,) degrees, the upper edge.

        Returns:
            The longitude of the centre in degrees, and for each band two distances from it in degrees: beyond
            the first no row of the band passes, within the second all do; none do for certain where it is 0.
            None where it is too large, too far north or south, or lies across the 180th meridian.
        """
        ...


def is_disc(within: RowFilter) -> TypeGuard[Disc]:
    """Return whether a filter is one."""
    return hasattr(within, "spans")
