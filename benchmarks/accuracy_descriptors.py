"""Global descriptors that are compared: each takes the features of database and queries."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import numpy as np
from numpy.typing import NDArray

from benchmarks.accuracy_features import Features
from models.aggregation import Aggregation

__all__ = ["DESCRIPTORS"]

SEEDS = range(1, 6)  # of the words, beside 0

Descriptors = tuple[NDArray[np.float32], NDArray[np.float32]]


def gem(database: Features, queries: Features) -> Descriptors:
    """The model's own descriptor: GeM, p = 3, of the last map."""
    return _stored(database.descriptors), queries.descriptors


def learned(database: Features, queries: Features, **options: float) -> Descriptors:
    """Learned from the database, as `placeray index` does."""
    stored = database.local.astype(np.float16)
    aggregation = Aggregation.fit([stored], **options)  # type: ignore[arg-type]
    return _stored(aggregation.describe(stored)), aggregation.describe(queries.local.astype(np.float16))


def _stored(descriptors: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return descriptors as a store keeps them."""
    return descriptors.astype(np.float16).astype(np.float32)


DESCRIPTORS: dict[str, Callable[[Features, Features], Descriptors]] = {
    "gem": gem,
    "learned": learned,
    "learned, not whitened": partial(learned, power=0.0),
    "learned, power 0.15": partial(learned, power=0.15),
    "learned, power 0.35": partial(learned, power=0.35),
    "learned, power 0.5": partial(learned, power=0.5),
    "learned, 1 x 16 words": partial(learned, words=16, vocabularies=1),
    "learned, 1 x 32 words": partial(learned, words=32, vocabularies=1),
    "learned, 1 x 64 words": partial(learned, words=64, vocabularies=1),
    "learned, 2 x 16 words": partial(learned, words=16, vocabularies=2),
    "learned, 4 x 16 words": partial(learned, words=16, vocabularies=4),
    **{f"learned, seed {seed}": partial(learned, seed=seed) for seed in SEEDS},
    **{
        f"learned, 1 x 32 words, seed {seed}": partial(learned, words=32, vocabularies=1, seed=seed)
        for seed in SEEDS
    },
}
