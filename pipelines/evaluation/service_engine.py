"""A running service in the place of an engine, so that what users get is evaluated."""

from __future__ import annotations

import dataclasses
from collections.abc import Generator, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from models.images import ImageRejected
from models.images.photo_file import read_bytes
from pipelines.evaluation.engines import Limits
from pipelines.sources import SourceError
from serving.answer import QueryResult
from serving.client import PhotoRefused, PlaceClient
from serving.engine import QueryEngine
from serving.matching_options import OPTIONS, BadMatching, Matching, matching_of
from serving.query import Rerank
from serving.reranking import MIN_CANDIDATES
from storage.text import plain

__all__ = ["ServiceEngine"]

_THREADS = 4
_LIMITS = ("candidates", "max_candidates", "max_top_k")
_TIMES = ("decode", "extract", "search", "fetch", "rerank", "total")


class ServiceEngine:
    """Answers queries through a service; store and model are those of a local engine of the same store.

    Args:
        local: An engine of the store that the service serves.
        client: Of the service.

    Attributes:
        store, extractor, max_pixels: Of the local engine.
        matching: The service's options of matching; those of the local engine where it does not say them.
        search_method: The service's search method, `auto` resolved where it says that.
        method: The same in words.
        limits: What the service re-ranks by itself and at most, and how many places it lists. One that stops
            early matches at least as many candidates as it lists, so no more places are asked for than it
            matches anyway: asked for 100 it would not stop.
        told: Conditions that the service sets, by the keys of `conditions_of`.
        info: The service's description of itself.
        identity: All of that which answers may depend on.
        tells_matching: Whether the service says its options of matching, so that `matching` are these.

    Raises:
        SourceError: the service serves another store than the engine.
        ServiceUnavailable, ServiceRefused, BadAnswer: see `PlaceClient`.
    """

    def __init__(self, local: QueryEngine, client: PlaceClient) -> None:
        self.store, self.extractor, self.max_pixels = local.store, local.extractor, local.max_pixels
        self.info: Mapping[str, Any] = client.info()
        self.search_method = str(self.info.get("search_method") or self.info.get("method"))
        self.method = f"{self.search_method} through a service, topology {self.info.get('topology')}"
        told = _matching(self.info)
        self.tells_matching = told is not None
        self.matching = told or local.matching
        self.limits = _limits(self.info, told)
        self.told = _told(self.info)
        self.identity = {name: value for name, value in self.info.items() if name != "request_id"}
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

        The service's `limits` are the caller's to keep.
        """

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


def _whole(info: Mapping[str, Any], name: str) -> int | None:
    value = info.get(name)
    return value if isinstance(value, int) and value > 0 else None


def _limits(info: Mapping[str, Any], matching: Matching | None) -> Limits:
    candidates, max_candidates, max_top_k = (_whole(info, name) for name in _LIMITS)
    limits = Limits(candidates, max_candidates, max_top_k)
    stops = matching is not None and matching.stop_early
    if not stops or (limits.max_top_k or MIN_CANDIDATES + 1) <= MIN_CANDIDATES:
        return limits
    return dataclasses.replace(limits, max_top_k=MIN_CANDIDATES, by_early_stop=True)


def _matching(info: Mapping[str, Any]) -> Matching | None:
    """Return the options of matching that a service says; None where it does not, as before version 0.2."""
    if not all(name in info for name in OPTIONS):
        return None
    try:
        return matching_of(info)
    except (BadMatching, TypeError):  # of a later version
        return None


def _told(info: Mapping[str, Any]) -> dict[str, Any]:
    """Return the conditions of a service in words; what it does not say is not guessed."""
    matching = _matching(info)
    words = "as the service is set" if matching is None else str(matching) or "every candidate, exactly"
    precision = plain(str(info.get("precision") or "the precision of the service"), 40)
    return {"precision": precision, "device": "the service's device", "matching": words}


def _timed(answer: QueryResult) -> QueryResult:
    for stage in _TIMES:
        answer.timings_ms.setdefault(stage, 0.0)
    return answer
