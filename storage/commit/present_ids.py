"""Which keys a table may contain, without reading the key column at every commit."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence

import numpy as np
import pyarrow as pa

__all__ = ["PresentIds"]

_FOLD_AT = 1 << 16


class PresentIds:
    """The keys of a table as 64-bit hashes: a hit may be a collision, a miss is certain."""

    def __init__(self, chunks: Iterable[pa.ChunkedArray]) -> None:
        """Start from the table's key column, in chunks."""
        hashes = [_hashes(chunk.cast(pa.binary()).to_pylist()) for chunk in chunks]
        self._sorted = np.concatenate(hashes) if hashes else np.empty(0, np.uint64)
        del hashes
        self._sorted.sort()  # in place: at most 16 bytes per row at any time
        self._recent: set[int] = set()

    def may_contain(self, image_ids: Sequence[str]) -> np.ndarray:
        """Return (N,) bool: False where the key is certainly absent."""
        hashes = _hashes(key.encode() for key in image_ids)
        at = np.searchsorted(self._sorted, hashes)
        present = np.zeros(len(hashes), bool)
        inside = at < len(self._sorted)
        present[inside] = self._sorted[at[inside]] == hashes[inside]
        present |= np.fromiter((int(h) in self._recent for h in hashes), bool, len(hashes))
        return present

    def add(self, image_ids: Sequence[str]) -> None:
        """Add keys that were written. Deleted keys may remain: they only cost a needless upsert."""
        self._recent.update(int(h) for h in _hashes(key.encode() for key in image_ids))
        if len(self._recent) > _FOLD_AT:
            recent = np.fromiter(self._recent, np.uint64, len(self._recent))
            self._sorted = np.concatenate([self._sorted, recent])
            self._sorted.sort()
            self._recent.clear()


def _hashes(keys: Iterable[bytes]) -> np.ndarray:
    digests = b"".join(hashlib.blake2b(key, digest_size=8).digest() for key in keys)
    return np.frombuffer(digests, dtype=np.uint64)
