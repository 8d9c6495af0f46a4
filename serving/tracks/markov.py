"""Forward filtering with fixed-lag smoothing over a sparse hidden Markov model with a state `lost`.

The recursions are those of Rabiner, "A tutorial on hidden Markov models" (Proceedings of the IEEE, 1989),
section III, with the distribution scaled to sum 1 after every step. The distribution of a frame is given once
`lag` further frames are known, so that what a live drive was told does not change later (Anderson and Moore,
"Optimal filtering", 1979, chapter 7).
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

__all__ = ["Belief", "Step", "smoothed"]

Floats = NDArray[np.float64]
Rows = NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class Step:
    """How the S states and `lost` of one frame lead to those of the next, and how likely each makes that.

    What leaves a state goes along edges to others, or leaks. All that leaked, together with what was lost,
    stays lost or is found in any of some states: so each state reaches each of these, without an edge.

    Attributes:
        sources: (E,) int64 states.
        targets: (E,) int64 states.
        weights: (E,) float64 probabilities.
        leaks: (S + 1,) float64, the rest of each state's probability; 1 for `lost`, the last.
        found: (F,) int64 states.
        found_weights: (F,) float64 probabilities; what is missing to 1 stays lost.
        likelihoods: (S + 1,) float64, of the frame in each state, up to a common factor.
    """

    sources: Rows
    targets: Rows
    weights: Floats
    leaks: Floats
    found: Rows
    found_weights: Floats
    likelihoods: Floats

    def forward(self, before: Floats) -> Floats:
        """Return (S + 1,) the distribution that follows from one, without what the frame shows."""
        count = len(self.leaks)
        moved = _sums(self.targets, self.weights * before[self.sources], count)
        leaked = float(self.leaks @ before)
        np.add.at(moved, self.found, leaked * self.found_weights)
        moved[-1] += leaked * (1.0 - self.found_weights.sum())
        return moved

    def backward(self, after: Floats) -> Floats:
        """Return (S + 1,) the expectation of values of the next frame, by state: the transpose."""
        count = len(self.leaks)
        carried = _sums(self.sources, self.weights * after[self.targets], count)
        lost = self.found_weights @ after[self.found] + (1.0 - self.found_weights.sum()) * after[-1]
        return np.asarray(carried + self.leaks * lost)


@dataclass(frozen=True, eq=False)
class Belief:
    """The distribution over the states of one frame, given the frames up to `lag` later.

    Attributes:
        shares: (S,) float64.
        lost: Share of `lost`; all sum to 1.
    """

    shares: Floats
    lost: float


def smoothed(
    step_of: Callable[[int, Floats], Step], frames: int, *, start: Floats, lag: int
) -> Iterator[Belief]:
    """Yield the belief of each frame.

    Args:
        step_of: Returns the step that leads to a frame, given its number and the distribution before it,
            which tells what states may be left out.
        frames: How many there are.
        start: (S + 1,) float64, the distribution before the first.
        lag: How many further frames each belief knows; 0 filters.
    """
    held: deque[tuple[Step, Floats]] = deque()
    before = start
    for number in range(frames):
        step = step_of(number, before)
        before = _scaled(step.forward(before) * step.likelihoods)
        held.append((step, before))
        if len(held) > lag:
            yield _looking_back(held)
            held.popleft()
    while held:
        yield _looking_back(held)
        held.popleft()


def _looking_back(held: deque[tuple[Step, Floats]]) -> Belief:
    """Return the belief of the first of some frames, given all of them."""
    later = np.ones_like(held[0][1])
    for at in range(len(held) - 1, 0, -1):
        step = held[at][0]
        later = step.backward(step.likelihoods * later)
        later /= max(float(later.max()), 1e-300)
    shares = _scaled(held[0][1] * later)
    return Belief(shares[:-1], float(shares[-1]))


def _sums(rows: Rows, values: Floats, count: int) -> Floats:
    # NumPy counts in whole numbers where there is nothing to sum.
    return np.bincount(rows, weights=values, minlength=count).astype(np.float64)


def _scaled(values: Floats) -> Floats:
    """Return values that sum to 1; all lost where nothing is left of them."""
    total = float(values.sum())
    if total > 0 and np.isfinite(total):
        return np.asarray(values / total)
    lost = np.zeros_like(values)
    lost[-1] = 1.0
    return lost
