"""How likely each view makes a frame, from the scores of its matches.

A candidate says as much as its score stands out of those elsewhere, which any street reaches: the floor is
the tenth best score elsewhere, however many candidates there are. What it says is a ratio of
likelihoods: of a lead such as this where the frame was taken, over the same where it was not. That is how
much rarer a candidate above the floor is elsewhere, times a ratio of densities whose logarithm is linear in
the lead and bounded; `benchmarks/bench_drives.py` prints the densities. How much of the logarithm counts is
said by `serving.tracks.motion`: frames near each other show the same houses and err together.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from serving.places.evidence import ELSEWHERE_M, Evidence

__all__ = ["EMISSIONS", "Emission", "leads_of", "rarity_of"]

Floats = NDArray[np.float64]

_RANK = 10  # of the score elsewhere that is the floor; the middle one where there are fewer than 20
_ALONE = 0.5  # of the first score: the floor where no candidate is elsewhere
_MOST = 5.0  # largest lead
MAX_RARITY = 1_000


@dataclass(frozen=True)
class Emission:
    """The likelihood of a frame by the lead of a view among its candidates.

    Attributes:
        slope: Of the logarithm of the ratio of densities.
        offset: That logarithm for a lead of 0.
        most: Its largest value.
        seen: Share of frames whose view is a candidate above the floor.
    """

    slope: float
    offset: float
    most: float
    seen: float = 0.8

    def log_likelihoods(self, leads: Floats, rarity: float) -> Floats:
        """Return the logarithms for leads above 0, over the likelihood of a frame from elsewhere.

        Args:
            leads: (F,) float64, of all views above the floor.
            rarity: As of `rarity_of`.
        """
        densities = np.minimum(self.offset + self.slope * leads, self.most)
        return np.asarray(math.log(rarity) + math.log(self.seen) + densities)

    @property
    def miss(self) -> float:
        """The logarithm for all other views."""
        return math.log(1.0 - self.seen)


EMISSIONS = {
    "votes": Emission(slope=5.7, offset=-1.9, most=3.0),
    "count": Emission(slope=7.0, offset=-1.4, most=3.0, seen=0.76),
    "similarity": Emission(slope=1.15, offset=-1.1, most=3.0, seen=0.71),
}
"""By what candidates are ranked by."""


def rarity_of(candidates: int, views: int) -> float:
    """Return how much rarer a candidate above the floor is elsewhere, at least 1.

    Args:
        candidates: Views above the floor.
        views: Of the store; more than 1,000 count as 1,000, since rivals come from streets alike.
    """
    return float(max(1.0, min(views, MAX_RARITY) / max(1, candidates)))


def leads_of(evidence: Evidence) -> Floats:
    """Return (N,) float64: how far each candidate stands out of those elsewhere, 0 at most for the others.

    Scores by matches are counts: their lead is the logarithm of the ratio to the floor. Similarities are not:
    their lead is in units of the distance from the median elsewhere to the floor.
    """
    scores = np.where(np.isfinite(evidence.scores), evidence.scores, -np.inf)
    elsewhere = np.sort(scores[(evidence.from_first_m > ELSEWHERE_M) & np.isfinite(scores)])[::-1]
    if evidence.kind == "similarity":
        if len(elsewhere) < 2:
            return np.asarray(np.where(evidence.from_first_m <= ELSEWHERE_M, 1.0, 0.0))
        floor, middle = _floor(elsewhere), float(np.median(elsewhere))
        leads = (scores - floor) / max(floor - middle, 1e-3)
    else:
        floor = _floor(elsewhere) if len(elsewhere) else _ALONE * float(scores[0])
        leads = np.log(np.maximum(scores, 1e-9) / max(floor, 1.0))
    return np.asarray(np.clip(np.nan_to_num(leads, nan=0.0, neginf=0.0), 0.0, _MOST))


def _floor(elsewhere: Floats) -> float:
    return float(elsewhere[min(_RANK, len(elsewhere) // 2)])
