"""From the belief of one frame to a position with a radius."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from serving.tracks.city_map import CityMap
from serving.tracks.markov import Belief
from serving.tracks.place_graph import Views
from storage.local_plane import LocalPlane
from storage.position import Position

__all__ = ["Located", "Whereabouts"]

Floats = NDArray[np.float64]
Rows = NDArray[np.int64]

RIGHT_M = 25.0  # as in the published protocols
KNOWN = 0.5  # least probability of a place that is called known
_HOLDS = 0.9
_BESIDE_M = (
    1.5  # standard deviation across the street, as of lanes; along it, of half a spacing to both sides
)
_RINGS, _TURNS = 4, 8  # points that stand for where a vehicle is whose place is known
_MAX_VIEWS, _MAX_CENTRES = 200, 24  # that a position is made of, or may lie at
_LEAST = 1e-4  # of the most probable view


@dataclass(frozen=True)
class Located:
    """Where a frame was taken.

    Attributes:
        position: The most probable place; None where none is at hand.
        radius_m: Holds the truth with 90 % if the frame was taken in the store's city.
        heading_deg: Direction of view of the store's images there; None where it is not known.
        probability: That the frame was taken within 25 m of the position.
        lost: Probability that it was taken where the store has no places.
        known: Whether the place is at least as probable as not.
        image_id: The stored image that says most about the place; None where none is at hand.
    """

    position: Position | None
    radius_m: float | None
    heading_deg: float | None
    probability: float
    lost: float
    known: bool
    image_id: str | None


class Whereabouts:
    """Makes positions for the frames of one drive.

    Args:
        views: Those that the drive may pass.
        region: (V,) int64, their rows among all views of the store.
        city: The store's places.
        spacing_m: Median distance between them.
    """

    def __init__(self, views: Views, region: Rows, city: CityMap, spacing_m: float) -> None:
        self._views, self._region, self._city = views, region, city
        self._positions = city.columns_of_views(region)
        self._around_m = _between_places(spacing_m)

    def of(self, belief: Belief, own: Floats) -> Located:
        """Return the position with the most probability within 25 m, and how far the rest of it reaches.

        Args:
            belief: Of the frame.
            own: (V,) float64, logarithms by which what the frame itself shows weighs within these 25 m.
        """
        rows = self._rows_of(belief.shares)
        if not len(rows):
            return Located(None, None, None, 0.0, belief.lost, False, None)
        points, shares = self._views.points[rows], belief.shares[rows]
        apart = np.sqrt(((points[:_MAX_CENTRES, None] - points[None]) ** 2).sum(axis=2))
        centre = int(np.argmax((apart <= RIGHT_M) @ shares))
        group = np.flatnonzero(apart[centre] <= RIGHT_M)
        weights = shares[group] * np.exp(own[rows[group]] - own[rows[group]].max())
        weights /= weights.sum()
        centred = np.concatenate([rows[[centre]], rows])
        plane = LocalPlane.around(self._positions.take(centred))
        on_plane = plane.points(self._positions.take(rows))
        point = weights @ on_plane[group]
        from_point = on_plane - point
        away = np.hypot(*from_point.T)
        probability = float(shares[away <= RIGHT_M].sum())
        best = rows[group[np.argmax(weights)]]
        return Located(
            position=plane.position(point),
            radius_m=self._radius_m(from_point, shares),
            heading_deg=_mean_heading(self._views.headings_deg[rows[group]], weights),
            probability=probability,
            lost=belief.lost,
            known=probability >= KNOWN,
            image_id=self._city.image_id(int(self._city.graph.image_of[self._region[best]])),
        )

    def _rows_of(self, shares: Floats) -> Rows:
        """Return the most probable views, the best first."""
        count = min(_MAX_VIEWS, len(shares))
        if not count:
            return np.empty(0, np.int64)
        rows = np.argpartition(-shares, count - 1)[:count]
        rows = rows[np.argsort(-shares[rows], kind="stable")]
        return np.asarray(rows[shares[rows] > _LEAST * shares[rows[0]]], np.int64)

    def _radius_m(self, from_point_m: Floats, shares: Floats) -> float:
        """Return what holds 90 % of the probability inside the city.

        Args:
            from_point_m: (N, 2) float64, the views as seen from the position.
            shares: (N,) float64 of the views.
        """
        away = np.hypot(*(from_point_m[:, None] + self._around_m).transpose(2, 0, 1))
        held = np.repeat(shares / away.shape[1], away.shape[1])
        order = np.argsort(away, axis=None, kind="stable")
        reached = np.cumsum(held[order])
        at = min(int(np.searchsorted(reached, _HOLDS * reached[-1])), len(order) - 1)
        return float(away.reshape(-1)[order[at]])


def _between_places(spacing_m: float) -> Floats:
    """Return (P, 2) float64: equally probable ways in metres from a view to the vehicle that sees it.

    A vehicle is anywhere between two places: a standard deviation of the spacing over the root of 12. A
    normal distribution of that size is cut into rings of equal probability.
    """
    sigma_m = np.hypot(spacing_m / np.sqrt(12.0), _BESIDE_M)
    rings = sigma_m * np.sqrt(-2.0 * np.log(1.0 - (np.arange(_RINGS) + 0.5) / _RINGS))
    turns = 2 * np.pi * np.arange(_TURNS) / _TURNS
    ways = rings[:, None, None] * np.stack([np.cos(turns), np.sin(turns)], axis=-1)
    return np.asarray(ways.reshape(-1, 2))


def _mean_heading(headings_deg: Floats, weights: Floats) -> float | None:
    known = np.isfinite(headings_deg)
    if not known.any():
        return None
    radians = np.radians(headings_deg[known])
    east, north = weights[known] @ np.sin(radians), weights[known] @ np.cos(radians)
    if np.hypot(east, north) < 0.5 * weights[known].sum():
        return None
    return float(np.degrees(np.arctan2(east, north)) % 360.0)
