"""Searches one partition of the index in batches, and loads new commits."""

from __future__ import annotations

import dataclasses
import logging
import threading
import time
from collections.abc import Hashable
from dataclasses import dataclass

import numpy as np

from serving.errors import StoreUnavailable
from serving.settings import ServeSettings
from serving.stages.batcher import MicroBatcher
from serving.stages.messages import Descriptor, IndexStatus, Searched
from storage.errors import CardMismatch, StoreError
from storage.search.hits import SearchHits
from storage.search.index_partition import IndexPartition, VersionNotLoaded
from storage.search.partition import Partition
from storage.search.row_filter import RowFilter

__all__ = ["SearchWorker", "open_search_worker"]

LOG = logging.getLogger(__name__)
_SECOND_CHECK_S = 0.2


@dataclass(frozen=True, eq=False)
class _Query:
    descriptor: Descriptor
    k: int
    version: int | None
    within: RowFilter | None


class SearchWorker:
    """One partition of the index behind a queue, with a thread that loads new commits.

    Args:
        part: The loaded partition.
        refresh_s: Interval of checks for new commits. All partitions check at the same times of the clock, so
            that they mostly change versions together.
        max_batch: Maximum number of queries per search.
        max_queue: Maximum number of queued queries.
    """

    def __init__(
        self, part: IndexPartition, *, refresh_s: float = 0.5, max_batch: int = 32, max_queue: int = 256
    ) -> None:
        self.part = part
        self._refresh_s = refresh_s
        self._error: str | None = None
        self._stop = threading.Event()
        self._batcher: MicroBatcher[_Query, _Outcome] = MicroBatcher(
            self._work, max_batch=max_batch, max_queue=max_queue, name="search"
        )
        self._follower = threading.Thread(target=self._follow, name="follow", daemon=True)
        self._follower.start()

    @property
    def status(self) -> IndexStatus:
        """State of this partition."""
        snapshot = self.part.snapshot
        method = self.part.method_for(snapshot)
        return IndexStatus(snapshot.version, snapshot.count, self._error, method)

    async def search(
        self,
        descriptor: Descriptor,
        *,
        k: int,
        version: int | None = None,
        within: RowFilter | None = None,
        timeout_s: float | None = None,
    ) -> Searched:
        """Search for one photo.

        Args:
            descriptor: Of the photo; it is compared with stored ones of the same aggregation alone.
            k: Number of candidates from this partition.
            version: Store version to search; None: the newest loaded that the descriptor fits.
            within: Which rows may be found; default: all.
            timeout_s: Time limit for the result.

        Raises:
            StoreUnavailable: the store is gone or new commits cannot be loaded; stale results are never
                returned.
            InvalidBatch: the descriptor cannot be searched.
            QueueFull, DeadlineExceeded, BatcherClosed: as of `MicroBatcher`.
        """
        if self._error is not None:
            raise StoreUnavailable(self._error)
        outcome, search_ms, batch = await self._batcher.submit(
            _Query(descriptor, k, version, within), timeout_s=timeout_s
        )
        if isinstance(outcome, StoreError):
            if not isinstance(outcome, VersionNotLoaded):
                raise outcome
            return Searched(None, self.part.loaded_versions, search_ms, batch, self._batcher.queued)
        return Searched(outcome, outcome.loaded_versions, search_ms, batch, self._batcher.queued)

    async def close(self) -> None:
        """Finish queued queries and end the threads."""
        self._stop.set()
        await self._batcher.close()

    def _work(self, queries: list[_Query]) -> list[_Outcome]:
        started = time.perf_counter()
        groups: dict[Hashable, list[int]] = {}
        for i, query in enumerate(queries):
            alike = (query.version, query.within, frozenset(query.descriptor.by_aggregation))
            groups.setdefault(alike, []).append(i)
        outcomes: list[SearchHits | StoreError | None] = [None] * len(queries)
        for members in groups.values():
            for i, outcome in zip(members, self._search([queries[i] for i in members]), strict=True):
                outcomes[i] = outcome
        search_ms = (time.perf_counter() - started) * 1e3
        return [(outcome, search_ms, len(queries)) for outcome in outcomes if outcome is not None]

    def _search(self, queries: list[_Query]) -> list[SearchHits | StoreError]:
        """Search for queries of the same version, filter and aggregations."""
        try:
            results = self._search_fitting(queries)
        except (StoreError, ValueError) as error:
            if len(queries) == 1:
                return [error if isinstance(error, StoreError) else StoreError(str(error))]
            # An invalid descriptor must not fail the other queries.
            return [self._search([query])[0] for query in queries]
        return [
            dataclasses.replace(result, hits=result.hits[: query.k])
            for result, query in zip(results, queries, strict=True)
        ]

    def _search_fitting(self, queries: list[_Query]) -> list[SearchHits]:
        """Search the newest version that descriptors of the same aggregations fit.

        Raises:
            VersionNotLoaded: none is loaded, or not the requested one.
        """
        descriptors, k = [query.descriptor for query in queries], max(query.k for query in queries)
        version, within = queries[0].version, queries[0].within
        newest = self.part.card.aggregation_sha256
        given = [descriptor.code for descriptor in descriptors if descriptor.code is not None]
        codes = np.stack(given) if len(given) == len(descriptors) else None
        digests = sorted(descriptors[0].by_aggregation, key=lambda digest: digest != newest)
        for last, digest in enumerate(digests, start=1 - len(digests)):
            values = np.stack([descriptor.by_aggregation[digest] for descriptor in descriptors])
            try:
                return self.part.search(
                    values, k=k, version=version, aggregation_sha256=digest, codes=codes, within=within
                )
            except VersionNotLoaded:
                if last == 0:
                    raise
        raise AssertionError("a descriptor is of at least one aggregation")

    def _follow(self) -> None:
        while not self._stop.wait(self._refresh_s - time.time() % self._refresh_s):
            error = self._load_commits()
            if error is not None and self._error is None:
                # A check during a writer's rename sees an incomplete store: check again before reporting it.
                if self._stop.wait(_SECOND_CHECK_S):
                    return
                error = self._load_commits()
            if (error is None) != (self._error is None):
                LOG.warning({"event": "store", "trouble": error or "none"})
            self._error = error

    def _load_commits(self) -> str | None:
        """Load the newest version; return why that is not possible, as a word."""
        try:
            if self.part.refresh():
                newest = self.part.snapshot
                LOG.info({"event": "version", "store_version": newest.version, "rows": newest.count})
        except CardMismatch:
            return "another_model"
        except Exception:  # this thread must not end, or results would become stale unnoticed
            LOG.warning("new commits cannot be loaded", exc_info=True)
            return "unreadable"
        return None


_Outcome = tuple[SearchHits | StoreError, float, int]


def open_search_worker(settings: ServeSettings, part: Partition) -> SearchWorker:
    """Load a partition of the index and start the thread that loads new commits."""
    loaded = IndexPartition(
        settings.store,
        partition=part,
        method=settings.method,
        memory_bytes=int(settings.memory_gib * (1 << 30)),
        keep_s=2 * settings.refresh_s + 2,
        at=settings.at,
    )
    return SearchWorker(loaded, refresh_s=settings.refresh_s, max_queue=max(256, settings.max_queue))
