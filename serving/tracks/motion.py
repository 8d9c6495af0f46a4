"""How a vehicle moves from one frame to the next, and what that says about edges between views."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from serving.tracks.defaults import DEFAULT_FPS

__all__ = ["LEAST_WEIGHT", "USUAL_WEIGHT", "Motion", "Moves", "at_rate", "at_speed"]

Floats = NDArray[np.float64]

_USUAL_M_PER_S, _FASTEST_M_PER_S = 10.0, 30.0  # in a city, where nothing else is known
_DISTANCE_ERROR, _TURN_SPREAD_DEG = 0.15, 45.0
_SPACINGS = 0.5  # of the store's places: how far a view may lie from the vehicle
_ANY_TURN = 0.15  # of the probability, whatever the headings: views do not turn as the vehicle does
_MAX_REACH_M = 250.0
USUAL_WEIGHT = 0.5  # also of the first frame
LEAST_WEIGHT = 0.01
_HALF_NEW_M, _ALL_NEW_M = 5.0, 16.0


@dataclass(frozen=True)
class Motion:
    """What is known about the way from the frame before to a frame.

    Attributes:
        distance_m: Travelled; None: not known.
        turn_deg: Turned to the right; None: not known.
        usual_m: Where the distance is not known: its mean.
        fastest_m: Where the distance is not known: its maximum.
    """

    distance_m: float | None = None
    turn_deg: float | None = None
    usual_m: float = _USUAL_M_PER_S / DEFAULT_FPS
    fastest_m: float = _FASTEST_M_PER_S / DEFAULT_FPS

    @property
    def weight(self) -> float:
        """How much of the logarithm of what a frame shows counts, 0.01..1.

        Frames near each other show the same houses and err together: a half counts of one 5 to 8 m after the
        one before, in proportion to the distance below and above, and all of it from 16 m on. A vehicle at
        rest repeats itself, and so does a video.
        """
        metres = self.usual_m if self.distance_m is None else self.distance_m
        near = USUAL_WEIGHT * min(1.0, metres / _HALF_NEW_M)
        return max(LEAST_WEIGHT, near, min(1.0, metres / _ALL_NEW_M))


def at_rate(frames: int, fps: float = DEFAULT_FPS) -> list[Motion]:
    """Return motions of frames of which only the rate is known."""
    return [Motion(usual_m=_USUAL_M_PER_S / fps, fastest_m=_FASTEST_M_PER_S / fps)] * frames


def at_speed(frames: int, speed_m_per_s: float, fps: float = DEFAULT_FPS) -> list[Motion]:
    """Return motions of frames at a steady speed."""
    return [Motion(distance_m=speed_m_per_s / fps)] * frames


@dataclass(frozen=True)
class Moves:
    """The weights of edges for a store.

    Attributes:
        spacing_m: Median distance between the store's places.
    """

    spacing_m: float

    def reach_m(self, motions: Sequence[Motion]) -> float:
        """Return up to which distance views must be joined for a drive, at most 250 m."""
        farthest = max((self._farthest_m(motion) for motion in motions), default=0.0)
        return min(max(farthest, 1.5 * self.spacing_m), _MAX_REACH_M)

    def weights(self, metres: Floats, turns_deg: Floats, motion: Motion) -> Floats:
        """Return (E,) float64 for edges: how well each fits a motion; the best is about 1.

        Args:
            metres: (E,) float64, length of each.
            turns_deg: (E,) float64, difference of the headings of its views; NaN unknown.
            motion: From frame to frame.
        """
        if motion.distance_m is None:
            usual_m = max(motion.usual_m, self.spacing_m)
            along = np.exp(-np.maximum(metres - usual_m, 0.0) / usual_m)  # no way up to the usual is rarer
            along = np.where(metres <= motion.fastest_m + self.spacing_m, along, 0.0)
        else:
            along = np.exp(-0.5 * ((metres - motion.distance_m) / self._spread_m(motion.distance_m)) ** 2)
        off_deg = (turns_deg - (motion.turn_deg or 0.0) + 180.0) % 360.0 - 180.0
        turned = _ANY_TURN + (1 - _ANY_TURN) * np.exp(-0.5 * (off_deg / _TURN_SPREAD_DEG) ** 2)
        return np.asarray(along * np.where(np.isfinite(off_deg), turned, 1.0))

    def _spread_m(self, distance_m: float) -> float:
        return math.hypot(_SPACINGS * self.spacing_m, _DISTANCE_ERROR * distance_m, 1.0)

    def _farthest_m(self, motion: Motion) -> float:
        if motion.distance_m is None:
            return motion.fastest_m + self.spacing_m
        return motion.distance_m + 3 * self._spread_m(motion.distance_m)
