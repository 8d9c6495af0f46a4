"""Decodes photos in threads, ahead of their use."""

from __future__ import annotations

import itertools
import time
from collections import deque
from collections.abc import Generator, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from models.images import ImageRejected
from models.images.limits import MAX_PIXELS
from models.images.photo import Photo, load_pixels

__all__ = ["DecodedPhoto", "decoded_batches"]

_THREADS = 2


@dataclass(frozen=True, eq=False)
class DecodedPhoto:
    """A photo as pixels.

    Attributes:
        pixels: (H, W, 3) uint8, upright RGB; the error where the photo cannot be used.
        decode_ms: Time of decoding.
    """

    pixels: NDArray[np.uint8] | ImageRejected
    decode_ms: float


def decoded_batches(
    photos: Iterable[Photo], *, batch_size: int, max_pixels: int = MAX_PIXELS
) -> Generator[list[DecodedPhoto]]:
    """Yield all photos in order, in batches, while the next batch is being decoded.

    Args:
        photos: Read at most two batches ahead, so that it may be endless.
        batch_size: Photos per batch; the last one may be smaller.
        max_pixels: Largest photo.

    Raises:
        TypeError: an item is not a photo.
    """
    source = iter(photos)
    ahead: deque[Future[DecodedPhoto]] = deque()
    with ThreadPoolExecutor(_THREADS, thread_name_prefix="decode") as threads:
        try:
            while True:
                missing = 2 * batch_size - len(ahead)
                ahead.extend(
                    threads.submit(_decode, photo, max_pixels) for photo in itertools.islice(source, missing)
                )
                if not ahead:
                    return
                batch = [ahead.popleft() for _ in range(min(batch_size, len(ahead)))]
                yield [future.result() for future in batch]
        finally:
            for future in ahead:  # the caller stopped early
                future.cancel()


def _decode(photo: Photo, max_pixels: int) -> DecodedPhoto:
    started = time.perf_counter()
    try:
        pixels: NDArray[np.uint8] | ImageRejected = load_pixels(photo, max_pixels=max_pixels)
    except ImageRejected as error:
        pixels = error
    return DecodedPhoto(pixels, (time.perf_counter() - started) * 1e3)
