"""Scores of candidates that are compared, from their mutual nearest neighbours with the query."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from numpy.typing import NDArray

from models.matching.votes import vote_scores

__all__ = ["SCORES", "Score"]

# partner (K, N) int16, similarity (K, N) float32, grid (H, W) of both maps, similarity of descriptors (K,)
# float32; returns (K,) float, the best is the largest.
Score = Callable[
    [NDArray[np.int16], NDArray[np.float32], tuple[int, int], NDArray[np.float32]], NDArray[np.floating]
]


def count(
    partner: NDArray[np.int16],
    similarity: NDArray[np.float32],
    grid: tuple[int, int],
    global_similarity: NDArray[np.float32],
) -> NDArray[np.floating]:
    """Mutual neighbours of cosine similarity 0.6 and more."""
    return ((partner >= 0) & (similarity >= 0.6)).sum(axis=1).astype(np.float64)


def count_all(
    partner: NDArray[np.int16],
    similarity: NDArray[np.float32],
    grid: tuple[int, int],
    global_similarity: NDArray[np.float32],
) -> NDArray[np.floating]:
    """All mutual neighbours, as published for SelaVPR."""
    return (partner >= 0).sum(axis=1).astype(np.float64)


def votes(
    partner: NDArray[np.int16],
    similarity: NDArray[np.float32],
    grid: tuple[int, int],
    global_similarity: NDArray[np.float32],
) -> NDArray[np.floating]:
    """Votes on displacement, as `--score votes`."""
    scores = vote_scores(torch.from_numpy(partner), torch.from_numpy(similarity), grid)
    return np.asarray(scores.numpy())


SCORES: dict[str, Score] = {"count": count, "count all": count_all, "votes": votes}
