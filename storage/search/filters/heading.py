"""Filter by direction of view."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from storage.search.filters.errors import BadFilter

__all__ = ["Heading"]

_SLACK_DEG = 1e-9


@dataclass(frozen=True)
class Heading:
    """Rows that look about in one direction.

    Attributes:
        heading_deg: Compass direction in degrees, -360 to 360.
        tolerance_deg: Largest difference to either side, 0 to 180, inclusive.

    Raises:
        BadFilter: a value is out of range.
    """

    columns: ClassVar[tuple[str, ...]] = ("heading_deg",)

    heading_deg: float
    tolerance_deg: float

    def __post_init__(self) -> None:
        if not -360 <= self.heading_deg <= 360:
            raise BadFilter(f"{self.heading_deg:g} is not a direction: give degrees from 0 to 360")
        if not 0 <= self.tolerance_deg <= 180:
            raise BadFilter(f"a tolerance of {self.tolerance_deg:g} degrees is out of range: give 0 to 180")

    def mask(self, rows: pa.Table) -> npt.NDArray[np.bool_]:
        """Return (N,) bool: which rows look that way; those without a heading do not.

        Args:
            rows: N stored rows with `columns`.
        """
        stored = np.asarray(rows["heading_deg"].to_numpy(), np.float64)
        with np.errstate(invalid="ignore"):
            turned = stored - self.heading_deg
            away = np.abs(turned - 360.0 * np.rint(turned / 360.0))
            inside: npt.NDArray[np.bool_] = away <= self.tolerance_deg + _SLACK_DEG
        return inside

    def predicate(self) -> str:
        """Return a SQL condition that holds for these rows and maybe others."""
        return "heading_deg IS NOT NULL"
