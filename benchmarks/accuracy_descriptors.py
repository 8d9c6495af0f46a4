"""Global descriptors that are compared: each takes the features of database and queries."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from benchmarks.accuracy_features import Features

__all__ = ["DESCRIPTORS"]

Descriptors = tuple[NDArray[np.float32], NDArray[np.float32]]


def gem(database: Features, queries: Features) -> Descriptors:
    """The model's own descriptor: GeM, p = 3, of the last map."""
    # As a store keeps them.
    return database.descriptors.astype(np.float16).astype(np.float32), queries.descriptors


DESCRIPTORS: dict[str, Callable[[Features, Features], Descriptors]] = {"gem": gem}
