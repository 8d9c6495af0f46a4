"""A running service in the place of an engine, so that what users get is evaluated."""

from __future__ import annotations

from collections.abc import Generator, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from models.images import ImageRejected
from models.images.photo_file import read_bytes
from pipelines.sources import SourceError
from serving.answer import QueryResult
from serving.client import PhotoRefused, PlaceClient
from serving.engine import QueryEngine
from serving.query import Rerank

__all__ = ["ServiceEngine"]

_THREADS = 4
_TIMES = ("decode", "extract", "search", "fetch", "rerank", "total")


class ServiceEngine:
    """Answers queries through a service; store and model are those of a local engine of the same store.

    Args:
        local: An engine of the store that the service serves.
        client: Of the service.

    Attributes:
        store, extractor, matching, max_pixels: Of the local engine.
        method: Search method of the service.
        info: The service's description of itself.

    Raises:
        SourceError: the service serves another store than the engine.
        ServiceUnavailable, ServiceRefused, BadAnswer: see `PlaceClient`.
    """

    def __init__(self, local: QueryEngine, client: PlaceClient) -> None:
        self.store, self.extractor = local.store, local.extractor
        self.matching, self.max_pixels = local.matching, local.max_pixels
        self.info: Mapping[str, Any] = client.info()
        self.method = f"{self.info.get('method')} through a service, topology {self.info.get('topology')}"
        self._client = client
        ours = (self.store.card.model, self.store.version, self.store.count)
        theirs = tuple(self.info.get(name) for name in ("model", "store_version", "rows"))
        if ours != theirs:
            raise SourceError(
                f"the service has model {theirs[0]}, version {theirs[1]} and {theirs[2]} images, and "
                f"{self.store.uri} has {ours[0]}, {ours[1]} and {ours[2]}: give the store that it serves"
            )

    def answer_many(
        self,
        photos: Iterable[str],
        *,
        top_k: int,
        candidates: int,
        rerank: Rerank,
        min_candidates: int | None = None,
    ) -> Generator[QueryResult | ImageRejected]:
        """Yield the service's answer to each photo, in order; see `QueryEngine.answer_many`.

        Places and candidates are at most what the service allows.
        """
        top_k = min(top_k, int(self.info["max_top_k"]))
        candidates = min(candidates, int(self.info["max_candidates"]))

        def ask(path: str) -> QueryResult | ImageRejected:
            try:
                photo = read_bytes(path)
                answer = self._client.answer(photo, top_k=top_k, candidates=candidates, rerank=rerank)
            except PhotoRefused as error:
                return ImageRejected(error.reason, str(error))
            except ImageRejected as error:
                return error
            return _timed(answer)

        with ThreadPoolExecutor(_THREADS) as threads:
            yield from threads.map(ask, photos)


def _timed(answer: QueryResult) -> QueryResult:
    for stage in _TIMES:
        answer.timings_ms.setdefault(stage, 0.0)
    return answer
