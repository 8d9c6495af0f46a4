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
    """Cluster cells by k-means: k-means++ seeds, then 25 rounds of Lloyd, in fixed order.

    Arthur and Vassilvitskii, "k-means++: the advantages of careful seeding", SODA 2007; Lloyd, "Least squares
    quantization in PCM", 1982. The random numbers are seeded, so the same cells in the same order give the
    same words, on one machine with the same number of threads to the last bit; elsewhere a matrix product may
    round differently.

    Args:
        cells: (M, C) float32.
        count: K, the number of words.
        seed: Of the random numbers: another one gives other words.

    Returns:
        (K, C) float32. With fewer distinct cells than words some words are equal.
    """
    words = _seeds(cells, count, np.random.default_rng(seed))
    rows, labels = np.arange(len(cells)), np.full(len(cells), -1)
    for _ in range(_ROUNDS):
        former, labels = labels, np.argmax(cells @ words.T - np.square(words).sum(axis=1) / 2, axis=1)
        if np.array_equal(former, labels):
            break
        # A product with ones where a cell has a word adds up cells faster than sorting them by word.
        belongs = np.zeros((len(cells), count), np.float32)
        belongs[rows, labels] = 1
        sizes = np.bincount(labels, minlength=count)
        filled = sizes > 0  # words without cells stay
        words[filled] = ((belongs.T @ cells)[filled] / sizes[filled, None]).astype(np.float32)
    return words


def _seeds(cells: NDArray[np.float32], count: int, random: np.random.Generator) -> NDArray[np.float32]:
    """Choose cells far from each other as first words, (K, C): each by chance, in proportion to its squared
    distance from those before."""
    squares = np.square(cells).sum(axis=1)
    words = np.empty((count, cells.shape[1]), np.float32)
    nearest = np.full(len(cells), np.inf, np.float32)
    chosen = int(random.integers(len(cells)))
    for at in range(count):
        words[at] = cells[chosen]
        distance = squares + squares[chosen] - 2 * (cells @ cells[chosen])
        nearest = np.minimum(nearest, np.maximum(distance, 0))
        total = np.cumsum(nearest, dtype=np.float64)
        chosen = min(int(np.searchsorted(total, random.random() * total[-1], side="right")), len(cells) - 1)
    return words
