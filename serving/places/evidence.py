"""The ranked candidates of a query as evidence for a place: points on a plane, and a weight for each."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from serving.answer import Match
from serving.priors.soft_prior import weighed_similarity
from storage.local_plane import LocalPlane
from storage.position import Positions

__all__ = ["ELSEWHERE_M", "RANKED_BY", "Evidence", "ranked_by"]

Floats = NDArray[np.float64]

ELSEWHERE_M = 25.0  # beyond it an image shows another place: the next image of a street is no rival
RANKED_BY = ("votes", "count", "similarity")
_FLOOR = 0.9  # quantile of the scores elsewhere


@dataclass(frozen=True, eq=False)
class Evidence:
    """N candidates with a position, the best first.

    Attributes:
        matches: The candidates.
        plane: Where their positions are points.
        points: (N, 2) float64, metres.
        scores: (N,) float64, what they are ranked by; NaN where it is not known, beyond those re-ranked.
        similarity: (N,) float64, cosine similarity of descriptors.
        from_first_m: (N,) float64, distance to the first.
        kind: What the scores are, one of `RANKED_BY`.
    """

    matches: tuple[Match, ...]
    plane: LocalPlane
    points: Floats
    scores: Floats
    similarity: Floats
    from_first_m: Floats
    kind: str

    @classmethod
    def of(cls, matches: Sequence[Match]) -> Evidence | None:
        """Read the evidence from ranked matches; None where none of them has a position."""
        columns = Positions.of([match.record.position for match in matches])
        known = columns.known
        if not known.any():
            return None
        placed = tuple(match for match, has in zip(matches, known.tolist(), strict=True) if has)
        columns = columns.take(known)
        plane = LocalPlane.around(columns)
        points = plane.points(columns)
        kind = ranked_by(matches)
        similarity = np.array([match.similarity for match in placed], np.float64)
        weights = np.array([match.prior_weight or 1.0 for match in placed], np.float64)
        scores = weighed_similarity(similarity, weights)
        if kind != "similarity":
            scores = np.array([match.score for match in placed], np.float64)  # None becomes NaN
        usable = np.asarray(np.isfinite(points).all(axis=1), np.bool_)
        if not usable.all():
            placed = tuple(match for match, has in zip(placed, usable.tolist(), strict=True) if has)
            points, scores, similarity = points[usable], scores[usable], similarity[usable]
        return cls(placed, plane, points, scores, similarity, np.hypot(*(points - points[0]).T), kind)

    def __len__(self) -> int:
        return len(self.matches)

    @property
    def weights(self) -> Floats:
        """(N,) float64 from 0 to 1: how far each stands out of the candidates elsewhere, 1 for the first.

        What any street reaches says nothing about the place: the score that a tenth of the candidates
        elsewhere exceed counts as 0.
        """
        scores = np.where(np.isfinite(self.scores), self.scores, -np.inf)
        elsewhere = scores[(self.from_first_m > ELSEWHERE_M) & np.isfinite(scores)]
        floor = float(np.quantile(elsewhere, _FLOOR)) if len(elsewhere) else 0.0
        lead = scores[0] - floor
        if not np.isfinite(lead) or lead <= 0:
            return np.asarray(self.from_first_m == 0.0, np.float64)
        return np.asarray(np.clip((scores - floor) / lead, 0.0, 1.0))


def ranked_by(matches: Sequence[Match]) -> str:
    """Return what the matches are ranked by."""
    kinds = (match.score_kind for match in matches if match.score is not None)
    return str(next(kinds, "similarity"))
