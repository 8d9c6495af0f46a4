"""Visual words: k-means of the local features of a sample of photos."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

__all__ = ["learn_words", "sample_cells"]

_ROUNDS = 25
_CELLS = 40_000


def sample_cells(features: NDArray[np.float32], share: float) -> NDArray[np.float32]:
    """Return evenly spaced cells of photos.

    Args:
        features: (B, N, C) float32 cells.
        share: Of the cells, up to 1.

    Returns:
        (M, C) float32, the same number of each photo.
    """
    count = features.shape[1]
    kept = min(count, max(1, round(count * share)))
    chosen = np.linspace(0, count - 1, kept).round().astype(int)
    return features[:, chosen].reshape(-1, features.shape[-1])


def cells_share(photos: int, cells: int) -> float:
    """Return the share of the cells of each of so many photos that suffices to learn words."""
    return min(1.0, _CELLS / max(1, photos * cells))


def learn_words(cells: NDArray[np.float32], count: int, *, seed: int = 0) -> NDArray[np.float32]:
    """Cluster cells by k-means: k-means++ seeds, then 25 rounds of Lloyd, all in float64 and in fixed order.

    Arthur and Vassilvitskii, "k-means++: the advantages of careful seeding", SODA 2007; Lloyd, "Least squares
    quantization in PCM", 1982. The random numbers are seeded, so the same cells in the same order give the
    same words, on one machine to the last bit; on another one a matrix product may round differently.

    Args:
        cells: (M, C) float32.
        count: K, the number of words.
        seed: Of the random numbers: another one gives other words.

    Returns:
        (K, C) float32. With fewer distinct cells than words some words are equal.
    """
    random = np.random.default_rng(seed)
    points = cells.astype(np.float64)
    squares = np.square(points).sum(axis=1)
    words = np.empty((count, points.shape[1]))
    nearest = np.full(len(points), np.inf)
    chosen = int(random.integers(len(points)))
    for at in range(count):
        words[at] = points[chosen]
        distance = squares + squares[chosen] - 2 * (points @ points[chosen])
        nearest = np.minimum(nearest, np.maximum(distance, 0))
        total = np.cumsum(nearest)
        chosen = min(int(np.searchsorted(total, random.random() * total[-1], side="right")), len(points) - 1)
    for _ in range(_ROUNDS):
        labels = np.argmax(points @ words.T - np.square(words).sum(axis=1) / 2, axis=1)
        order = np.argsort(labels, kind="stable")
        sizes = np.bincount(labels, minlength=count)
        filled = np.flatnonzero(sizes)
        starts = np.concatenate(([0], np.cumsum(sizes)[:-1]))[filled]
        words[filled] = np.add.reduceat(points[order], starts, axis=0) / sizes[filled, None]
    return words.astype(np.float32)
