"""Radius search: which positions lie within a distance of each of many others, by a grid of cells."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from storage.position import Positions, within
from storage.utm_zones import SOUTH, project, same_zone

__all__ = ["Neighbourhoods", "nearby"]

Floats = npt.NDArray[np.float64]
Rows = npt.NDArray[np.int64]

_METRES_PER_DEGREE = 110_000.0  # of latitude, a lower bound


@dataclass(frozen=True)
class Neighbourhoods:
    """Rows near each of Q positions, concatenated: those of position i are `rows[ends[i]:ends[i + 1]]`.

    Attributes:
        rows: (M,) int64, sorted for each position.
        ends: (Q + 1,) int64.
        distances_m: (M,) float64.
    """

    rows: Rows
    ends: Rows
    distances_m: Floats

    def of(self, position: int) -> Rows:
        """Return the sorted rows near one position."""
        return self.rows[self.ends[position] : self.ends[position + 1]]

    def counts(self) -> Rows:
        """Return (Q,) int64: how many rows are near each position."""
        return np.diff(self.ends)

    def up_to(self, radius_m: float) -> Neighbourhoods:
        """Return the neighbourhoods of a smaller radius, inclusive."""
        near = within(self.distances_m, radius_m)
        before = np.concatenate([[0], np.cumsum(near)])
        return Neighbourhoods(self.rows[near], before[self.ends], self.distances_m[near])


def nearby(positions: Positions, others: Positions, radius_m: float) -> Neighbourhoods:
    """Find the others within a radius of each position; unknown positions have no neighbours.

    Args:
        positions: Q positions.
        others: M positions.
        radius_m: In metres, inclusive.
    """
    rows = [np.empty(0, np.int64)] * len(positions)
    metres = [np.empty(0)] * len(positions)
    planar = np.isfinite(positions.utm_m).all(axis=1)
    groups = np.stack([positions.zones, positions.hemispheres], axis=1)
    for group in np.unique(groups[planar], axis=0):
        members = np.flatnonzero(planar & (groups == group).all(axis=1))
        here = positions.take(members)
        reached, points, foreign = _in_zone_of(here, others, radius_m)
        for i, near in zip(members, _cells(here.utm_m, points, 1.02 * radius_m + 1.0), strict=True):
            distances = np.hypot(*(points[near] - positions.utm_m[i]).T)
            if foreign[near].any():
                across = others.take(reached[near[foreign[near]]])
                distances[foreign[near]] = across.paired_distances_m(positions.take(np.full(len(across), i)))
            inside = np.flatnonzero(within(distances, radius_m))
            order = inside[np.argsort(reached[near[inside]])]
            rows[i], metres[i] = reached[near[order]], distances[order]
    # Photos beyond the range of UTM are too rare to need a grid.
    for i in np.flatnonzero(positions.known & ~planar):
        distances = others.paired_distances_m(positions.take(np.full(len(others), i)))
        rows[i] = np.flatnonzero(within(distances, radius_m))
        metres[i] = distances[rows[i]]
    ends = np.concatenate([[0], np.cumsum([len(near) for near in rows])]).astype(np.int64)
    return Neighbourhoods(np.concatenate([*rows, ends[:0]]), ends, np.concatenate([*metres, np.empty(0)]))


def _in_zone_of(
    here: Positions, others: Positions, radius_m: float
) -> tuple[Rows, Floats, npt.NDArray[np.bool_]]:
    """Project the others that may be near into the zone of some positions.

    Args:
        here: Positions of one zone and hemisphere.
        others: Candidates of any zone.
        radius_m: How far they may be from one of `here`.

    Returns:
        rows: (P,) int64 of the others.
        points: (P, 2) float64, metres in the zone of `here`.
        foreign: (P,) bool, those of another zone.
    """
    same = same_zone(here.zones[:1], here.hemispheres[:1], others.zones, others.hemispheres)
    planar = np.flatnonzero(same & np.isfinite(others.utm_m).all(axis=1))
    rest = np.flatnonzero(others.known & ~same)
    if not len(rest):
        return planar, others.utm_m[planar], np.zeros(len(planar), bool)
    centre, places = here.in_degrees(), others.take(rest).in_degrees(here.hemispheres[:1])
    low, high = np.nanmin(centre, axis=0), np.nanmax(centre, axis=0)
    reach = 1.1 * radius_m / _METRES_PER_DEGREE + 1e-6
    close = (places[:, 0] >= low[0] - reach) & (places[:, 0] <= high[0] + reach)
    across = reach / max(0.01, np.cos(np.radians(min(89.0, np.abs([low[0], high[0]]).max() + reach))))
    # Longitudes wrap around at 180 degrees.
    middle, half = (low[1] + high[1]) / 2, (high[1] - low[1]) / 2 + across
    close &= np.abs((places[:, 1] - middle + 180) % 360 - 180) <= half
    rest, places = rest[close], places[close]
    if not len(rest):
        return planar, others.utm_m[planar], np.zeros(len(planar), bool)
    points = project(places, int(here.zones[0]), south=bool(here.hemispheres[0] == SOUTH))
    return (
        np.concatenate([planar, rest]),
        np.concatenate([others.utm_m[planar], points]),
        np.arange(len(planar) + len(rest)) >= len(planar),
    )


def _cells(points: Floats, others: Floats, width_m: float) -> Iterator[Rows]:
    """Yield for each point the rows of the others in its cell of a grid and the eight around it.

    Args:
        points: (Q, 2) float64, metres.
        others: (M, 2) float64, metres.
        width_m: Width of a cell: all others nearer than this are among those yielded.
    """
    if not len(others):
        for _ in points:
            yield np.empty(0, np.int64)
        return
    # A little wider than the radius, so that rounding cannot move a neighbour two cells away.
    width_m *= 1.001
    origin = np.minimum(points.min(axis=0), others.min(axis=0)) - width_m
    cell = np.floor((others - origin) / width_m).astype(np.int64)
    x, y = np.floor((points - origin) / width_m).astype(np.int64).T
    height = int(max(cell[:, 1].max(), y.max())) + 2
    order = np.lexsort((cell[:, 1], cell[:, 0]))
    keys = (cell[:, 0] * height + cell[:, 1])[order]
    # The three adjacent cells of a column are consecutive in the sorted keys.
    columns = [(x + shift) * height + y for shift in (-1, 0, 1)]
    first = np.stack([np.searchsorted(keys, column - 1, side="left") for column in columns], axis=1)
    last = np.stack([np.searchsorted(keys, column + 1, side="right") for column in columns], axis=1)
    for begins, ends in zip(first, last, strict=True):
        yield np.concatenate([order[a:b] for a, b in zip(begins, ends, strict=True)])
