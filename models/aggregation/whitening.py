"""Principal components of aggregated vectors, whitened in part."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

__all__ = ["fit_whitening"]

_SHRINK = 1e-3
_RANK = 1e-9  # of the largest variance: components below are rounding errors


def fit_whitening(
    vectors: NDArray[np.float32], components: int, power: float
) -> tuple[NDArray[np.float32], NDArray[np.float32], float]:
    """Fit a projection to the leading components, each divided by (variance + 0.001 of the largest)^power.

    Jegou and Chum, "Negative evidences and co-occurences in image retrieval: the benefit of PCA and
    whitening", ECCV 2012, section 4, whiten in full, which is power 0.5: that suits descriptors that differ
    much, and ruins those of repetitive places, whose small variances are noise. The shrinkage bounds the
    gain of the smallest components. In float64. The sign of a component makes its largest entry positive.

    Args:
        vectors: (M, D) float32.
        components: At most so many are kept.
        power: Of the division.

    Returns:
        mean: (D,) float32.
        projection: (D, D') float32, D' at most `components` and less than M.
        left_out: The share of the variance that the other components hold.
    """
    mean = vectors.mean(axis=0, dtype=np.float64)
    centred = vectors - mean
    count, width = centred.shape
    if count < width:  # the same components from the smaller matrix
        variances, axes = np.linalg.eigh(centred @ centred.T / count)
    else:
        variances, axes = np.linalg.eigh(centred.T @ centred / count)
    total = float(np.maximum(variances, 0).sum())
    kept = np.flatnonzero(variances > _RANK * max(total, np.finfo(float).tiny))[::-1][:components]
    variances, axes = variances[kept], axes[:, kept]
    if count < width:
        axes = centred.T @ axes
    axes /= np.maximum(np.linalg.norm(axes, axis=0), np.finfo(float).tiny)
    largest = np.abs(axes).argmax(axis=0) if len(kept) else []
    axes *= np.where(axes[largest, np.arange(len(kept))] < 0, -1, 1)
    floor = _SHRINK * (variances[0] if len(kept) else 0)
    projection = axes / (variances + floor) ** power
    left_out = 1 - float(variances.sum()) / total if total > 0 else 0.0
    return mean.astype(np.float32), projection.astype(np.float32), max(0.0, left_out)
