"""Mutual nearest neighbours between local features stored as packed signs, by Hamming distance.

The inner product of two vectors of C signs is C - 2 h for h differing bits, a whole number that float32 holds
exactly. The smallest distance is thus the largest inner product, and `models.matching.mutual` finds the same
pairs as counting bits would, ties included, at the speed of matrix multiplication.
"""

from __future__ import annotations

import math

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from models.matching.mutual import matched_pairs, mutual_neighbours, mutual_nn_count

__all__ = ["matched_hamming_pairs", "mutual_hamming_count", "mutual_hamming_neighbours"]

_UNPACKED_VALUES = 1 << 22  # signs unpacked at a time, as float32


def mutual_hamming_count(
    query: Tensor, candidates: Tensor, *, bits: int, min_similarity: float | None = None
) -> Tensor:
    """Count the mutual nearest neighbours by Hamming distance between a query and each candidate.

    Args:
        query: (N, P) or (H, W, P) uint8, P = ceil(bits / 8) bytes per cell, the first bit the highest.
        candidates: (K, N', P) or (K, H', W', P) uint8.
        bits: Number of bits per cell; the rest are padding.
        min_similarity: Only pairs whose estimated cosine similarity cos(pi h / bits) is at least this count
            (Charikar, "Similarity estimation techniques from rounding algorithms", 2002, section 3); None
            counts all.

    Returns:
        (K,) int64 counts, on the query's device.

    Raises:
        ValueError: shapes or `bits` do not fit, or a dtype is not uint8.
    """
    cells = _signs(query, bits, name="query")
    floor = _min_product(bits, min_similarity)
    if not len(candidates):
        return torch.zeros(0, dtype=torch.int64, device=query.device)
    group = max(1, _UNPACKED_VALUES // max(1, candidates[0].numel() * 8))
    counts = [
        mutual_nn_count(
            cells, _signs(candidates[at : at + group], bits, name="candidates"), min_similarity=floor
        )
        for at in range(0, len(candidates), group)
    ]
    return torch.cat(counts)


def mutual_hamming_neighbours(query: Tensor, candidates: Tensor, *, bits: int) -> tuple[Tensor, Tensor]:
    """Find the mutual nearest neighbours by Hamming distance between a query and each candidate.

    Args:
        query: (N, P) or (H, W, P) uint8.
        candidates: (K, N', P) or (K, H', W', P) uint8.
        bits: As of `mutual_hamming_count`.

    Returns:
        partner: (K, N) int64, the mutual candidate cell of each query cell, or -1.
        similarity: (K, N) float32, the estimated cosine similarity of each query cell to its nearest cell.

    Raises:
        ValueError: shapes or `bits` do not fit, or a dtype is not uint8.
    """
    cells = _signs(query, bits, name="query")
    group = max(1, _UNPACKED_VALUES // max(1, candidates[:1].numel() * 8))
    parts = [
        mutual_neighbours(cells, _signs(candidates[at : at + group], bits, name="candidates"))
        for at in range(0, max(1, len(candidates)), group)
    ]
    partner, product = (torch.cat(values) for values in zip(*parts, strict=True))
    return partner, torch.cos(math.pi * (bits - product) / (2 * bits))


def matched_hamming_pairs(
    query: Tensor, candidate: Tensor, *, bits: int, min_similarity: float | None = None
) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """Return the mutual nearest neighbours by Hamming distance between two images, for example to draw them.

    Args:
        query: (N, P) or (H, W, P) uint8.
        candidate: (N', P) or (H', W', P) uint8.
        bits: As of `mutual_hamming_count`.
        min_similarity: As of `mutual_hamming_count`.

    Returns:
        indices: (M, 2) int64, query cell and candidate cell in row-major order, sorted by query cell.
        similarity: (M,) float32, the estimated cosine similarity of each pair.

    Raises:
        ValueError: shapes or `bits` do not fit, or a dtype is not uint8.
    """
    indices, product = matched_pairs(
        _signs(query, bits, name="query"),
        _signs(candidate, bits, name="candidate"),
        min_similarity=_min_product(bits, min_similarity),
    )
    return indices, np.cos(np.pi * (bits - product) / (2 * bits)).astype(np.float32)


def _signs(packed: Tensor, bits: int, *, name: str) -> Tensor:
    """Unpack (..., P) uint8 into (..., bits) float32 of -1 and 1."""
    if packed.dtype != torch.uint8 or packed.shape[-1] != -(-bits // 8) or bits < 1:
        raise ValueError(
            f"{name} of shape {tuple(packed.shape)} and type {packed.dtype} are not cells of {bits} bits: "
            "pass what the store's codec returns"
        )
    shifts = torch.arange(7, -1, -1, dtype=torch.uint8, device=packed.device)
    ones = (packed[..., None] >> shifts) & 1
    return ones.flatten(-2)[..., :bits].float().mul_(2).sub_(1)


def _min_product(bits: int, min_similarity: float | None) -> float | None:
    """Return the smallest inner product of signs whose estimated cosine is `min_similarity`."""
    if min_similarity is None:
        return None
    angle = math.acos(max(-1.0, min(1.0, min_similarity)))
    return bits - 2 * math.floor(bits * angle / math.pi + 1e-9)
