"""Encoded photos to descriptors and local features, in dynamic batches."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import numpy as np
import torch
from numpy.typing import NDArray

from models.errors import ModelFault
from models.extractor import Extractor, Prepared
from models.images.declared_size import declared_pixels
from models.images.decoder import decode_image
from models.images.limits import MAX_PIXELS
from models.images.preprocess import prepare
from models.store_fit import fitting_extractor
from serving.errors import QueueFull
from serving.settings import ServeSettings
from serving.stages.batcher import MicroBatcher
from serving.stages.descriptors import DescriptorMaker
from serving.stages.messages import Descriptor, Extracted
from storage.cores import usable_cores
from storage.store import Store

__all__ = ["ExtractWorker", "open_extract_worker"]

UNIT_TOLERANCE = 1e-3
# Mean size of the photos that a full queue may hold: with 32 photos 2 to 3 s of decoding on two cores.
PIXELS_PER_PHOTO = 6_000_000
UNKNOWN_PIXELS = 12_000_000  # where the header is not read ahead: those of a phone's photo


class ExtractWorker:
    """Decodes photos in a few threads and runs the model in one, in dynamic batches.

    Args:
        extractor: The model.
        max_batch: Maximum number of photos per forward pass.
        max_queue: Maximum number of queued photos, decoded or not.
        decode_threads: Number of photos decoded concurrently.
        max_pixels: Largest photo.
        maker: Makes the store's descriptors; None: they are the model's own.
    """

    def __init__(
        self,
        extractor: Extractor,
        *,
        max_batch: int = 8,
        max_queue: int = 64,
        decode_threads: int = 2,
        max_pixels: int = MAX_PIXELS,
        maker: DescriptorMaker | None = None,
    ) -> None:
        self.card = extractor.card
        self._extractor = extractor
        self._maker = maker
        self._max_queue = max_queue
        self._max_pixels = max_pixels
        self._decoding = 0
        self._decoding_pixels = 0
        self._decoders = ThreadPoolExecutor(decode_threads, thread_name_prefix="decode")
        self._batcher: MicroBatcher[Prepared, _Item] = MicroBatcher(
            self._work, max_batch=max_batch, max_queue=max_queue, name="extract"
        )

    @property
    def queued(self) -> int:
        """Number of queued photos."""
        return self._decoding + self._batcher.queued

    async def extract(self, image: bytes, *, timeout_s: float | None = None) -> Extracted:
        """Decode a photo and run the model on it.

        Args:
            image: An encoded JPEG, PNG or WebP.
            timeout_s: Time limit for queue and model.

        Raises:
            ImageRejected: the photo cannot be used.
            QueueFull, DeadlineExceeded, BatcherClosed: as of `MicroBatcher`.
            ModelFault: the model's output is not finite or does not fit its card.
        """
        with self._decoding_slot(declared_pixels(image, unknown=UNKNOWN_PIXELS)):
            decode = asyncio.get_running_loop().run_in_executor(self._decoders, self._decode, image)
            prepared, decode_ms = await decode
        done = await self._batcher.submit(prepared, timeout_s=timeout_s)
        if isinstance(done, ModelFault):
            raise done
        descriptor, features, extract_ms, batch = done
        return Extracted(
            *(descriptor, features, decode_ms, extract_ms, batch, self.queued), self._extractor.precision
        )

    @contextmanager
    def _decoding_slot(self, pixels: int) -> Iterator[None]:
        """Count a photo that is being decoded, or waits for it.

        A file of 34 bytes may declare 40 million pixels, so a queue limited by photos alone could hold half a
        minute of decoding. Small photos still find room beside large ones.

        Raises:
            QueueFull: there are too many photos, or too many pixels to decode before this one.
        """
        room = self._max_queue * PIXELS_PER_PHOTO - self._decoding_pixels
        if self.queued >= self._max_queue or (self._decoding and pixels > room):
            raise QueueFull(self.queued, self._batcher.retry_after_s)
        self._decoding += 1
        self._decoding_pixels += pixels
        try:
            yield
        finally:
            self._decoding -= 1
            self._decoding_pixels -= pixels

    async def close(self) -> None:
        """Finish queued photos and end the threads."""
        await self._batcher.close()
        await asyncio.to_thread(self._decoders.shutdown)

    def _decode(self, image: bytes) -> tuple[Prepared, float]:
        started = time.perf_counter()
        prepared = prepare(decode_image(image, max_pixels=self._max_pixels).pixels, self.card.preprocessing)
        return prepared, (time.perf_counter() - started) * 1e3

    def _work(self, batch: list[Prepared]) -> list[_Item]:
        started = time.perf_counter()
        try:
            descriptors, features, codes = self._extractor.prepared_extraction(batch)
        except ModelFault as fault:
            # One photo must not fail the others.
            return [fault] if len(batch) == 1 else [self._work([image])[0] for image in batch]
        usable = len(descriptors) == len(features) == len(batch)
        comparable = [usable and self._comparable(descriptors[i], features[i]) for i in range(len(batch))]
        made: Iterator[Descriptor] = iter(
            self._made(
                descriptors[comparable], features[comparable], None if codes is None else codes[comparable]
            )
            if usable
            else ()
        )
        extract_ms = (time.perf_counter() - started) * 1e3
        return [
            (next(made), features[i], extract_ms, len(batch))
            if comparable[i]
            else ModelFault("the model's output does not fit its card or is not finite: load other weights")
            for i in range(len(batch))
        ]

    def _made(
        self,
        descriptors: NDArray[np.float32],
        features: NDArray[np.float32],
        codes: NDArray[np.uint8] | None,
    ) -> list[Descriptor]:
        if self._maker is None:
            return [
                Descriptor({None: descriptor}, None if codes is None else codes[at])
                for at, descriptor in enumerate(descriptors)
            ]
        return self._maker.make(descriptors, features, codes)

    def _comparable(self, descriptor: NDArray[np.float32], features: NDArray[np.float32]) -> bool:
        """Return whether a photo's output fits the card, as stored features are checked when written."""
        card = self.card
        return (
            descriptor.shape == (card.descriptor_dim,)
            and features.shape == (card.grid_height, card.grid_width, card.feature_dim)
            and abs(float(np.linalg.norm(descriptor)) - 1) < UNIT_TOLERANCE  # False where it is not finite
            and bool(np.isfinite(features).all())
        )


_Item = tuple[Descriptor, NDArray[np.float32], float, int] | ModelFault


def open_extract_worker(settings: ServeSettings) -> ExtractWorker:
    """Load the model, which must be the one that made the store.

    Raises:
        CardMismatch: another model made the store.
        CannotCompile: compiling was requested and is not possible here.
    """
    extractor = _load(settings)
    if extractor.device.type == "cpu":
        replicas = max(settings.extractor.max_replicas, settings.ingress.max_replicas)
        torch.set_num_threads(settings.threads or max(1, len(usable_cores()) // (2 * replicas)))
    extractor.warm_up(settings.max_batch)  # after setting the threads
    return ExtractWorker(
        extractor,
        max_batch=settings.max_batch,
        max_queue=settings.max_queue,
        max_pixels=settings.max_pixels,
        maker=DescriptorMaker(settings.store, settings.at),
    )


def _load(settings: ServeSettings) -> Extractor:
    card = Store.open(settings.store, at=settings.at).card
    return fitting_extractor(settings.store, card, settings.model, settings.execution)
