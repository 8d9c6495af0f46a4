"""Searches one part of the index in batches, and keeps it at the store's newest version."""

from __future__ import annotations

import logging
import threading
import time
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from serving.errors import StoreUnavailable
from serving.settings import ServeSettings
from serving.stages.batcher import MicroBatcher
from serving.stages.messages import IndexStatus, Searched
from storage.errors import CardMismatch, StoreError
from storage.search.hits import SearchHits
from storage.search.index_partition import IndexPartition, VersionNotLoaded
from storage.search.partition import Partition

__all__ = ["SearchWorker", "open_search_worker"]

LOG = logging.getLogger(__name__)
_SECOND_LOOK_S = 0.2


@dataclass(frozen=True, eq=False)
class _Query:
    descriptor: NDArray[np.float32]
    k: int
    version: int | None


class SearchWorker:
    """One part of the index behind a queue, with a thread that follows the store.

    Args:
        part: The part, loaded.
        refresh_s: How often the store is looked at. All parts look at the same moments of the clock, so that
            they mostly move together.
        max_batch: Most queries searched at once.
        max_queue: Queries that may wait.
    """

    def __init__(
        self, part: IndexPartition, *, refresh_s: float = 2.0, max_batch: int = 32, max_queue: int = 256
    ) -> None:
        self.part = part
        self._refresh_s = refresh_s
        self._trouble: str | None = None
        self._stop = threading.Event()
        self._batcher: MicroBatcher[_Query, _Outcome] = MicroBatcher(
            self._work, max_batch=max_batch, max_queue=max_queue, name="search"
        )
        self._follower = threading.Thread(target=self._follow, name="follow", daemon=True)
        self._follower.start()

    @property
    def status(self) -> IndexStatus:
        """How this part stands."""
        snapshot = self.part.snapshot
        return IndexStatus(snapshot.version, snapshot.count, self._trouble)

    async def search(
        self,
        descriptor: NDArray[np.float32],
        *,
        k: int,
        version: int | None = None,
        timeout_s: float | None = None,
    ) -> Searched:
        """Search for one photo.

        Args:
            descriptor: (D,) float32, unit L2 norm.
            k: How many candidates of this part.
            version: Which store version; None takes the newest held.
            timeout_s: Longest time to wait.

        Raises:
            StoreUnavailable: the store has gone, or cannot be followed; stale results are never returned.
            InvalidBatch: the descriptor cannot be searched.
            QueueFull, DeadlineExceeded, BatcherClosed: as of `MicroBatcher`.
        """
        if self._trouble is not None:
            raise StoreUnavailable(self._trouble)
        outcome, search_ms, batch = await self._batcher.submit(
            _Query(descriptor, k, version), timeout_s=timeout_s
        )
        if isinstance(outcome, StoreError):
            if not isinstance(outcome, VersionNotLoaded):
                raise outcome
            return Searched(None, self.part.loaded_versions, search_ms, batch, self._batcher.waiting)
        return Searched(outcome, outcome.loaded_versions, search_ms, batch, self._batcher.waiting)

    async def close(self) -> None:
        """Finish what waits and end the threads."""
        self._stop.set()
        await self._batcher.close()

    def _work(self, queries: list[_Query]) -> list[_Outcome]:
        started = time.perf_counter()
        groups: dict[int | None, list[int]] = {}
        for i, query in enumerate(queries):
            groups.setdefault(query.version, []).append(i)
        outcomes: list[SearchHits | StoreError | None] = [None] * len(queries)
        for version, members in groups.items():
            for i, outcome in zip(members, self._search([queries[i] for i in members], version), strict=True):
                outcomes[i] = outcome
        search_ms = (time.perf_counter() - started) * 1e3
        return [(outcome, search_ms, len(queries)) for outcome in outcomes if outcome is not None]

    def _search(self, queries: list[_Query], version: int | None) -> list[SearchHits | StoreError]:
        k = max(query.k for query in queries)
        try:
            found = self.part.search(np.stack([query.descriptor for query in queries]), k=k, version=version)
        except (StoreError, ValueError) as error:
            if len(queries) == 1:
                return [error if isinstance(error, StoreError) else StoreError(str(error))]
            # One query's bad descriptor is not the others' fault.
            return [self._search([query], version)[0] for query in queries]
        return [
            SearchHits(f.version, f.rows, f.degraded, f.hits[: query.k], f.loaded_versions)
            for f, query in zip(found, queries, strict=True)
        ]

    def _follow(self) -> None:
        while not self._stop.wait(self._refresh_s - time.time() % self._refresh_s):
            trouble = self._look()
            if trouble is not None and self._trouble is None:
                # A look that falls into a writer's rename sees half of it: look again before saying so.
                if self._stop.wait(_SECOND_LOOK_S):
                    return
                trouble = self._look()
            if (trouble is None) != (self._trouble is None):
                LOG.warning({"event": "store", "trouble": trouble or "none"})
            self._trouble = trouble

    def _look(self) -> str | None:
        try:
            if self.part.refresh():
                newest = self.part.snapshot
                LOG.info({"event": "version", "store_version": newest.version, "rows": newest.count})
        except CardMismatch:
            return "another_model"
        except Exception:  # whatever it is, this thread must go on, or the answers grow old unnoticed
            LOG.warning("the store cannot be followed", exc_info=True)
            return "unreadable"
        return None


_Outcome = tuple[SearchHits | StoreError, float, int]


def open_search_worker(settings: ServeSettings, part: Partition) -> SearchWorker:
    """Load a part of the index and begin to follow the store."""
    loaded = IndexPartition(
        settings.store,
        partition=part,
        method=settings.method,
        memory_bytes=int(settings.memory_gib * (1 << 30)),
        keep_s=2 * settings.refresh_s + 2,
    )
    return SearchWorker(loaded, refresh_s=settings.refresh_s, max_queue=max(256, settings.max_queue))
