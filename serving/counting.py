"""Counts mutual nearest neighbours of encoded features."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from models.matching.binary import mutual_hamming_count
from models.matching.mutual import mutual_nn_count
from models.matching.precision import MatchingPrecision
from storage.card import Card
from storage.features.encodings import FeatureCodec

__all__ = ["count_matches"]


def count_matches(
    features: NDArray[np.float32],
    stored: NDArray[Any],
    ok: NDArray[np.bool_],
    card: Card,
    *,
    codec: FeatureCodec,
    device: torch.device | str = "cpu",
    precision: MatchingPrecision = "exact",
) -> list[int | None]:
    """Count the mutual nearest neighbours of a photo and each candidate (SelaVPR, section 3.3).

    Args:
        features: (H, W, C) float32 of the photo, unit L2 norm per cell.
        stored: K candidates as `codec.decode` returns them.
        ok: (K,) bool, False where the candidate's features could not be read.
        card: Of the store.
        codec: Of the store.
        device: Where to count.
        precision: As of `mutual_nn_count`; signs are always counted exactly.

    Returns:
        K counts; None where `ok` is False.
    """
    # A copy: arrays from another process are read-only.
    query = torch.tensor(codec.query(features), device=device)
    others = torch.from_numpy(stored).to(device)
    if codec.binary:
        counts = mutual_hamming_count(query, others, bits=codec.channels, min_similarity=card.min_similarity)
    else:
        counts = mutual_nn_count(query, others, min_similarity=card.min_similarity, precision=precision)
    return [count if usable else None for count, usable in zip(counts.tolist(), ok.tolist(), strict=True)]
