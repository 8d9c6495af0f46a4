"""A soft prior: places near a position rank better, and none is left out.

The prior is a Gaussian around the position, mixed with an even share for everywhere else (a contaminated
distribution: Huber, "Robust statistics", 1981), for photos that were taken elsewhere after all. Scores are
evidence on a scale of ratios: counts and votes as they are, similarities by their exponential.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from storage.position import Position, Positions
from storage.records import Candidate
from storage.search.filters.errors import BadFilter

__all__ = ["ELSEWHERE", "SIMILARITY_SCALE", "SoftPrior", "weighed_score", "weighed_similarity"]

Floats = npt.NDArray[np.float64]

# Evidence that is more than three times as strong wins against any prior. `benchmarks/bench_priors.py` has
# other shares beside it.
ELSEWHERE = 0.3
SIMILARITY_SCALE = 0.05
MAX_SIGMA_M = 20_004_000.0


@dataclass(frozen=True)
class SoftPrior:
    """Where a photo was probably taken.

    Attributes:
        lat: Latitude in degrees.
        lon: Longitude in degrees, -180 to 180.
        sigma_m: Standard deviation of that position in metres.

    Raises:
        BadFilter: a value is out of range.
    """

    lat: float
    lon: float
    sigma_m: float

    def __post_init__(self) -> None:
        if not (abs(self.lat) <= 90 and abs(self.lon) <= 180):
            raise BadFilter(
                f"{self.lat},{self.lon} is not a position: give latitude and longitude in degrees, "
                "such as 48.137,11.575"
            )
        if not 0 < self.sigma_m <= MAX_SIGMA_M:
            raise BadFilter(f"a standard deviation of {self.sigma_m:g} m cannot be used: give one above 0")

    def weights(self, positions: Sequence[Position]) -> Floats:
        """Return (N,) float64 from `ELSEWHERE` to 1, by distance; unknown positions count as far away."""
        if not positions:
            return np.empty(0)
        away = Positions.of(positions).distances_m(Position(lat=self.lat, lon=self.lon)) / self.sigma_m
        near = np.where(np.isfinite(away), np.exp(-0.5 * np.square(away)), 0.0)
        return np.asarray(ELSEWHERE + (1.0 - ELSEWHERE) * near)

    def reordered(self, hits: Sequence[Candidate]) -> tuple[list[Candidate], list[float]]:
        """Return hits by weighed similarity, best first, and their weights; ties keep their order."""
        weights = self.weights([hit.record.position for hit in hits])
        scores = weighed_similarity(np.array([hit.similarity for hit in hits], np.float64), weights)
        order = np.argsort(-scores, kind="stable").tolist()
        return [hits[row] for row in order], weights[order].tolist()


def weighed_similarity(similarity: Floats, weights: Floats) -> Floats:
    """Return similarities as they rank under a prior."""
    return np.asarray(similarity + SIMILARITY_SCALE * np.log(weights))


def weighed_score(score: float | None, weight: float) -> float | None:
    """Return a count or votes as they rank under a prior; None stays."""
    return None if score is None else score * weight
