"""The position of a place from the evidence of its ranked candidates."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from serving.answer import Match
from serving.places.estimators import DEFAULT, ESTIMATORS
from serving.places.evidence import Evidence
from storage.position import Position

__all__ = ["Located", "locate", "reach_of"]

Floats = NDArray[np.float64]

_REACH = 2.5  # spacings
_MIN_REACH_M, _MAX_REACH_M = 5.0, 60.0
_UNKNOWN_REACH_M = 25.0
_MAX_EVIDENCE = 10
_MIN_RESULTANT = 0.5  # of headings: below, they point everywhere


@dataclass(frozen=True)
class Located:
    """A position and what it was made from.

    Attributes:
        position: In both systems where possible.
        heading_deg: Direction of view, 0..360; None where it is not known.
        evidence: Image ids, those with the most weight first, at most ten.
        spread_m: Weighted root mean square of the distances from the position to the evidence.
    """

    position: Position
    heading_deg: float | None
    evidence: tuple[str, ...]
    spread_m: float

    def to_dict(self) -> dict[str, Any]:
        """Return the values as JSON: metres to centimetres, degrees to as much."""
        position = self.position
        return {
            "position": {
                "lat": _rounded(position.lat, 7),
                "lon": _rounded(position.lon, 7),
                "utm_e": _rounded(position.utm_e, 2),
                "utm_n": _rounded(position.utm_n, 2),
                "utm_zone": position.utm_zone,
            },
            "heading_deg": _rounded(self.heading_deg, 1),
            "evidence": list(self.evidence),
            "spread_m": round(self.spread_m, 2),
        }


def reach_of(spacing_m: float | None) -> float:
    """Return the radius of a group of images that show one place, by the spacing of the store's places."""
    if spacing_m is None:
        return _UNKNOWN_REACH_M
    return min(max(_REACH * spacing_m, _MIN_REACH_M), _MAX_REACH_M)


def locate(evidence: Evidence, spacing_m: float | None, *, estimator: str = DEFAULT) -> Located:
    """Estimate where a photo was taken.

    Args:
        evidence: At least one candidate.
        spacing_m: Median distance between the store's places; None where it was not measured.
        estimator: One of `ESTIMATORS`.
    """
    estimate = ESTIMATORS[estimator](evidence.points, evidence.weights, reach_of(spacing_m))
    away = evidence.points[estimate.members] - estimate.point
    order = np.argsort(-estimate.weights, kind="stable")[:_MAX_EVIDENCE]
    matches = [evidence.matches[row] for row in estimate.members[order]]
    return Located(
        position=evidence.plane.position(estimate.point),
        heading_deg=_heading_deg([_heading_of(match) for match in matches], estimate.weights[order]),
        evidence=tuple(match.record.image_id for match in matches),
        spread_m=float(np.sqrt(estimate.weights @ (away**2).sum(axis=1))),
    )


def _heading_deg(headings_deg: list[float | None], weights: Floats) -> float | None:
    """Return the weighted circular mean of the known headings."""
    pairs = [(heading, w) for heading, w in zip(headings_deg, weights, strict=True) if heading is not None]
    total = sum(weight for _, weight in pairs)
    if total <= 0:
        return None
    east = sum(weight * math.sin(math.radians(heading)) for heading, weight in pairs) / total
    north = sum(weight * math.cos(math.radians(heading)) for heading, weight in pairs) / total
    if math.hypot(east, north) < _MIN_RESULTANT:
        return None
    return math.degrees(math.atan2(east, north)) % 360.0


def _rounded(value: float | None, digits: int) -> float | None:
    return None if value is None else round(value, digits)


def _heading_of(match: Match) -> float | None:
    heading: float | None = getattr(match.record, "heading_deg", None)  # the JSON of an answer lacks it
    return heading if heading is not None and math.isfinite(heading) else None
