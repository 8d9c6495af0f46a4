"""An LRU cache of local features in memory."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from storage.features.open_features import AnyFeatureReader
from storage.records import ImageRecord

__all__ = ["FeatureCache", "FetchedFeatures"]

_Key = tuple[str, int, str]


@dataclass(frozen=True, eq=False)
class FetchedFeatures:
    """Local features of some records.

    Attributes:
        features: As returned by `FeatureCodec.decode`; zeros where they could not be read.
        ok: (K,) bool.
        hits: Number of records found in the cache.
    """

    features: np.ndarray
    ok: np.ndarray
    hits: int


class FeatureCache:
    """Caches the most recently used features, encoded, in one block of memory; for one thread at a time.

    Shards never change, so entries never become stale. Unreadable features are not cached.
    """

    def __init__(self, reader: AnyFeatureReader, *, max_bytes: int) -> None:
        """Cache up to `max_bytes` of features; less than the size of one image disables the cache."""
        self._reader = reader
        # The operating system allocates the pages when rows are first written.
        width = reader.codec.row_bytes
        self._block = np.empty((max_bytes // width if width else 0, width), np.uint8)
        self._slots: OrderedDict[_Key, int] = OrderedDict()

    def __len__(self) -> int:
        """Return how many images are cached."""
        return len(self._slots)

    def fetch(self, records: Sequence[ImageRecord]) -> FetchedFeatures:
        """Return the features of these records, reading what is not cached."""
        keys: list[_Key] = [(record.shard, record.row, record.image_id) for record in records]
        cached = [i for i, key in enumerate(keys) if key in self._slots]
        missing = [i for i, key in enumerate(keys) if key not in self._slots]
        if not cached:
            rows, ok = self._reader.fetch_encoded(records)
        else:
            rows = np.empty((len(records), self._block.shape[1]), np.uint8)
            ok = np.ones(len(records), bool)
            for i in cached:
                rows[i] = self._block[self._slots[keys[i]]]
            for i in cached:
                self._slots.move_to_end(keys[i])
            if missing:
                rows[missing], ok[missing] = self._reader.fetch_encoded([records[i] for i in missing])
        for i in missing:
            if ok[i]:
                self._insert(keys[i], rows[i])
        return FetchedFeatures(self._reader.codec.decode(rows), ok, len(cached))

    def _insert(self, key: _Key, row: np.ndarray) -> None:
        if not len(self._block) or key in self._slots:
            return
        if len(self._slots) < len(self._block):
            slot = len(self._slots)
        else:
            _, slot = self._slots.popitem(last=False)
        self._block[slot] = row
        self._slots[key] = slot
