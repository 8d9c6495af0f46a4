"""Losses of SelaVPR++ over all pairs of a batch: multi-similarity, and the gap between values and codes.

Wang et al., "Multi-Similarity Loss with General Pair Weighting for Deep Metric Learning", CVPR 2019; loss and
miner are those of pytorch-metric-learning. The values are SelaVPR++'s (TPAMI 2026, section 3.5).
"""

from __future__ import annotations

from functools import cache
from typing import Any

import torch
from torch import Tensor

__all__ = [
    "CODE_GAP_WEIGHT",
    "code_gap",
    "mined_pairs",
    "multi_similarity",
    "place_labels",
    "straight_through",
]

CODE_GAP_WEIGHT = 0.1
_ALPHA, _BETA, _BASE, _EPSILON = 1.0, 50.0, 0.0, 0.1

Pairs = tuple[Tensor, Tensor, Tensor, Tensor]


def place_labels(distances_m: Tensor, *, positive_m: float) -> Tensor:
    """Return (n,) int64: photos that are linked by steps of at most `positive_m` have one label.

    Args:
        distances_m: (n, n) float.
        positive_m: Largest distance of photos of a place.
    """
    near = distances_m <= positive_m
    labels = torch.arange(len(near), device=near.device)
    for _ in range(len(near)):
        lowest = torch.where(near, labels[None], len(near)).amin(dim=1)
        if torch.equal(lowest, labels):
            break
        labels = lowest
    return labels


def mined_pairs(
    values: Tensor, labels: Tensor, distances_m: Tensor, *, positive_m: float, negative_m: float
) -> Pairs:
    """Return the informative pairs of a batch: anchors and positives, anchors and negatives.

    The miner keeps a negative pair that is more similar than the anchor's least similar positive less 0.1,
    and a positive pair that is less similar than the most similar negative plus 0.1. Pairs whose distance
    says neither, or something else than their labels, are left out.

    Args:
        values: (n, D) float, unit L2 norm.
        labels: (n,) int64, see `place_labels`.
        distances_m: (n, n) float.
        positive_m: Largest distance of positives.
        negative_m: Smallest distance of negatives.
    """
    first, positive, second, negative = _miner()(values.detach(), labels)
    close = distances_m[first, positive] <= positive_m
    far = distances_m[second, negative] > negative_m
    return first[close], positive[close], second[far], negative[far]


def multi_similarity(values: Tensor, pairs: Pairs) -> Tensor:
    """Return the multi-similarity loss of mined pairs (equation 7; alpha 1, beta 50, base 0, dot product).

    Args:
        values: (n, D) float, unit L2 norm.
        pairs: See `mined_pairs`.

    Returns:
        A scalar, 0 without pairs.
    """
    if not len(pairs[0]) and not len(pairs[2]):
        return values.sum() * 0
    loss: Tensor = _loss()(values, indices_tuple=pairs)
    return loss


def straight_through(values: Tensor) -> Tensor:
    """Return codes of unit norm, the signs of `values`, whose gradient passes to `values` unchanged.

    Args:
        values: (n, bits) float, unit L2 norm.
    """
    signs = torch.where(values >= 0, 1.0, -1.0).to(values.dtype) / values.shape[1] ** 0.5
    codes: Tensor = values + (signs - values).detach()
    return codes


def code_gap(values: Tensor, codes: Tensor, pairs: Pairs) -> Tensor:
    """Return the mean over mined pairs of (cos(z_i, z_j) - b_i . b_j / bits)^2.

    Args:
        values: (n, bits) float, unit L2 norm.
        codes: (n, bits) float, of `straight_through`.
        pairs: See `mined_pairs`.
    """
    left, right = torch.cat([pairs[0], pairs[2]]), torch.cat([pairs[1], pairs[3]])
    if not len(left):
        return values.sum() * 0
    of_values = (values[left] * values[right]).sum(dim=1)
    of_codes = (codes[left] * codes[right]).sum(dim=1)
    gap: Tensor = (of_values - of_codes).square().mean()
    return gap


@cache
def _miner() -> Any:
    from pytorch_metric_learning.distances import CosineSimilarity
    from pytorch_metric_learning.miners import MultiSimilarityMiner

    return MultiSimilarityMiner(epsilon=_EPSILON, distance=CosineSimilarity())


@cache
def _loss() -> Any:
    from pytorch_metric_learning.distances import DotProductSimilarity
    from pytorch_metric_learning.losses import MultiSimilarityLoss

    distance = DotProductSimilarity(normalize_embeddings=False)
    return MultiSimilarityLoss(alpha=_ALPHA, beta=_BETA, base=_BASE, distance=distance)
