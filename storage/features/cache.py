"""A bounded cache of local features in front of their shards."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from storage.features.reader import FeatureReader
from storage.records import ImageRecord

__all__ = ["FeatureCache", "FetchedFeatures"]

_Key = tuple[str, int, str]


@dataclass(frozen=True, eq=False)
class FetchedFeatures:
    """Local features of some records.

    Attributes:
        features: as `FeatureCodec.decode` returns them; zeros where they could not be read.
        ok: (K,) bool.
        hits: How many came out of the cache.
    """

    features: np.ndarray
    ok: np.ndarray
    hits: int


class FeatureCache:
    """Keeps the features used last in one block of memory, encoded; for one thread at a time.

    Shards never change, so an entry never goes stale. What cannot be read is not remembered.
    """

    def __init__(self, reader: FeatureReader, *, max_bytes: int) -> None:
        """Cache up to `max_bytes` of features; less than one image's switches the cache off."""
        self._reader = reader
        # The system hands out the memory page by page, when rows are first written.
        width = reader.codec.row_bytes
        self._block = np.empty((max_bytes // width, width), np.uint8)
        self._slots: OrderedDict[_Key, int] = OrderedDict()

    def __len__(self) -> int:
        """Return how many images are cached."""
        return len(self._slots)

    def fetch(self, records: Sequence[ImageRecord]) -> FetchedFeatures:
        """Return the features of these records, reading what is not cached."""
        keys: list[_Key] = [(record.shard, record.row, record.image_id) for record in records]
        present = [i for i, key in enumerate(keys) if key in self._slots]
        missing = [i for i, key in enumerate(keys) if key not in self._slots]
        if not present:
            rows, ok = self._reader.fetch_encoded(records)
        else:
            rows = np.empty((len(records), self._block.shape[1]), np.uint8)
            ok = np.ones(len(records), bool)
            for i in present:
                rows[i] = self._block[self._slots[keys[i]]]
            for i in present:
                self._slots.move_to_end(keys[i])
            if missing:
                rows[missing], ok[missing] = self._reader.fetch_encoded([records[i] for i in missing])
        for i in missing:
            if ok[i]:
                self._keep(keys[i], rows[i])
        return FetchedFeatures(self._reader.codec.decode(rows), ok, len(present))

    def _keep(self, key: _Key, row: np.ndarray) -> None:
        if not len(self._block) or key in self._slots:
            return
        if len(self._slots) < len(self._block):
            slot = len(self._slots)
        else:
            _, slot = self._slots.popitem(last=False)
        self._block[slot] = row
        self._slots[key] = slot
