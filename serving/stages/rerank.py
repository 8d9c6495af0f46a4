"""Matches photos with their candidates: mutual nearest neighbours and scores."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from models.runtime.allocator import keep_freed_memory
from models.runtime.execution import best_device
from serving.counting import CandidateMatcher
from serving.lines import line_points
from serving.matching_options import ALL_EXACTLY, Matching
from serving.reranking import match_in_turn
from serving.settings import ServeSettings
from serving.stages.batcher import MicroBatcher
from serving.stages.messages import Counted
from storage.card import Card
from storage.features.cache import FeatureCache
from storage.features.open_features import open_features
from storage.objects.location import open_location
from storage.records import ImageRecord
from storage.store import Store

__all__ = ["RerankWorker", "open_rerank_worker"]


@dataclass(frozen=True, eq=False)
class _Query:
    features: NDArray[np.float32]
    records: Sequence[ImageRecord]
    min_candidates: int = 1
    lines: bool = False


class RerankWorker:
    """Fetches features through a bounded cache and counts on one device, query by query.

    The candidates of all queries in a batch are fetched together, each image once. Where candidates may be
    skipped, each query fetches its blocks in turn instead, and its budget starts with its own first block.

    Args:
        store_uri: The store's folder.
        card: Of the store.
        device: Where to count.
        cache_bytes: Size limit of the feature cache.
        max_batch: Maximum number of queries whose candidates are fetched together.
        max_queue: Maximum number of queued queries.
        matching: How the candidates are matched.
    """

    def __init__(
        self,
        store_uri: str,
        card: Card,
        *,
        device: torch.device | str = "cpu",
        cache_bytes: int = 256 << 20,
        max_batch: int = 4,
        max_queue: int = 64,
        matching: Matching = ALL_EXACTLY,
    ) -> None:
        self._card = card
        self._device = torch.device(device)
        self._matching = matching
        reader = open_features(open_location(store_uri), card)
        self._codec = reader.codec
        self._cache = FeatureCache(reader, max_bytes=cache_bytes)
        self._batcher: MicroBatcher[_Query, _Outcome] = MicroBatcher(
            self._work, max_batch=max_batch, max_queue=max_queue, name="rerank"
        )

    def warm_up(self) -> None:
        """Count once on an accelerator, where the first call takes seconds."""
        if self._device.type == "cpu" or not self._card.has_features:
            return
        card = self._card
        blank = np.zeros((card.grid_height, card.grid_width, card.feature_dim), np.float32)
        stored = self._codec.decode(np.zeros((1, self._codec.row_bytes), np.uint8))
        matcher = self._matcher(_Query(blank, []))
        matcher.match(stored, np.ones(1, bool))
        matcher.scores()

    async def count(
        self,
        features: NDArray[np.float32],
        records: Sequence[ImageRecord],
        *,
        min_candidates: int = 1,
        timeout_s: float | None = None,
    ) -> Counted:
        """Count the mutual nearest neighbours of a photo and each candidate, until matching stops.

        Args:
            features: (H, W, C) float32 of the photo, unit L2 norm per cell.
            records: K candidates, most similar first.
            min_candidates: Candidates matched before an early stop, never below 20.
            timeout_s: Time limit for the result.

        Raises:
            QueueFull, DeadlineExceeded, BatcherClosed: as of `MicroBatcher`.
        """
        outcome = await self._batcher.submit(_Query(features, records, min_candidates), timeout_s=timeout_s)
        assert isinstance(outcome, Counted)
        return Counted(**{**outcome.__dict__, "queued": self._batcher.queued})

    async def lines(
        self, features: NDArray[np.float32], record: ImageRecord, *, timeout_s: float | None = None
    ) -> list[list[float]]:
        """List the matched points of a photo and a stored image as [x1, y1, x2, y2, similarity, agrees].

        Args:
            features: (H, W, C) float32 of the photo, unit L2 norm per cell.
            record: The stored image.
            timeout_s: Time limit for the result.

        Raises:
            QueueFull, DeadlineExceeded, BatcherClosed: as of `MicroBatcher`.
        """
        outcome = await self._batcher.submit(_Query(features, [record], lines=True), timeout_s=timeout_s)
        assert isinstance(outcome, list)
        return outcome

    async def close(self) -> None:
        """Finish queued queries and end the thread."""
        await self._batcher.close()

    def _work(self, queries: list[_Query]) -> list[_Outcome]:
        if not self._matching.partial:
            return self._together(queries)
        return [
            self._together([query])[0] if query.lines else self._in_turn(query, batch=len(queries))
            for query in queries
        ]

    def _in_turn(self, query: _Query, *, batch: int) -> Counted:
        """Fetch and count one query's candidates block by block."""
        fetch_ms, rerank_ms, hits, misses = 0.0, 0.0, 0, 0
        matcher = self._matcher(query)

        def match(records: Sequence[ImageRecord]) -> list[int | None]:
            nonlocal fetch_ms, rerank_ms, hits, misses
            started = time.perf_counter()
            fetched = self._cache.fetch(records)
            counting = time.perf_counter()
            counts = matcher.match(fetched.features, fetched.ok)
            fetch_ms += (counting - started) * 1e3
            rerank_ms += (time.perf_counter() - counting) * 1e3
            hits += fetched.hits
            misses += len(records) - fetched.hits
            return counts

        counts = match_in_turn(query.records, match, self._matching, min_candidates=query.min_candidates)
        scoring = time.perf_counter()
        scores = matcher.scores()
        rerank_ms += (time.perf_counter() - scoring) * 1e3
        return Counted(counts, scores, matcher.kind, fetch_ms, rerank_ms, batch, 0, hits, misses)

    def _matcher(self, query: _Query) -> CandidateMatcher:
        return CandidateMatcher(
            query.features, self._card, codec=self._codec, device=self._device, matching=self._matching
        )

    def _together(self, queries: list[_Query]) -> list[_Outcome]:
        started = time.perf_counter()
        places: dict[tuple[str, int], int] = {}
        requested: list[ImageRecord] = []
        for query in queries:
            for record in query.records:
                if places.setdefault((record.shard, record.row), len(requested)) == len(requested):
                    requested.append(record)
        fetched = self._cache.fetch(requested)
        fetch_ms = (time.perf_counter() - started) * 1e3
        outcomes: list[_Outcome] = []
        for query in queries:
            chosen = [places[record.shard, record.row] for record in query.records]
            whole = len(queries) == 1 and len(chosen) == len(requested)  # then nothing needs to be copied
            stored = fetched.features if whole else fetched.features[chosen]
            ok = fetched.ok[chosen]
            counting = time.perf_counter()
            if query.lines:
                outcomes.append(self._lines(query.features, stored[0] if ok[0] else None))
                continue
            matcher = self._matcher(query)
            counts, scores = matcher.match(stored, ok), matcher.scores()
            rerank_ms = (time.perf_counter() - counting) * 1e3
            misses = len(requested) - fetched.hits
            outcomes.append(
                Counted(
                    *(counts, scores, matcher.kind, fetch_ms, rerank_ms),
                    *(len(queries), 0, fetched.hits, misses),
                )
            )
        return outcomes

    def _lines(self, features: NDArray[np.float32], stored: NDArray[Any] | None) -> list[list[float]]:
        kind = self._matching.score_of(self._card)
        lines = line_points(features, stored, self._card, codec=self._codec, kind=kind)
        columns = (lines.similarity[:, None], lines.agree[:, None])
        rows = np.concatenate([lines.points, lines.stored_points, *columns], axis=1, dtype=np.float32)
        return [[round(value, 5) for value in row] for row in rows.tolist()]


_Outcome = Counted | list[list[float]]


def open_rerank_worker(settings: ServeSettings) -> RerankWorker:
    """Open the features; count on the accelerator if this process has one.

    On a CPU the whole process keeps freed memory from then on: see `models.runtime.allocator`.
    """
    device = best_device()
    if device.type == "cpu":
        keep_freed_memory()
    worker = RerankWorker(
        settings.store,
        Store.open(settings.store, at=settings.at).card,
        device=device,
        cache_bytes=settings.cache_mib << 20,
        max_queue=settings.max_queue,
        matching=settings.matching_options,
    )
    worker.warm_up()
    return worker
