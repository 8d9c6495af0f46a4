"""The hidden Markov model of a drive: its states, and the step from one frame to the next."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from serving.tracks.markov import Step
from serving.tracks.motion import USUAL_WEIGHT, Motion, Moves
from serving.tracks.place_graph import Views

__all__ = ["USUAL", "Chances", "DriveModel", "Seen"]

Floats = NDArray[np.float64]
Rows = NDArray[np.int64]

_SAMPLE = 500  # views by which others are told to stand at an end
_LEAST_SHARE = 1e-9  # states below it are left out of the next step


@dataclass(frozen=True)
class Chances:
    """Probabilities per frame.

    Attributes:
        inside: That a drive begins where the store has places.
        lose: That a vehicle leaves them although they go on.
        find: That one that is lost is back.
    """

    inside: float = 0.7
    lose: float = 0.02
    find: float = 0.1


USUAL = Chances()


@dataclass(frozen=True, eq=False)
class Seen:
    """What a frame shows of the states.

    Attributes:
        states: (F,) int64, those among its candidates that stand out.
        log_likelihoods: (F,) float64, over that of a frame from nowhere.
        miss: The same of all other states; None: nothing is known about the frame.
        rarity: How much rarer they are elsewhere, which is part of their likelihood.
        weight: How much of its logarithms counts, see `Motion.weight`; they are weighed already.
    """

    states: Rows
    log_likelihoods: Floats
    miss: float | None
    rarity: float = 1.0
    weight: float = USUAL_WEIGHT


class DriveModel:
    """Steps over the views that a drive may pass.

    A view that has fewer neighbours in reach than others stands at the end of what was photographed: the
    share that would go on there is lost.

    Args:
        views: The states.
        seen: What each frame shows.
        motions: To each frame from the one before; the first is not used.
        spacing_m: Median distance between the store's places.
        chances: Probabilities.
    """

    def __init__(
        self,
        views: Views,
        seen: Sequence[Seen],
        motions: Sequence[Motion],
        *,
        spacing_m: float,
        chances: Chances = USUAL,
    ) -> None:
        self._count = len(views)
        self._seen, self._motions, self._chances = seen, motions, chances
        self._moves = Moves(spacing_m)
        self._edges = views.edges(self._moves.reach_m(motions[1:]))
        headings = views.headings_deg
        self._turns_deg = headings[self._edges.targets] - headings[self._edges.sources]
        every = max(1, self._count // _SAMPLE)
        self._sampled = np.flatnonzero(self._edges.sources % every == 0)
        self._usual: dict[Motion, float] = {}

    @property
    def start(self) -> Floats:
        """(S + 1,) float64: before the first frame all is lost."""
        start = np.zeros(self._count + 1)
        start[-1] = 1.0
        return start

    def step(self, number: int, before: Floats) -> Step:
        """Return the step to a frame; states that hardly anything leads from are left out."""
        chances, seen = self._chances, self._seen[number]
        way = seen.weight / USUAL_WEIGHT  # chances are those of a usual way between two frames
        leaks = np.ones(self._count + 1)
        edges = (
            np.flatnonzero((before[:-1] > _LEAST_SHARE)[self._edges.sources])
            if number
            else np.empty(0, np.int64)
        )
        sources, targets = self._edges.sources[edges], self._edges.targets[edges]
        weights = np.empty(0)
        if len(edges):
            motion = self._motions[number]
            weights = self._moves.weights(self._edges.metres[edges], self._turns_deg[edges], motion)
            sums = np.bincount(sources, weights=weights, minlength=self._count)
            whole = np.maximum(sums, self._usual_sum(motion))
            weights = (1 - chances.lose * way) * weights / whole[sources]
            leaks[:-1] -= np.bincount(sources, weights=weights, minlength=self._count)
        find = chances.find * way if number else chances.inside
        found = seen.states
        return Step(
            sources,
            targets,
            weights,
            leaks,
            found,
            np.full(len(found), find / (max(1, len(found)) * seen.rarity)),
            self._likelihoods(seen),
        )

    def _usual_sum(self, motion: Motion) -> float:
        """Return the median sum of the weights that leave a view, of a sample of views."""
        if motion not in self._usual:
            sampled = self._sampled
            weights = self._moves.weights(self._edges.metres[sampled], self._turns_deg[sampled], motion)
            sums = np.bincount(self._edges.sources[sampled], weights=weights, minlength=self._count)
            self._usual[motion] = float(np.median(sums[sums > 0])) if (sums > 0).any() else 0.0
        return max(self._usual[motion], 1e-12)

    def _likelihoods(self, seen: Seen) -> Floats:
        if seen.miss is None:
            return np.ones(self._count + 1)
        logs = np.full(self._count + 1, seen.miss)
        logs[-1] = 0.0
        logs[seen.states] = seen.log_likelihoods
        return np.asarray(np.exp(logs - logs.max()))
