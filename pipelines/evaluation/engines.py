"""What an evaluation asks of an engine, and an engine that remembers its answers."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Generator, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from models.extractor import Extractor
from models.images import ImageRejected
from pipelines.evaluation.answer_cache import AnswerCache, cache_key
from pipelines.evaluation.package_versions import package_versions
from serving.answer import QueryResult
from serving.engine import QueryEngine
from serving.matching_options import Matching
from serving.places.rerank_rule import RerankRule
from serving.query import Rerank
from storage.store import Store

__all__ = ["NO_LIMITS", "AnsweringEngine", "Limits", "RememberingEngine", "cache_folder"]


@dataclass(frozen=True)
class Limits:
    """What an engine gives of itself, and at most; None: no limit, and the default of the store's card.

    Attributes:
        candidates: Hits that are re-ranked unless a request says otherwise.
        max_candidates: Hits that are re-ranked at most.
        max_top_k: Places that are listed at most.
        by_early_stop: Whether `max_top_k` is lower than the engine's own, see `ServiceEngine`.
    """

    candidates: int | None = None
    max_candidates: int | None = None
    max_top_k: int | None = None
    by_early_stop: bool = False


NO_LIMITS = Limits()


class AnsweringEngine(Protocol):
    """Answers the queries of an evaluation: a `QueryEngine`, a service, or one that remembers answers.

    A service also has `limits`, and `told`: the conditions that it sets.
    """

    store: Store
    extractor: Extractor
    matching: Matching
    max_pixels: int

    @property
    def method(self) -> str:
        """How nearest descriptors are searched, in a word."""

    def answer_many(
        self,
        photos: Iterable[str],
        *,
        top_k: int,
        candidates: int,
        rerank: Rerank,
        min_candidates: int | None = None,
    ) -> Generator[QueryResult | ImageRejected]:
        """Yield the answer to each photo, or the error of one that cannot be used."""


def cache_folder() -> Path:
    """Return where answers are remembered: in `XDG_CACHE_HOME`, else in `~/.cache`."""
    base = os.environ.get("XDG_CACHE_HOME") or os.path.join(os.path.expanduser("~"), ".cache")
    return Path(base, "placeray", "evaluations")


class RememberingEngine:
    """Answers as an engine, but photos that it answered before, in this run or an interrupted one, from disk.

    Args:
        engine: Answers the others. Its answers must follow from its settings: without a budget of time. One
            whose answers depend on more than these says that in `identity`.
        digests: SHA-256 of each photo by path; None for one that cannot be read.
        folder: Of the answers.

    Attributes:
        store, extractor, matching, method, max_pixels: Of the engine.
        limits, told: Of a service.
        remembered: Photos that were answered from disk.
    """

    def __init__(
        self, engine: AnsweringEngine, digests: Mapping[str, str | None], *, folder: Path | None = None
    ) -> None:
        self.store, self.extractor, self.matching = engine.store, engine.extractor, engine.matching
        self.method, self.max_pixels = engine.method, engine.max_pixels
        self.limits: Limits = getattr(engine, "limits", NO_LIMITS)
        self.told: Mapping[str, str] = getattr(engine, "told", {})
        self.remembered = 0
        self._engine = engine
        self._digests = digests
        self._folder = folder or cache_folder()
        self._caches: list[AnswerCache] = []

    def rerank_rule(self, *, candidates: int) -> RerankRule | None:
        """Return the rule of the store's calibration; see `QueryEngine.rerank_rule`. A service tells none."""
        if not isinstance(self._engine, QueryEngine):
            return None
        return self._engine.rerank_rule(candidates=candidates)

    def forget(self) -> None:
        """Remove the answers that this engine kept, so that the next run asks anew."""
        for cache in self._caches:
            cache.remove()

    def answer_many(self, photos: Iterable[str], **options: Any) -> Generator[QueryResult | ImageRejected]:
        """Yield the answer to each photo; see `QueryEngine.answer_many`."""
        cache = AnswerCache(self._folder, cache_key(self.store, self._settings(options)), self.store)
        self._caches.append(cache)
        paths = list(photos)
        known = {path: cache.get(self._digests.get(path)) for path in paths}
        missing = (path for path in paths if known[path] is None)
        with contextlib.closing(self._engine.answer_many(missing, **options)) as fresh:
            try:
                yield from self._in_order(paths, known, fresh, cache)
            finally:
                cache.flush()

    def _in_order(
        self,
        paths: list[str],
        known: Mapping[str, QueryResult | None],
        fresh: Iterator[QueryResult | ImageRejected],
        cache: AnswerCache,
    ) -> Iterator[QueryResult | ImageRejected]:
        for path in paths:
            answer: QueryResult | ImageRejected | None = known[path]
            if answer is None:
                answer = next(fresh)
                if isinstance(answer, QueryResult):
                    cache.put(self._digests.get(path), answer)
            else:
                self.remembered += 1
            yield answer

    def _settings(self, options: Mapping[str, Any]) -> dict[str, Any]:
        """Return everything besides store and photo that changes an answer."""
        return {
            **options,
            "method": self.method,
            "matching": repr(self.matching),
            "precision": self.extractor.precision,
            "device": str(self.extractor.device),
            "max_pixels": self.max_pixels,
            "compiled": self.extractor.compiled,
            "identity": getattr(self._engine, "identity", None),
            "versions": package_versions(),
        }
