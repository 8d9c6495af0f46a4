"""Estimators of a position from weighted points; `benchmarks/bench_places.py` compares them."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

__all__ = ["DEFAULT", "ESTIMATORS", "Estimate", "Estimator"]

Floats = NDArray[np.float64]
Rows = NDArray[np.int64]

_SHIFTS = 30  # of mode seeking


class Estimate(NamedTuple):
    """A point, and the rows that it was made from.

    Attributes:
        point: (2,) float64, metres.
        members: Rows of the group, in their order.
        weights: (M,) float64 of the members, summing to 1.
    """

    point: Floats
    members: Rows
    weights: Floats


Estimator = Callable[[Floats, Floats, float], Estimate]
"""Takes (N, 2) points, (N,) weights from 0 to 1 with the best first, and the radius of a group in metres."""


def first_answer(points: Floats, weights: Floats, reach_m: float) -> Estimate:
    """The position of the best candidate."""
    return Estimate(points[0], np.zeros(1, np.int64), np.ones(1))


def weighted_mean(points: Floats, weights: Floats, reach_m: float) -> Estimate:
    """The weighted mean of the group around the best candidate."""
    return _mean(points, weights, _group(points, weights, points[0], reach_m))


def strongest_group(points: Floats, weights: Floats, reach_m: float) -> Estimate:
    """The weighted mean of the group with the most weight, wherever it is (complete linkage within reach)."""
    near = np.hypot(*(points[:, None] - points[None]).transpose(2, 0, 1)) <= reach_m
    centre = int(np.argmax(near @ weights))
    return _mean(points, weights, _group(points, weights, points[centre], reach_m))


def mode_seeking(points: Floats, weights: Floats, reach_m: float) -> Estimate:
    """The mode of the weighted density around the best candidate (mean shift, Cheng 1995)."""
    point = points[0]
    for _ in range(_SHIFTS):
        density = weights * np.exp(-2 * ((points - point) ** 2).sum(axis=1) / reach_m**2)
        moved = density @ points / density.sum()
        if np.hypot(*(moved - point)) < 0.01:
            break
        point = moved
    members = _group(points, weights, point, reach_m)
    return Estimate(point, members, _shares(weights[members]))


def weighted_medoid(points: Floats, weights: Floats, reach_m: float) -> Estimate:
    """The candidate of the group with the smallest weighted distance to the others."""
    members = _group(points, weights, points[0], reach_m)
    apart = np.hypot(*(points[members, None] - points[None, members]).transpose(2, 0, 1))
    chosen = members[int(np.argmin(apart @ weights[members]))]
    return Estimate(points[chosen], members, _shares(weights[members]))


ESTIMATORS: dict[str, Estimator] = {
    "first answer": first_answer,
    "weighted mean": weighted_mean,
    "strongest group": strongest_group,
    "mode seeking": mode_seeking,
    "weighted medoid": weighted_medoid,
}
DEFAULT = "mode seeking"


def _group(points: Floats, weights: Floats, centre: Floats, reach_m: float) -> Rows:
    """Return the rows within reach that have weight; the best candidate's where none has."""
    near = (np.hypot(*(points - centre).T) <= reach_m) & (weights > 0)
    return np.flatnonzero(near) if near.any() else np.zeros(1, np.int64)


def _mean(points: Floats, weights: Floats, members: Rows) -> Estimate:
    shares = _shares(weights[members])
    return Estimate(shares @ points[members], members, shares)


def _shares(weights: Floats) -> Floats:
    total = weights.sum()
    return weights / total if total > 0 else np.full(len(weights), 1 / len(weights))
