"""Losses of fine-tuning: a triplet loss on descriptors and a hinge loss on mutual nearest neighbours.

Lu et al., "Towards Seamless Adaptation of Pre-trained Models for Visual Place Recognition", ICLR 2024,
section 3.4. Both are averaged over the triplets (query, positive, one negative).
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from models.matching.mutual import mutual_nn_mean_similarity
from models.training.options import MARGIN

__all__ = ["mnn_local_loss", "triplet_loss"]


def triplet_loss(query: Tensor, positive: Tensor, negatives: Tensor, *, margin: float = MARGIN) -> Tensor:
    """Average max(0, |q - p| - |q - n| + margin) over triplets of global descriptors.

    Args:
        query: (B, D) float32, unit L2 norm.
        positive: (B, D) float32, one positive per query.
        negatives: (B, N, D) float32, N negatives per query.
        margin: Required difference of distances, in L2 distance of descriptors (0..2).

    Returns:
        A scalar.

    Raises:
        ValueError: shapes do not fit.
    """
    triplets = query.ndim == 2 and negatives.ndim == 3 and negatives.shape[1] > 0
    if not triplets or positive.shape != query.shape or negatives.shape[::2] != query.shape:
        raise ValueError(
            f"query {tuple(query.shape)}, positive {tuple(positive.shape)} and negatives "
            f"{tuple(negatives.shape)} must be (B, D), (B, D) and (B, N, D), N at least 1"
        )
    losses = [
        F.triplet_margin_loss(query, positive, negatives[:, i], margin=margin, reduction="none")
        for i in range(negatives.shape[1])
    ]
    return torch.stack(losses).mean()


def mnn_local_loss(query: Tensor, positive: Tensor, negatives: Tensor) -> Tensor:
    """Average max(0, s(q, n) - s(q, p)) over triplets of local features.

    s is the mean similarity over the mutual nearest neighbours of two images: the mutual cells of a query and
    its positive are pulled together, and those of a better-matching negative pushed apart. Only the mutual
    pairs are tracked by autograd; the full similarity matrix is never materialised.

    Args:
        query: (B, H, W, C) float32, unit L2 norm per cell.
        positive: (B, H, W, C) float32.
        negatives: (B, N, H, W, C) float32.

    Returns:
        A scalar.

    Raises:
        ValueError: shapes do not fit.
    """
    triplets = query.ndim == 4 and negatives.ndim == 5 and negatives.shape[1] > 0
    shapes = (positive.shape, negatives.shape[:1] + negatives.shape[2:])
    if not triplets or shapes != (query.shape, query.shape):
        raise ValueError(
            f"query {tuple(query.shape)}, positive {tuple(positive.shape)} and negatives "
            f"{tuple(negatives.shape)} must be (B, H, W, C), (B, H, W, C) and (B, N, H, W, C), N at least 1"
        )
    losses = []
    # Mutual neighbours are determined in float32 even in mixed precision: bfloat16 creates ties.
    with torch.autocast(query.device.type, enabled=False):
        for one, good, bad in zip(query, positive, negatives, strict=True):
            similarity = mutual_nn_mean_similarity(one, torch.cat([good[None], bad]))
            losses.append(F.relu(similarity[1:] - similarity[0]))
    return torch.stack(losses).mean()
