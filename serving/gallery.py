"""Stored images: their records, positions and thumbnails."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any, TypeVar

from models.images import ImageRejected, encode_thumbnail
from models.images.limits import MAX_PIXELS
from models.images.photo_file import read_indexed
from serving.errors import Refusal, refusal_of
from storage.errors import StoreError
from storage.records import ImageRecord
from storage.store import Store

__all__ = ["MAX_PLACES", "MAX_QUEUED", "Gallery"]

MAX_PLACES = 5000
_THREADS = 2
MAX_QUEUED = 128
Result = TypeVar("Result")


class Gallery:
    """Reads stored images in threads of its own, so that queries are not delayed.

    Args:
        store: An open store.
        refresh_s: Minimum interval between checks for new commits.
        max_pixels: Largest photo, or what is decoded of it.
    """

    def __init__(self, store: Store, *, refresh_s: float, max_pixels: int = MAX_PIXELS) -> None:
        self._store = store
        self._refresh_s = refresh_s
        self._max_pixels = max_pixels
        self._checked_at = time.monotonic()
        self._places: tuple[int, list[dict[str, Any]]] | None = None
        self._threads = ThreadPoolExecutor(_THREADS, thread_name_prefix="gallery")
        self._queued = 0

    async def record(self, image_id: str) -> tuple[int, ImageRecord]:
        """Return a store version and the record of an image in it.

        Raises:
            Refusal: reason `unknown_image` or `overloaded`.
        """
        record: tuple[int, ImageRecord] = await self._run(partial(self._record, image_id))
        return record

    async def places(self, limit: int) -> tuple[int, int, list[dict[str, Any]]]:
        """Return a store version, its number of images, and an even sample of them with their positions."""
        version, total, places = await self._run(self._sample)
        step = max(1, -(-len(places) // limit))
        return version, total, places[::step]

    async def thumbnail(self, image_id: str, max_side_px: int) -> bytes:
        """Return a stored image as an upright JPEG of at most this many pixels per side.

        Raises:
            Refusal: reason `unknown_image`, `image_unavailable` where the photo was deleted or changed
                after it was indexed, or `overloaded`.
        """
        jpeg: bytes = await self._run(partial(self._thumbnail, image_id, max_side_px))
        return jpeg

    async def with_store(self, work: Callable[[Store], Result]) -> Result:
        """Run work on the store, at its newest version, in one of the threads.

        Raises:
            Refusal: reason `overloaded`, or the store cannot be read.
        """
        result: Result = await self._run(lambda: work(self._refresh()))
        return result

    async def _run(self, work: Any) -> Any:
        if self._queued >= MAX_QUEUED:
            raise Refusal(503, "overloaded", "Too many images are requested; try again after Retry-After.", 1)
        self._queued += 1
        try:
            return await asyncio.get_running_loop().run_in_executor(self._threads, work)
        except StoreError as error:
            refusal = refusal_of(error)
            assert refusal is not None
            raise refusal from error
        finally:
            self._queued -= 1

    def _refresh(self) -> Store:
        if time.monotonic() - self._checked_at >= self._refresh_s:
            self._store.refresh()
            self._checked_at = time.monotonic()
        return self._store

    def _record(self, image_id: str) -> tuple[int, ImageRecord]:
        store = self._refresh()
        records = store.get([image_id])
        if not records:
            raise Refusal(404, "unknown_image", "The store holds no image of this id.")
        return store.version, records[0]

    def _sample(self) -> tuple[int, int, list[dict[str, Any]]]:
        store = self._refresh()
        version, total = store.version, store.count
        if self._places is None or self._places[0] != version:
            self._places = (version, store.places(MAX_PLACES))
        return version, total, self._places[1]

    def _thumbnail(self, image_id: str, max_side_px: int) -> bytes:
        _, record = self._record(image_id)
        try:
            data = read_indexed(record.uri, record.sha256)
            return encode_thumbnail(data, max_side_px=max_side_px, max_pixels=self._max_pixels)[0]
        except ImageRejected as error:
            message = "The photo was deleted or changed after it was indexed; index its source again."
            if error.reason == "too_many_pixels":
                message = "The photo is larger than this service decodes; raise --max-megapixels."
            raise Refusal(404, "image_unavailable", message) from None
