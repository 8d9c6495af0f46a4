"""The aggregation of the smallest stores, which have too few photos to learn one."""

from __future__ import annotations

from functools import cache
from pathlib import Path

import numpy as np

from models.aggregation.aggregation import DESCRIPTOR_DIM, SOFTNESS, Aggregation
from models.aggregation.residuals import unit_norm

__all__ = ["MIN_LEARNED", "SHIPPED_FILE", "starting_aggregation"]

# Of photos. Learned from 32 an aggregation finds more than the shipped one on photo sets, from 16 less.
MIN_LEARNED = 32
SHIPPED_FILE = Path(__file__).with_name("shipped.safetensors")
_SHIPPED_CHANNELS = 112
_WORDS = 32


@cache
def starting_aggregation(channels: int) -> Aggregation:
    """Return an aggregation that was not learned from the photos of a store; its `photos` are 0.

    For the default model's features the words and the projection are shipped: learned from drawn cities by
    `benchmarks/make_shipped_aggregation.py`. For others both are random, seeded: a random projection keeps
    inner products in expectation (Johnson and Lindenstrauss, 1984).

    Args:
        channels: C of the features as a store keeps them.
    """
    if channels == _SHIPPED_CHANNELS:
        return Aggregation.from_bytes(SHIPPED_FILE.read_bytes())
    random = np.random.default_rng(0)
    words = unit_norm(random.standard_normal((_WORDS, channels)).astype(np.float32))
    projection = random.standard_normal((words.size, DESCRIPTOR_DIM)).astype(np.float16).astype(np.float32)
    return Aggregation(words, np.zeros(words.size, np.float32), projection, SOFTNESS, photos=0, left_out=0.0)
