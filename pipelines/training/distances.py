"""Distances in metres between all photos of a batch, for losses over pairs."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from pipelines.training.data import TrainingSet
from storage.position import Positions

__all__ = ["BatchDistances"]


class BatchDistances:
    """Distances between the photos of triplets.

    Args:
        training: The photos that rows of triplets mean.
    """

    def __init__(self, training: TrainingSet) -> None:
        sides = training.queries.positions, training.database.positions
        self._queries = len(sides[0])
        self._all = Positions(
            *(
                np.concatenate([getattr(side, name) for side in sides])
                for name in ("utm_m", "degrees", "zones", "hemispheres")
            )
        )

    def of(self, triplets: NDArray[np.int64]) -> NDArray[np.float64]:
        """Return (n, n) metres between all photos, query by query with its positive and negatives.

        Unknown ones are infinite, so that they are pairs of no place.

        Args:
            triplets: (b, 1 + 1 + N) rows, n = b (2 + N).
        """
        rows = np.concatenate([triplets[:, :1], triplets[:, 1:] + self._queries], axis=1).reshape(-1)
        left, right = np.repeat(rows, len(rows)), np.tile(rows, len(rows))
        metres = self._all.take(left).paired_distances_m(self._all.take(right))
        apart = np.where(np.isfinite(metres), metres, np.inf).reshape(len(rows), len(rows))
        np.fill_diagonal(apart, 0)
        return apart
