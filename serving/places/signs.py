"""Signs that an answer is right, from the ranked candidates alone; none needs another model.

What tells right from wrong best is how far the first answer leads the next place elsewhere, see
`ELSEWHERE_M`. Each sign grows with the probability that the answer is right.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from serving.places.evidence import ELSEWHERE_M, Evidence

__all__ = ["SCALE", "SIGNS", "WEIGHTS", "signs_of"]

Floats = NDArray[np.float64]

SIGNS = (
    "ratio",  # 1 minus the score of the best elsewhere over that of the first, 0..1
    "lead",  # logarithm of 1 plus their difference
    "strength",  # logarithm of 1 plus the score of the first
    "similarity",  # cosine of the first
    "similarity_lead",  # minus that of the most similar elsewhere
    "agreement",  # share of the weight of the ten best that lies near the first, 0..1
)
# About the spread of each between right answers of drawn and real sets, and how much each says where there
# are too few labelled photos to fit it: the lead over the next place elsewhere says most.
SCALE = np.array([0.2, 0.8, 0.4, 0.15, 0.15, 0.2])
WEIGHTS = np.array([1.0, 0.5, 0.25, 0.5, 0.5, 0.25])
_BEST = 10


def signs_of(evidence: Evidence) -> Floats:
    """Return (6,) float64: the values of `SIGNS`."""
    scores = np.where(np.isfinite(evidence.scores), evidence.scores, -np.inf)
    elsewhere = evidence.from_first_m > ELSEWHERE_M
    first = float(scores[0]) if math.isfinite(scores[0]) else 0.0
    rival = max(0.0, float(scores[elsewhere].max(initial=0.0)))
    similar = float(evidence.similarity[elsewhere].max(initial=-1.0)) if elsewhere.any() else 0.0
    weights = evidence.weights[:_BEST]
    return np.array(
        [
            1.0 - min(1.0, rival / first) if first > 0 else 0.0,
            math.log1p(max(0.0, first - rival)),
            math.log1p(max(0.0, first)),
            float(evidence.similarity[0]),
            float(evidence.similarity[0]) - similar,
            float(weights[~elsewhere[:_BEST]].sum() / max(weights.sum(), 1e-9)),
        ]
    )
