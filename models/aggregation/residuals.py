"""Vectors of locally aggregated descriptors: how the cells of a photo differ from the visual words."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from models.runtime.products import multiplied

__all__ = ["aggregate_residuals", "multi_scale_cells"]

_TINY = np.float32(1e-12)


def multi_scale_cells(features: NDArray[np.floating]) -> NDArray[np.float32]:
    """Return the cells of a map and the means of each 2 x 2 neighbours, all of unit norm.

    Args:
        features: (B, H, W, C) float.

    Returns:
        (B, H W + (H - 1)(W - 1), C) float32, unit L2 norm; cells of zeros stay zero.
    """
    maps = unit_norm(np.asarray(features, np.float32))
    batch, height, width, channels = maps.shape
    cells = maps.reshape(batch, height * width, channels)
    if min(height, width) < 2:
        return cells
    means = maps[:, 1:, 1:] + maps[:, 1:, :-1] + maps[:, :-1, 1:] + maps[:, :-1, :-1]
    return np.concatenate([cells, unit_norm(means).reshape(batch, -1, channels)], axis=1)


def unit_norm(vectors: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return vectors (..., C) divided by their L2 norm; zeros stay zero."""
    norms = np.sqrt(np.einsum("...c,...c->...", vectors, vectors))[..., None]
    return np.asarray(vectors / np.maximum(norms, _TINY), np.float32)


def aggregate_residuals(
    cells: NDArray[np.float32], words: NDArray[np.float32], softness: float, vocabularies: int = 1
) -> NDArray[np.float32]:
    """Sum the differences between cells and words, word by word (VLAD).

    Jegou et al., "Aggregating local descriptors into a compact image representation", CVPR 2010, section 3:
    v_k = sum over cells x of a_k(x) (x - w_k). The assignment a is soft, as in Arandjelovic et al.,
    "NetVLAD", CVPR 2016, section 3.1: the softmax of -softness / 2 |x - w_k|^2. Each v_k is L2-normalised by
    itself (intra-normalisation, Arandjelovic and Zisserman, "All about VLAD", CVPR 2013, section 3.1) and so
    is the whole. Keetha et al., "AnyLoc", 2023, aggregate the features of an untrained network so. Several
    vocabularies side by side, each with an assignment of its own, depend less on the chance of k-means (Jegou
    and Chum, "Negative evidences and co-occurences in image retrieval", ECCV 2012, section 5).

    Each photo is computed by itself, so that the result does not depend on the batch.

    Args:
        cells: (B, N, C) float32.
        words: (K, C) float32, one vocabulary after the other.
        softness: Inverse temperature; large values assign each cell to its nearest word alone.
        vocabularies: How many there are, each of the same number of words.

    Returns:
        (B, K C) float32, unit L2 norm; zeros where all cells equal their words.
    """
    halves = np.square(words).sum(axis=1) / 2
    sums = np.empty((len(cells), *words.shape), np.float32)
    for out, photo in zip(sums, cells, strict=True):
        weights = multiplied(photo, words.T)
        weights -= halves
        weights *= np.float32(softness)
        by_vocabulary = weights.reshape(len(photo), vocabularies, -1)  # a view
        by_vocabulary -= by_vocabulary.max(axis=2, keepdims=True)
        np.exp(weights, out=weights)
        by_vocabulary /= by_vocabulary.sum(axis=2, keepdims=True)
        np.subtract(multiplied(weights.T, photo), weights.sum(axis=0)[:, None] * words, out=out)
    return unit_norm(unit_norm(sums).reshape(len(sums), -1))
