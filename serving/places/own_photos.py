"""The radius of a place without calibration: what a store's own photos say about its answers.

A sample of the stored photos is answered twice, once with the photo's own place in the store and once
without it. The two bound what a new photo meets. Between them the logarithm of the error is taken to fall in
proportion to how far the first answer leads the next place elsewhere: a line through the two medians of that
lead and the two 90th percentiles of the error. A new photo is taken between two places, not at one, which
adds an eighth of their spacing.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from serving.places.evidence import RANKED_BY
from storage.card import Card
from storage.json_values import finite_number, whole_number

__all__ = ["FORMAT", "MIN_PHOTOS", "OwnPhotos", "RadiusLine"]

FORMAT = 1
MIN_PHOTOS = 8  # answered both ways, for a 90th percentile that means something
_BETWEEN = 0.125  # of the spacing
_LEAST, _MOST = 1e-3, 1e4  # errors in spacings
_FARTHEST_M = 1e5
_MAX_ROWS = 10**12


@dataclass(frozen=True)
class RadiusLine:
    """The error that 90 % of the answers stay below, by lead; in units of the spacing.

    Attributes:
        lead_with: Median lead (sign `ratio`) with the own place in the store.
        error_with: 90th percentile of the error then.
        lead_without: Median lead without the own place.
        error_without: 90th percentile of the error then.
    """

    lead_with: float
    error_with: float
    lead_without: float
    error_without: float

    @classmethod
    def through(
        cls,
        leads_with: Sequence[float],
        errors_with: Sequence[float],
        leads_without: Sequence[float],
        errors_without: Sequence[float],
    ) -> RadiusLine:
        """Summarise answers with and without the own place; errors in spacings."""
        return cls(
            *(float(np.median(leads_with)), _bounded(np.quantile(errors_with, 0.9))),
            *(float(np.median(leads_without)), _bounded(np.quantile(errors_without, 0.9))),
        )

    def error(self, lead: float) -> float:
        """Return the error for a lead, in spacings."""
        rise = self.lead_with - self.lead_without
        if rise < 0.05:  # the own photo leads no more than others do: nothing to tell by
            return max(self.error_with, self.error_without)
        share = (lead - self.lead_without) / rise
        low, high = math.log(self.error_without), math.log(self.error_with)
        if high >= low:
            return max(self.error_with, self.error_without)
        return math.exp(min(max(low + share * (high - low), math.log(_LEAST)), math.log(_MOST)))


@dataclass(frozen=True)
class OwnPhotos:
    """What was measured on a store's own photos.

    Attributes:
        spacing_m: Median distance from a photo to the next place.
        rows: Rows of the store then.
        photos: Photos that were asked about.
        aggregation_sha256: Of the store then.
        lines: By what answers are ranked by, see `RANKED_BY`.
    """

    spacing_m: float
    rows: int
    photos: int
    aggregation_sha256: str | None
    lines: Mapping[str, RadiusLine]

    def fits(self, card: Card) -> bool:
        """Return whether descriptors are still made as they were then."""
        return self.aggregation_sha256 == card.aggregation_sha256

    def radius_m(self, lead: float, ranked_by: str) -> float | None:
        """Return the radius that holds the truth with 90 %, in metres; None where it was not measured.

        Args:
            lead: The sign `ratio` of the answer.
            ranked_by: What it is ranked by.
        """
        line = self.lines.get(ranked_by)
        if line is None:
            return None
        return min(self.spacing_m * math.hypot(line.error(lead), _BETWEEN), _FARTHEST_M)

    def to_dict(self) -> dict[str, Any]:
        """Return the values as JSON of the file."""
        return {
            "format": FORMAT,
            "spacing_m": round(self.spacing_m, 3),
            "rows": self.rows,
            "photos": self.photos,
            "aggregation_sha256": self.aggregation_sha256,
            "lines": {
                kind: {name: round(value, 6) for name, value in vars(line).items()}
                for kind, line in self.lines.items()
            },
        }

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> OwnPhotos:
        """Read the values of a file that may be anybody's.

        Raises:
            ValueError: they are not such values.
        """
        if values.get("format") != FORMAT:
            raise ValueError("another format")
        digest, lines = values.get("aggregation_sha256"), values.get("lines")
        if not isinstance(lines, dict) or not (digest is None or isinstance(digest, str)):
            raise ValueError("lines or the digest are missing")
        return cls(
            spacing_m=finite_number(values.get("spacing_m"), 1e-3, 1e7),
            rows=whole_number(values.get("rows"), 0, _MAX_ROWS),
            photos=whole_number(values.get("photos"), 0, _MAX_ROWS),
            aggregation_sha256=digest,
            lines={kind: _line(lines[kind]) for kind in RANKED_BY if kind in lines},
        )


def _line(values: object) -> RadiusLine:
    if not isinstance(values, dict):
        raise ValueError("a line is missing")
    return RadiusLine(
        **{
            name: finite_number(values.get(name), *((_LEAST, _MOST) if "error" in name else (-2.0, 2.0)))
            for name in ("lead_with", "error_with", "lead_without", "error_without")
        }
    )


def _bounded(error: float) -> float:
    return float(min(max(error, _LEAST), _MOST))
