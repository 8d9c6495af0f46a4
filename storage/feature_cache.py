"""A bounded cache of local features in front of their shards."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from storage.card import Card
from storage.features import FeatureReader
from storage.records import ImageRecord

__all__ = ["FeatureCache", "Fetched"]

_Key = tuple[str, int, str]


@dataclass(frozen=True, eq=False)
class Fetched:
    """Local features of some records.

    Attributes:
        features: (K, H, W, C) float16; zeros where they could not be read.
        ok: (K,) bool.
        hits: How many came out of the cache.
    """

    features: np.ndarray
    ok: np.ndarray
    hits: int


class FeatureCache:
    """Keeps the features used last in one block of memory; for one thread at a time.

    Shards never change, so an entry never goes stale. What cannot be read is not remembered.
    """

    def __init__(self, reader: FeatureReader, card: Card, *, max_bytes: int) -> None:
        """Cache up to `max_bytes` of features; less than one image's switches the cache off."""
        shape = (card.grid_height, card.grid_width, card.feature_dim)
        rows = max_bytes // (2 * int(np.prod(shape)))
        self._reader = reader
        # The system hands out the memory page by page, when rows are first written.
        self._block = np.empty((rows, *shape), np.float16)
        self._slots: OrderedDict[_Key, int] = OrderedDict()

    def __len__(self) -> int:
        """Return how many images are cached."""
        return len(self._slots)

    def fetch(self, records: Sequence[ImageRecord]) -> Fetched:
        """Return the features of these records, reading what is not cached."""
        keys: list[_Key] = [(record.shard, record.row, record.image_id) for record in records]
        present = [i for i, key in enumerate(keys) if key in self._slots]
        missing = [i for i, key in enumerate(keys) if key not in self._slots]
        if not present:
            features, ok = self._reader.fetch(records)
        else:
            features = np.empty((len(records), *self._block.shape[1:]), np.float16)
            ok = np.ones(len(records), bool)
            features[present] = self._block[[self._slots[keys[i]] for i in present]]
            for i in present:
                self._slots.move_to_end(keys[i])
            if missing:
                features[missing], ok[missing] = self._reader.fetch([records[i] for i in missing])
        for i in missing:
            if ok[i]:
                self._keep(keys[i], features[i])
        return Fetched(features, ok, len(present))

    def _keep(self, key: _Key, features: np.ndarray) -> None:
        if not len(self._block) or key in self._slots:
            return
        if len(self._slots) < len(self._block):
            slot = len(self._slots)
        else:
            _, slot = self._slots.popitem(last=False)
        self._block[slot] = features
        self._slots[key] = slot
