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
from serving.stages.messages import Counted, Extracted, IndexStatus, Searched
from storage.records import ImageRecord
from storage.search.hits import merge_hits

__all__ = ["RemoteStages", "ask"]

LOG = logging.getLogger(__name__)
Reply = TypeVar("Reply")

# A killed replica fails the calls it was working on; called again, Serve routes to another one, or waits for
# the new one. The third attempt covers a second replica that dies meanwhile.
ATTEMPTS = 3
PAUSE_S = 0.05
# Parts of the index move to a new version within moments of each other.
VERSION_ATTEMPTS = 20


class RemoteStages:
    """All stages behind handles.

    Args:
        extractor: Handle of the Extractor deployment.
        searchers: One handle per part of the index, in order.
        reranker: Handle of the Reranker deployment.
        metrics: Counts the calls that were made again.
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

    async def search(self, descriptor: NDArray[np.float32], *, k: int, timeout_s: float) -> Searched:
        """Search all parts, in the newest version that all of them hold."""
        replies = await self._search_parts(range(len(self._searchers)), descriptor, k, None, timeout_s)
        for _ in range(VERSION_ATTEMPTS):
            versions = {reply.found.version for reply in replies if reply.found is not None}
            if len(versions) == 1 and all(reply.found is not None for reply in replies):
                break
            common = set.intersection(*(set(reply.held) for reply in replies))
            version = max(common) if common else None
            if version is None:
                await asyncio.sleep(PAUSE_S)
            late = [
                i
                for i, reply in enumerate(replies)
                if version is None or reply.found is None or reply.found.version != version
            ]
            again = await self._search_parts(late, descriptor, k, version, timeout_s)
            for i, reply in zip(late, again, strict=True):
                replies[i] = reply
        else:
            message = "The index is moving to a new version; try again after Retry-After."
            raise Refusal(503, "not_ready", message, 1)
        found = merge_hits([reply.found for reply in replies if reply.found is not None], k=k)
        slowest = max(replies, key=lambda reply: reply.search_ms)
        return Searched(found, found.loaded_versions, slowest.search_ms, slowest.batch, slowest.waiting)

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
        """Return the state of all parts: the first trouble, the oldest version."""
        parts: list[IndexStatus] = await asyncio.gather(
            *(self._ask("search", handle.status.remote) for handle in self._searchers)
        )
        oldest = min(parts, key=lambda part: part.version)
        trouble = next((part.trouble for part in parts if part.trouble is not None), None)
        return IndexStatus(oldest.version, oldest.rows, trouble)

    async def _search_parts(
        self,
        parts: Sequence[int],
        descriptor: NDArray[np.float32],
        k: int,
        version: int | None,
        timeout_s: float,
    ) -> list[Searched]:
        calls = [
            partial(self._searchers[part].search.remote, descriptor, k, version, timeout_s) for part in parts
        ]
        return list(await asyncio.gather(*(self._ask("search", call) for call in calls)))

    async def _ask(self, stage: str, call: Callable[[], Awaitable[Any]]) -> Any:
        return await ask(call, again=partial(self._metrics.retry, stage))


async def ask(call: Callable[[], Awaitable[Reply]], *, again: Callable[[], None]) -> Reply:
    """Call a replica; call again when it died, because a query changes nothing.

    Args:
        call: Makes the call; called once per attempt.
        again: Called before each further attempt.

    Raises:
        Refusal: the replica refused, or too many calls wait for one.
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
            if reply.reason == "not_ready":  # that replica is shutting down
                continue
            raise reply
        return reply
    raise Unreachable(f"no answer in {ATTEMPTS} attempts")
