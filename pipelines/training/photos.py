"""Reads the photos of training: decoded, at the network's input size, cached while there is room."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
from numpy.typing import NDArray

from models.images import ImageRejected, decode_image
from models.images.limits import MAX_PIXELS
from models.images.photo_file import read_bytes
from models.images.preprocess import prepare
from pipelines.training.errors import DataRejected
from storage.card import Preprocessing

__all__ = ["Photos", "rejected_photo"]

Prepared = NDArray[Any]


def rejected_photo(uri: str, max_pixels: int = MAX_PIXELS) -> tuple[str, str, str] | None:
    """Decode a photo and return its path, the reason and a message if that fails."""
    try:
        decode_image(read_bytes(uri), max_pixels=max_pixels)
    except ImageRejected as error:
        return uri, error.reason, str(error)
    return None


class Photos:
    """Reads photos at the network's input size in threads, and caches the first that fit in memory."""

    def __init__(
        self,
        uris: Sequence[str],
        preprocessing: Preprocessing,
        *,
        cache_bytes: int = 128 << 20,
        threads: int = 1,
        max_pixels: int = MAX_PIXELS,
    ) -> None:
        self._uris = uris
        self._preprocessing = preprocessing
        self._max_pixels = max_pixels
        self._free_bytes = cache_bytes
        self._cache: dict[int, Prepared] = {}
        self._lock = threading.Lock()
        self._pool = ThreadPoolExecutor(threads, thread_name_prefix="decode")

    def __len__(self) -> int:
        return len(self._uris)

    def close(self) -> None:
        """End the reading threads."""
        self._pool.shutdown(cancel_futures=True)

    def read(self, rows: Sequence[int] | NDArray[np.int64]) -> Prepared:
        """Return photos as `models.images.preprocess.prepare` makes them.

        Args:
            rows: (n,) row numbers.

        Returns:
            (n, h, w, 3) uint8 or float32.

        Raises:
            DataRejected: a photo can no longer be decoded.
        """
        return np.stack(list(self._pool.map(self._photo, map(int, rows))))

    def _photo(self, row: int) -> Prepared:
        cached = self._cache.get(row)
        if cached is not None:
            return cached
        uri = self._uris[row]
        try:
            photo = prepare(
                decode_image(read_bytes(uri), max_pixels=self._max_pixels).pixels, self._preprocessing
            )
        except ImageRejected as error:
            raise DataRejected(
                "photo_lost",
                f"{uri} could be read when training began and no longer can ({error}): restore it and run "
                "the same command again",
            ) from error
        with self._lock:
            if self._free_bytes >= photo.nbytes and row not in self._cache:
                self._free_bytes -= photo.nbytes
                self._cache[row] = photo
        return photo
