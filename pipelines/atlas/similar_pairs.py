"""Pairs of stored images that are similar, split by whether they were taken at one place or far apart."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from storage.neighbourhoods import nearby
from storage.position import Positions

__all__ = ["SimilarPairs", "find_pairs", "leave_one_out"]

_BLOCK = 512
_NEIGHBOURS = 24  # most similar images that are looked at for each
_MAX_ROWS = 20_000  # whose neighbours are looked for, evenly spaced in larger stores


@dataclass(frozen=True, eq=False)
class SimilarPairs:
    """Pairs of rows, each once, the most similar first.

    Attributes:
        rows: (P, 2) int64, the first below the second.
        similarity: (P,) float32, cosine similarity of descriptors.
        distance_m: (P,) float64, metres.
        looked_at: Rows whose neighbours were looked for.
    """

    rows: NDArray[np.int64]
    similarity: NDArray[np.float32]
    distance_m: NDArray[np.float64]
    looked_at: int

    def where(self, chosen: NDArray[np.bool_]) -> SimilarPairs:
        """Return some of the pairs."""
        return SimilarPairs(
            self.rows[chosen], self.similarity[chosen], self.distance_m[chosen], self.looked_at
        )


def find_pairs(descriptors: NDArray[np.float32], positions: Positions) -> SimilarPairs:
    """Find the most similar images of each image, by comparing all descriptors exactly.

    Args:
        descriptors: (N, D), unit L2 norm.
        positions: N positions; pairs of unknown ones are left out.
    """
    count = len(descriptors)
    looked = np.unique(np.linspace(0, max(0, count - 1), min(count, _MAX_ROWS)).astype(np.int64))
    found: list[NDArray[np.int64]] = []
    values: list[NDArray[np.float32]] = []
    kept = min(_NEIGHBOURS, max(0, count - 1))
    for first in range(0, len(looked), _BLOCK):
        rows = looked[first : first + _BLOCK]
        similarity = descriptors[rows] @ descriptors.T
        similarity[np.arange(len(rows)), rows] = -np.inf
        nearest = np.argpartition(-similarity, kept - 1, axis=1)[:, :kept] if kept else np.empty((0, 0), int)
        found.append(np.stack([np.repeat(rows, kept), nearest.ravel()], axis=1))
        values.append(np.take_along_axis(similarity, nearest, axis=1).ravel())
    pairs = np.sort(np.concatenate([*found, np.empty((0, 2), np.int64)]), axis=1)
    similarities = np.concatenate([*values, np.empty(0, np.float32)])
    pairs, once = np.unique(pairs, axis=0, return_index=True)
    similarities = similarities[once]
    metres = positions.take(pairs[:, 0]).paired_distances_m(positions.take(pairs[:, 1]))
    known = np.isfinite(metres)
    order = np.argsort(-similarities[known], kind="stable")
    return SimilarPairs(pairs[known][order], similarities[known][order], metres[known][order], len(looked))


def leave_one_out(
    descriptors: NDArray[np.float32],
    positions: Positions,
    removed: NDArray[np.bool_],
    *,
    threshold_m: float,
    sample: int = 2_000,
) -> tuple[float, float, int]:
    """Measure what removing rows costs: each row asks for its place, without itself.

    Args:
        descriptors: (N, D), unit L2 norm.
        positions: N positions.
        removed: (N,) rows that are removed.
        threshold_m: Distance up to which an answer is right.
        sample: Rows that ask at most, evenly spaced among those with another image of their place.

    Returns:
        Recall at 1 by global descriptor in percent, before and after, and how many rows asked.
    """
    possible = np.flatnonzero(nearby(positions, positions, threshold_m).counts() > 1)
    if not len(possible):
        return 0.0, 0.0, 0
    asking = possible[np.unique(np.linspace(0, len(possible) - 1, min(len(possible), sample)).astype(int))]
    right = np.zeros(2)
    for first in range(0, len(asking), _BLOCK):
        rows = asking[first : first + _BLOCK]
        similarity = descriptors[rows] @ descriptors.T
        similarity[np.arange(len(rows)), rows] = -np.inf
        for which in range(2):
            if which:
                similarity[:, removed] = -np.inf
            best = similarity.argmax(axis=1)
            metres = positions.take(rows).paired_distances_m(positions.take(best))
            right[which] += (metres <= threshold_m + 1e-6).sum()
    before, after = (100.0 * right / len(asking)).tolist()
    return round(before, 2), round(after, 2), len(asking)
