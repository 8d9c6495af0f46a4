"""Figures of the places of answers: how far off they are, and how often the radius holds the truth."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipelines.evaluation.describe import in_brackets
from pipelines.evaluation.outcome import QueryOutcome
from storage.position import Position

__all__ = ["WITHIN_M", "describe_place", "place_errors_m", "place_figures"]

WITHIN_M = (10, 25, 50)


def place_figures(outcomes: Sequence[QueryOutcome]) -> dict[str, Any]:
    """Return the figures of `evaluate`'s JSON under `place`; of the queries whose place is known.

    Returns:
        `queries`: how many have a place and a position; `median_m` and `p90_m` of the distance between the
        two; `within_m`: share of them by distance, in percent; `radius_coverage`: share of the places with a
        radius that lie within it of the truth, in percent. None where there is nothing to count.
    """
    errors = place_errors_m(outcomes)
    placed = errors[np.isfinite(errors)]
    radii = np.array([_radius_m(outcome) for outcome in outcomes], np.float64)
    sized = np.isfinite(radii) & np.isfinite(errors)
    return {
        "queries": len(placed),
        "median_m": round(float(np.median(placed)), 2) if len(placed) else None,
        "p90_m": round(float(np.quantile(placed, 0.9)), 2) if len(placed) else None,
        "within_m": {str(metres): _percent(placed <= metres) for metres in WITHIN_M},
        "radius_coverage": _percent(errors[sized] <= radii[sized]),
    }


def place_errors_m(outcomes: Sequence[QueryOutcome]) -> NDArray[np.float64]:
    """Return (Q,) float64: metres from each query to the place of its answer; NaN where one is unknown."""
    return np.array([_error_m(outcome) for outcome in outcomes], np.float64)


def describe_place(figures: Mapping[str, Any], intervals: Mapping[str, Any] | None = None) -> str | None:
    """Return the figures in one line, with their intervals where given; None where there are none."""
    if not figures or not figures["queries"]:
        return None
    known = intervals or {}
    ends = {name: in_brackets(known.get(name)) for name in ("median_m", "p90_m", "radius_coverage")}
    of_shares = known.get("within_m", {})
    within = ", ".join(
        f"{share:.1f} %{in_brackets(of_shares.get(metres))} within {metres} m"
        for metres, share in figures["within_m"].items()
    )
    line = f"median {figures['median_m']:.1f} m{ends['median_m']}, "
    line += f"90 % within {figures['p90_m']:.1f} m{ends['p90_m']}; {within}"
    if figures["radius_coverage"] is not None:
        line += f"; the radius holds {figures['radius_coverage']:.1f} %{ends['radius_coverage']}"
    return line


def _error_m(outcome: QueryOutcome) -> float:
    position = (outcome.place or {}).get("position")
    metres = None if position is None else outcome.position.distance_m(Position.of(position))
    return np.nan if metres is None else metres


def _radius_m(outcome: QueryOutcome) -> float:
    radius_m = (outcome.place or {}).get("radius_m")
    return np.nan if radius_m is None else float(radius_m)


def _percent(hits: NDArray[np.bool_]) -> float | None:
    return round(100.0 * float(hits.mean()), 1) if len(hits) else None
