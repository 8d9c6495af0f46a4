"""Runs queries through the stages of the service, without knowing of Ray and HTTP."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager

from serving.answer import QueryResult
from serving.errors import Refusal, refusal_of
from serving.gallery import Gallery
from serving.metrics import Metrics
from serving.places.places import Places
from serving.priors.soft_prior import SoftPrior
from serving.query import Query, QueryOptions, Rerank
from serving.settings import ServeSettings
from serving.stages.messages import Extracted, IndexStatus
from serving.stages.protocol import Stages
from storage.search.row_filter import RowFilter

__all__ = ["Service"]

STATUS_TIMEOUT_S = 3.0


class Service:
    """Answers queries within their timeout and updates the metrics.

    Attributes:
        settings: Of the service.
        metrics: Of this ingress replica.
        gallery: Reads stored images.
    """

    def __init__(
        self,
        settings: ServeSettings,
        stages: Stages,
        gallery: Gallery,
        metrics: Metrics,
        places: Places | None = None,
    ) -> None:
        self.settings = settings
        self.metrics = metrics
        self.gallery = gallery
        self._stages = stages
        self._places = places
        self._in_flight = 0
        self._partial = settings.matching_options.partial

    async def answer(
        self,
        image: bytes,
        *,
        top_k: int,
        candidates: int,
        rerank: Rerank,
        max_wrong: float | None = None,
        within: RowFilter | None = None,
        prior: SoftPrior | None = None,
    ) -> QueryResult:
        """Rank the places where a photo may have been taken; the same answer as `QueryEngine.answer`.

        Raises:
            Refusal: the query was refused or failed in an expected way.
        """
        options = QueryOptions(
            top_k=top_k,
            candidates=candidates,
            rerank=rerank if self.settings.local_features else False,
            max_wrong=max_wrong,
            within=within,
            prior=prior,
        )
        query = Query(
            options,
            model=self.settings.model_name,
            partial=self._partial,
            places=self._places,
            matching=self.settings.matching_options,
        )
        with self._admitted():
            async with asyncio.timeout(self.settings.request_timeout_s) as limit:
                extracted = await self._extract(image, _left(limit))
                query.timings_ms |= {"decode": extracted.decode_ms, "extract": extracted.extract_ms}
                searched = await self._stages.search(
                    extracted.descriptor, k=query.k, within=query.within, timeout_s=_left(limit)
                )
                self._observe("search", searched.batch, searched.queued)
                hits = searched.result
                assert hits is not None
                query.timings_ms["search"] = searched.search_ms
                records = query.searched(
                    hits.hits,
                    version=hits.version,
                    degraded=hits.degraded,
                    card=hits.card,
                    rows=hits.rows,
                    precision=extracted.precision,
                    considered=hits.considered,
                    search_method=hits.method,
                )
                if records:
                    counted = await self._stages.count(
                        extracted.features,
                        records,
                        min_candidates=query.min_candidates,
                        timeout_s=_left(limit),
                    )
                    self._observe("rerank", counted.batch, counted.queued)
                    self.metrics.cache(counted.cache_hits, counted.cache_misses)
                    query.timings_ms |= {"fetch": counted.fetch_ms, "rerank": counted.rerank_ms}
                    query.counted(counted.counts, counted.scores, counted.score_kind)
            result = query.result()
        self.metrics.stages(result.timings_ms)
        self.metrics.store(hits.version, hits.rows, ready=True)
        if result.degraded:
            self.metrics.degraded()
        return result

    async def lines(self, image: bytes, image_id: str) -> tuple[int, list[list[float]]]:
        """List the matched points of a photo and a stored image.

        Returns:
            The store version, and [x1, y1, x2, y2, similarity, agrees] per pair, positions in 0..1 of width
            and height, `agrees` 1 or 0, see `MatchedLines`.

        Raises:
            Refusal: as `answer`; reason `unknown_image` for an id that is not stored.
        """
        with self._admitted():
            async with asyncio.timeout(self.settings.request_timeout_s) as limit:
                version, record = await self.gallery.record(image_id)
                extracted = await self._extract(image, _left(limit))
                return version, await self._stages.lines(extracted.features, record, timeout_s=_left(limit))

    async def status(self) -> IndexStatus:
        """Return the state of the index; its `error` is why queries are refused."""
        try:
            async with asyncio.timeout(STATUS_TIMEOUT_S):
                status = await self._stages.status()
        except Exception as error:
            refusal = refusal_of(error)
            if refusal is None:
                raise
            status = IndexStatus(0, 0, refusal.reason)
        self.metrics.store(status.version, status.rows, ready=status.error is None)
        return status

    async def _extract(self, image: bytes, timeout_s: float) -> Extracted:
        extracted = await self._stages.extract(image, timeout_s=timeout_s)
        self._observe("extract", extracted.batch, extracted.queued)
        return extracted

    def _observe(self, stage: str, batch: int, queued: int) -> None:
        self.metrics.batch(stage, batch)
        self.metrics.queue(stage, queued)

    @contextmanager
    def _admitted(self) -> Iterator[None]:
        """Limit the number of queries in flight, and translate their errors for HTTP.

        Raises:
            Refusal: the limit is reached, or the query failed in an expected way.
        """
        if self._in_flight >= self.settings.max_in_flight:
            message = "Too many queries are being answered; try again after Retry-After."
            raise Refusal(503, "overloaded", message, 1)
        self._count_in_flight(1)
        try:
            yield
        except Exception as error:
            refusal = refusal_of(error)
            if refusal is None or refusal is error:
                raise
            raise refusal from error
        finally:
            self._count_in_flight(-1)

    def _count_in_flight(self, change: int) -> None:
        self._in_flight += change
        self.metrics.queue("in_flight", self._in_flight)


def _left(limit: asyncio.Timeout) -> float:
    """Return the seconds until the query times out."""
    when = limit.when()
    assert when is not None
    return max(0.001, when - asyncio.get_running_loop().time())
