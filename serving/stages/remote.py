"""The stages of the service in separate deployments (topology `split`), called through Serve handles."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray
from ray.exceptions import RayActorError
from ray.serve.exceptions import BackPressureError, DeploymentUnavailableError
from ray.serve.handle import DeploymentHandle

from serving.errors import Refusal, Unreachable
from serving.metrics import Metrics
from serving.stages.messages import Counted, Descriptor, Extracted, IndexStatus, Searched
from serving.stages.protocol import VERSION_ATTEMPTS, VERSION_PAUSE_S, moving
from storage.records import ImageRecord
from storage.search.hits import merge_hits
from storage.search.row_filter import RowFilter

__all__ = ["RemoteStages", "ask"]

LOG = logging.getLogger(__name__)
Reply = TypeVar("Reply")

# A killed replica fails the calls in progress; a repeated call is routed to another replica, or waits for the
# new one. The third attempt covers a second replica that dies in between.
ATTEMPTS = 3
PAUSE_S = 0.05


class RemoteStages:
    """The stages of a query in other deployments.

    Args:
        extractor: Handle of the Extractor deployment.
        searchers: One handle per partition of the index, in order.
        reranker: Handle of the Reranker deployment.
        metrics: Counts repeated calls.
    """

    def __init__(
        self,
        extractor: DeploymentHandle[Any],
        searchers: Sequence[DeploymentHandle[Any]],
        reranker: DeploymentHandle[Any],
        metrics: Metrics,
    ) -> None:
        self._extractor = extractor
        self._searchers = list(searchers)
        self._reranker = reranker
        self._metrics = metrics

    async def extract(self, image: bytes, *, timeout_s: float) -> Extracted:
        """Decode a photo and run the model."""
        reply: Extracted = await self._ask(
            "extract", partial(self._extractor.extract.remote, image, timeout_s)
        )
        return reply

    async def search(
        self, descriptor: Descriptor, *, k: int, timeout_s: float, within: RowFilter | None = None
    ) -> Searched:
        """Search all partitions, in the newest version that all of them have loaded."""
        replies = await self._search_parts(
            range(len(self._searchers)), descriptor, k, None, within, timeout_s
        )
        for _ in range(VERSION_ATTEMPTS):
            versions = {reply.result.version for reply in replies if reply.result is not None}
            if len(versions) == 1 and all(reply.result is not None for reply in replies):
                break
            common = set.intersection(*(set(reply.loaded_versions) for reply in replies))
            version = max(common) if common else None
            if version is None or any(reply.result is None for reply in replies):
                await asyncio.sleep(VERSION_PAUSE_S)
            late = [
                i
                for i, reply in enumerate(replies)
                if version is None or reply.result is None or reply.result.version != version
            ]
            again = await self._search_parts(late, descriptor, k, version, within, timeout_s)
            for i, reply in zip(late, again, strict=True):
                replies[i] = reply
        else:
            raise moving()
        merged = merge_hits([reply.result for reply in replies if reply.result is not None], k=k)
        slowest = max(replies, key=lambda reply: reply.search_ms)
        return Searched(merged, merged.loaded_versions, slowest.search_ms, slowest.batch, slowest.queued)

    async def count(
        self,
        features: NDArray[np.float32],
        records: Sequence[ImageRecord],
        *,
        min_candidates: int,
        timeout_s: float,
    ) -> Counted:
        """Count mutual nearest neighbours."""
        reply: Counted = await self._ask(
            "rerank", partial(self._reranker.count.remote, features, records, min_candidates, timeout_s)
        )
        return reply

    async def lines(
        self, features: NDArray[np.float32], record: ImageRecord, *, timeout_s: float
    ) -> list[list[float]]:
        """List matched points."""
        reply: list[list[float]] = await self._ask(
            "rerank", partial(self._reranker.lines.remote, features, record, timeout_s)
        )
        return reply

    async def status(self) -> IndexStatus:
        """Return the state of all partitions: the first error and the oldest version."""
        parts: list[IndexStatus] = await asyncio.gather(
            *(self._ask("search", handle.status.remote) for handle in self._searchers)
        )
        oldest = min(parts, key=lambda part: part.version)
        error = next((part.error for part in parts if part.error is not None), None)
        return IndexStatus(oldest.version, oldest.rows, error, oldest.method)

    async def _search_parts(
        self,
        parts: Sequence[int],
        descriptor: Descriptor,
        k: int,
        version: int | None,
        within: RowFilter | None,
        timeout_s: float,
    ) -> list[Searched]:
        calls = [
            partial(self._searchers[part].search.remote, descriptor, k, version, within, timeout_s)
            for part in parts
        ]
        return list(await asyncio.gather(*(self._ask("search", call) for call in calls)))

    async def _ask(self, stage: str, call: Callable[[], Awaitable[Any]]) -> Any:
        return await ask(call, again=partial(self._metrics.retry, stage))


async def ask(call: Callable[[], Awaitable[Reply]], *, again: Callable[[], None]) -> Reply:
    """Call a replica; repeat the call if the replica died, which is safe because queries change nothing.

    Args:
        call: Calls the replica; once per attempt.
        again: Called before each repetition.

    Raises:
        Refusal: the replica refused, or too many calls are queued.
        Unreachable: no replica answered.
    """
    for attempt in range(ATTEMPTS):
        if attempt:
            again()
            await asyncio.sleep(PAUSE_S * attempt)
        try:
            reply = await call()
        except BackPressureError:
            message = "Too many queries are queued; try again after Retry-After."
            raise Refusal(503, "overloaded", message, 1) from None
        except (RayActorError, DeploymentUnavailableError) as error:
            LOG.warning("a replica did not answer: %s", type(error).__name__)
            continue
        if isinstance(reply, Refusal):
            if reply.reason == "not_ready":  # the replica is shutting down
                continue
            raise reply
        return reply
    raise Unreachable(f"no answer in {ATTEMPTS} attempts")
