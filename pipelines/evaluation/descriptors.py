"""Global descriptors as arrays: those of a store, and those of photos as its queries have them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from models.aggregation.describer import Describer
from models.images import ImageRejected
from models.images.photo import load_pixels
from serving.engine import QueryEngine
from storage.search.partition import read_partition
from storage.store import Store

__all__ = ["describe_photos", "descriptor_matrix", "stored_descriptors"]

_BATCH = 8


def stored_descriptors(store: Store) -> pa.Table:
    """Return the rows of a store with their column `descriptor`, without damaged ones."""
    return read_partition(store.snapshot.table, store.card)[0]


def descriptor_matrix(rows: pa.Table) -> NDArray[np.float32]:
    """Return (N, D) float32 of a table's column `descriptor`."""
    column = rows["descriptor"].combine_chunks()
    width = column.type.list_size
    flat = column.flatten().to_numpy(zero_copy_only=False)
    return np.asarray(flat, np.float32).reshape(-1, width)


def describe_photos(engine: QueryEngine, paths: Sequence[str]) -> NDArray[np.float32]:
    """Return (B, D) float32 descriptors of photos as the engine's queries have them.

    Args:
        engine: Its model and store are used.
        paths: B photos; one that cannot be used gets zeros.
    """
    card = engine.store.card
    describer = Describer(engine.store.artifact, engine.store.codec)
    result = np.zeros((len(paths), card.descriptor_dim), np.float32)
    for rows in _batches(len(paths)):
        usable, pixels = [], list[Any]()
        for row in rows:
            try:
                pixels.append(load_pixels(paths[row], max_pixels=engine.max_pixels))
            except ImageRejected:
                continue
            usable.append(row)
        if usable:
            descriptors, features = engine.extractor.extract(pixels)
            result[usable] = describer.describe(card, descriptors, features)
    return result


def _batches(count: int) -> list[range]:
    return [range(first, min(first + _BATCH, count)) for first in range(0, count, _BATCH)]
