"""The stages of a query, and how each is made from the settings."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray

from models.extractor import Extractor
from models.weights import load_extractor
from serving.extract_worker import Extracted, ExtractWorker
from serving.rerank_worker import Counted, RerankWorker
from serving.search_worker import IndexStatus, Searched, SearchWorker
from serving.settings import ServeSettings
from storage.index_part import IndexPart
from storage.records import ImageRecord
from storage.search import WHOLE, Part
from storage.store import Store

__all__ = ["LocalStages", "Stages", "extract_worker", "local_stages", "rerank_worker", "search_worker"]


class Stages(Protocol):
    """What a query goes through. Errors are those of the workers, or `QueryRefused`."""

    async def extract(self, image: bytes, *, timeout_s: float) -> Extracted:
        """Decode a photo and run the model."""

    async def search(self, descriptor: NDArray[np.float32], *, k: int, timeout_s: float) -> Searched:
        """Search all parts of the index in one version; `found` is not None."""

    async def count(
        self, features: NDArray[np.float32], records: Sequence[ImageRecord], *, timeout_s: float
    ) -> Counted:
        """Count mutual nearest neighbours."""

    async def lines(
        self, features: NDArray[np.float32], record: ImageRecord, *, timeout_s: float
    ) -> list[list[float]]:
        """List matched points."""

    async def status(self) -> IndexStatus:
        """How the index stands."""


class LocalStages:
    """All stages in this process (topology `compact`)."""

    def __init__(self, extract: ExtractWorker, search: SearchWorker, rerank: RerankWorker) -> None:
        self.extract = extract.extract
        self.count = rerank.count
        self.lines = rerank.lines
        self._search = search

    async def search(self, descriptor: NDArray[np.float32], *, k: int, timeout_s: float) -> Searched:
        """Search the one part there is."""
        return await self._search.search(descriptor, k=k, timeout_s=timeout_s)

    async def status(self) -> IndexStatus:
        """How the index stands."""
        return self._search.status


def local_stages(settings: ServeSettings) -> LocalStages:
    """Make every stage in this process."""
    extract = extract_worker(settings)
    return LocalStages(extract, search_worker(settings, WHOLE), rerank_worker(settings))


def extract_worker(settings: ServeSettings) -> ExtractWorker:
    """Load the model; it must be the one that made the store.

    Raises:
        CardMismatch: it is another one.
    """
    extractor = _load(settings)
    if extractor.device.type == "cpu":
        replicas = max(settings.extractor.max_replicas, settings.ingress.max_replicas)
        torch.set_num_threads(settings.threads or max(1, (os.cpu_count() or 1) // replicas))
    return ExtractWorker(extractor, max_batch=settings.max_batch, max_queue=settings.max_queue)


def _load(settings: ServeSettings) -> Extractor:
    card = Store.open(settings.store).card
    size = card.preprocessing
    extractor = load_extractor(settings.model or card.model, image_size=(size.height, size.width))
    card.require_same(extractor.card)
    return extractor


def search_worker(settings: ServeSettings, part: Part) -> SearchWorker:
    """Load a part of the index and begin to follow the store."""
    loaded = IndexPart(
        settings.store,
        part=part,
        method=settings.method,
        memory_bytes=int(settings.memory_gib * (1 << 30)),
        keep_s=2 * settings.refresh_s + 2,
    )
    return SearchWorker(loaded, refresh_s=settings.refresh_s, max_queue=max(256, settings.max_queue))


def rerank_worker(settings: ServeSettings) -> RerankWorker:
    """Open the features; count on the accelerator if this process has one."""
    return RerankWorker(
        settings.store,
        Store.open(settings.store).card,
        device=torch.accelerator.current_accelerator(check_available=True) or "cpu",
        cache_bytes=settings.cache_mib << 20,
        max_queue=settings.max_queue,
    )
