"""Confidence intervals of figures over queries: a bootstrap that draws whole places.

Queries of one place are right or wrong together, so an interval that draws single queries is too narrow
(Cameron, Gelbach and Miller, "Bootstrap-Based Improvements for Inference with Clustered Errors", 2008). The
interval is the percentile interval, widened for few places as Hesterberg proposes ("What Teachers Should
Know About the Bootstrap", The American Statistician 2015, section 5.2: the expanded percentile interval).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from statistics import NormalDist
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

__all__ = [
    "LEVEL",
    "clustered_bootstrap",
    "mean_intervals",
    "paired_interval",
    "share_interval",
    "share_intervals",
]

LEVEL = 0.95
_BLOCK = 256  # repeats that are held in memory at once


def clustered_bootstrap(
    values: ArrayLike,
    clusters: ArrayLike,
    statistic: Callable[[NDArray[Any]], float],
    repeats: int = 1000,
    seed: int = 0,
) -> tuple[float, float]:
    """Return the 95 % interval of a statistic of queries by drawing places with replacement.

    Args:
        values: (N,) or (N, M) values, one row per query.
        clusters: (N,) keys of the places; queries with the same key are drawn together.
        statistic: Makes a number of the drawn rows of `values`; repeats where it is NaN are left out.
            `numpy.mean` of (N,) values is computed without drawing rows, which is much faster.
        repeats: How many times the places are drawn.
        seed: Of the draw; the same seed gives the same interval.

    Returns:
        (low, high), of the statistic's unit. NaN where there is no query, or the statistic is NaN always;
        infinite with a single place, which says nothing about others.

    Raises:
        ValueError: `values` and `clusters` differ in length.
    """
    rows, keys = np.asarray(values), np.asarray(clusters)
    if len(rows) != len(keys):
        raise ValueError(f"{len(rows)} values for {len(keys)} clusters: give one cluster per value")
    if not len(rows):
        return math.nan, math.nan
    if statistic is np.mean and rows.ndim == 1:
        low, high = mean_intervals(rows[:, None].astype(np.float64), keys, repeats=repeats, seed=seed)[0]
        return float(low), float(high)
    order, starts = _grouped(keys)
    places = len(starts) - 1
    if places < 2:
        return -math.inf, math.inf
    sizes = np.diff(starts)
    rng = np.random.default_rng(seed)
    figures = np.empty(repeats)
    for repeat in range(repeats):
        times = np.bincount(rng.integers(places, size=places), minlength=places)
        figures[repeat] = statistic(rows[np.repeat(order, np.repeat(times, sizes))])
    low, high = _percentiles(figures[:, None], places)[0]
    return float(low), float(high)


def mean_intervals(
    values: NDArray[np.float64], clusters: ArrayLike, *, repeats: int = 1000, seed: int = 0
) -> NDArray[np.float64]:
    """Return the 95 % intervals of the means of M columns, by `clustered_bootstrap` with one draw for all.

    Args:
        values: (N, M) float64; a NaN is a query that its column leaves out.
        clusters: (N,) keys of the places.
        repeats: How many times the places are drawn.
        seed: Of the draw.

    Returns:
        (M, 2) low and high.
    """
    order, starts = _grouped(np.asarray(clusters))
    places = len(starts) - 1
    if places < 2:
        low_high = (math.nan, math.nan) if places < 1 else (-math.inf, math.inf)
        return np.tile(np.array(low_high), (values.shape[1], 1))
    counted = np.isfinite(values[order])
    sums = np.add.reduceat(np.where(counted, values[order], 0.0), starts[:-1], axis=0)
    sizes = np.add.reduceat(counted.astype(np.float64), starts[:-1], axis=0)
    rng = np.random.default_rng(seed)
    means = []
    for first in range(0, repeats, _BLOCK):
        count = min(_BLOCK, repeats - first)
        drawn = rng.integers(places, size=(count, places)) + places * np.arange(count)[:, None]
        times = np.bincount(drawn.ravel(), minlength=count * places).reshape(count, places).astype(np.float64)
        with np.errstate(invalid="ignore", divide="ignore"):
            means.append((times @ sums) / (times @ sizes))
    return _percentiles(np.concatenate(means), places)


def paired_interval(paired: NDArray[np.float64], clusters: ArrayLike) -> tuple[float, float]:
    """Return the 95 % interval of the mean difference of two evaluations.

    Where no query differs, drawing them again says nothing: the bounds are then those of a share of lost and
    of won queries that is none, see `share_intervals`.

    Args:
        paired: (N,) float64, 1 where a query is won, -1 where it is lost, else 0.
        clusters: (N,) keys of the places.

    Returns:
        (low, high), see `clustered_bootstrap`.
    """
    low, high = clustered_bootstrap(paired, clusters, np.mean)
    if len(paired) and math.isfinite(low) and not paired.any():
        reach = _reach(clusters)
        return -reach, reach
    return low, high


def share_interval(hits: NDArray[np.bool_], clusters: ArrayLike, *, seed: int = 0) -> tuple[float, float]:
    """Return the 95 % interval of a share, see `share_intervals`."""
    low, high = share_intervals(hits[:, None], clusters, seed=seed)[0].tolist()
    return low, high


def share_intervals(hits: NDArray[np.bool_], clusters: ArrayLike, *, seed: int = 0) -> NDArray[np.float64]:
    """Return the 95 % intervals of M shares, with one draw for all.

    Where all queries are right, or none, drawing them again says nothing. The bound is the exact one of a
    binomial with as many trials as places then (Clopper and Pearson, 1934).

    Args:
        hits: (N, M) which queries are right.
        clusters: (N,) keys of the places.
        seed: Of the draw.

    Returns:
        (M, 2) low and high.
    """
    if not len(hits):
        return np.full((hits.shape[1], 2), math.nan)
    intervals = np.clip(mean_intervals(hits.astype(np.float64), clusters, seed=seed), 0.0, 1.0)
    reach = _reach(clusters)
    intervals[hits.all(axis=0)] = 1.0 - reach, 1.0
    intervals[~hits.any(axis=0)] = 0.0, reach
    return intervals


def _reach(clusters: ArrayLike) -> float:
    """Return the upper bound of a share that no place shows, with one trial per place."""
    places = len(np.unique(np.asarray(clusters)))
    return float(1.0 - ((1.0 - LEVEL) / 2.0) ** (1.0 / places))


def _grouped(keys: NDArray[Any]) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """Return the rows in the order of their clusters, and where each cluster begins; the end is last."""
    _, place = np.unique(keys, return_inverse=True)
    order = np.argsort(place, kind="stable")
    ends = np.cumsum(np.bincount(place, minlength=0)) if len(place) else np.empty(0, np.intp)
    return order, np.concatenate([[0], ends]).astype(np.intp)


def _percentiles(figures: NDArray[np.float64], places: int) -> NDArray[np.float64]:
    """Return (M, 2): the expanded percentile interval of each column of (repeats, M) figures."""
    tail = NormalDist().cdf(-math.sqrt(places / (places - 1.0)) * _student(places - 1))
    result = np.full((figures.shape[1], 2), math.nan)
    for column, drawn in enumerate(figures.T):
        known = drawn[np.isfinite(drawn)]
        if len(known):
            result[column] = np.quantile(known, [tail, 1.0 - tail])
    return result


def _student(degrees: int) -> float:
    """Return the 97.5 % quantile of Student's t by the series of Abramowitz and Stegun, 26.7.5.

    Below four degrees of freedom, where the series is off by more than 1 %, the tabulated values.
    """
    if degrees <= 3:
        return (12.7062, 4.3027, 3.1824)[degrees - 1]
    z = NormalDist().inv_cdf(0.5 + LEVEL / 2.0)
    first = (z**3 + z) / 4.0
    second = (5 * z**5 + 16 * z**3 + 3 * z) / 96.0
    third = (3 * z**7 + 19 * z**5 + 17 * z**3 - 15 * z) / 384.0
    fourth = (79 * z**9 + 776 * z**7 + 1482 * z**5 - 1920 * z**3 - 945 * z) / 92160.0
    return z + sum(
        term / float(degrees) ** power for power, term in enumerate((first, second, third, fourth), 1)
    )
