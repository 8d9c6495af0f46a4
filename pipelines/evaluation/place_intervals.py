"""Intervals of the figures of places, by a bootstrap of whole places."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipelines.evaluation.intervals import clustered_bootstrap, share_interval
from pipelines.evaluation.outcome import QueryOutcome
from pipelines.evaluation.place_figures import WITHIN_M, place_errors_m

__all__ = ["place_intervals"]


def place_intervals(outcomes: Sequence[QueryOutcome]) -> dict[str, Any]:
    """Return the 95 % intervals of `place_figures`, by the same keys; empty where no place is known."""
    errors = place_errors_m(outcomes)
    clusters = np.array([outcome.cluster for outcome in outcomes], np.int64)
    placed = np.isfinite(errors)
    if not placed.any():
        return {}
    metres, places = errors[placed], clusters[placed]
    radii = np.array([(outcome.place or {}).get("radius_m") for outcome in outcomes], np.float64)
    sized = placed & np.isfinite(radii)
    covered = _percent(errors[sized] <= radii[sized], clusters[sized]) if sized.any() else [None, None]
    return {
        "radius_coverage": covered,
        "median_m": _rounded(clustered_bootstrap(metres, places, _median)),
        "p90_m": _rounded(clustered_bootstrap(metres, places, _p90)),
        "within_m": {str(reach): _percent(metres <= reach, places) for reach in WITHIN_M},
    }


def _median(values: NDArray[np.float64]) -> float:
    return float(np.median(values))


def _p90(values: NDArray[np.float64]) -> float:
    return float(np.quantile(values, 0.9))


def _percent(hits: NDArray[np.bool_], clusters: NDArray[np.int64]) -> list[float | None]:
    low, high = share_interval(hits, clusters)
    return _rounded((100.0 * low, 100.0 * high))


def _rounded(ends: tuple[float, float]) -> list[float | None]:
    return [round(end, 2) if np.isfinite(end) else None for end in ends]
