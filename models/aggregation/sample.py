"""The photos of a city that its aggregation is learned from."""

from __future__ import annotations

import hashlib
import heapq
from collections.abc import Iterable, Sequence

__all__ = ["SAMPLE_BYTES", "SAMPLE_IMAGES", "Sample", "sample_key", "sample_size"]

SAMPLE_IMAGES = 2048
SAMPLE_BYTES = 256 << 20


def sample_key(image_id: str) -> bytes:
    """Return the hash that decides which photos are in the sample: the smallest are."""
    return hashlib.blake2b(image_id.encode("utf-8", "surrogatepass"), digest_size=16).digest()


def sample_size(row_bytes: int) -> int:
    """Return the number of photos in a sample, at most `SAMPLE_IMAGES`, whose features fit `SAMPLE_BYTES`."""
    return max(1, min(SAMPLE_IMAGES, SAMPLE_BYTES // max(1, row_bytes)))


class Sample:
    """The K ids with the smallest hashes of all that were added.

    Independent of the order of adding, and of how the ids are divided among samples that are merged: a
    bottom-k sample (Cohen and Kaplan, "Summarizing data using bottom-k sketches", PODC 2007), uniform over
    distinct ids.

    Args:
        size: K.
    """

    def __init__(self, size: int) -> None:
        self._size = size
        self._keys: dict[str, bytes] = {}

    def add(self, image_ids: Iterable[str]) -> None:
        """Add ids; at most twice K are held."""
        for image_id in image_ids:
            self._keys[image_id] = sample_key(image_id)
            if len(self._keys) >= 2 * self._size + 64:
                self._shrink()

    def merge(self, other: Sample) -> None:
        """Add the ids of another sample of at least this size."""
        self._keys |= other._keys
        self._shrink()

    @property
    def image_ids(self) -> Sequence[str]:
        """The ids, by hash."""
        self._shrink()
        return tuple(self._keys)

    def _shrink(self) -> None:
        self._keys = dict(heapq.nsmallest(self._size, self._keys.items(), key=lambda item: item[::-1]))
