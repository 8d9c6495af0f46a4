"""State of one query: what each stage needs, its timings, and the result.

`QueryEngine` runs the stages in its own thread, `Service` calls workers. What both share is here.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

from serving.answer import QueryResult, rank
from serving.defaults import CANDIDATES, TOP_K
from serving.matching_options import ScoreKind
from serving.places.places import Places
from storage.card import Card
from storage.records import Candidate, ImageRecord

__all__ = ["STAGES", "Query", "QueryOptions"]

STAGES = ("decode", "extract", "search", "fetch", "rerank")
PLACE_HITS = 20  # what a place is made of without re-ranking


@dataclass(frozen=True, kw_only=True)
class QueryOptions:
    """Options of one query.

    Attributes:
        top_k: Number of places to return.
        candidates: Number of global-descriptor hits that are re-ranked.
        rerank: False keeps the order of the global descriptors.
        min_candidates: Candidates matched before an early stop, never below 20; None: `top_k`.

    Raises:
        ValueError: a number is below 1.
    """

    top_k: int = TOP_K
    candidates: int = CANDIDATES
    rerank: bool = True
    min_candidates: int | None = None

    def __post_init__(self) -> None:
        if self.top_k < 1 or self.candidates < 1:
            raise ValueError(f"top_k {self.top_k} and candidates {self.candidates} must be at least 1")


class Query:
    """One query; its methods are called in the order of the stages.

    Args:
        options: Of this query.
        model: Name of the model that answers.
        partial: Whether the matching options allow candidates to be skipped.
        places: Makes the place of the answer; None: it has none.

    Attributes:
        k: Number of hits to search for.
        min_candidates: Candidates to match before an early stop.
        timings_ms: Milliseconds of each of `STAGES` so far.
    """

    def __init__(
        self, options: QueryOptions, *, model: str, partial: bool, places: Places | None = None
    ) -> None:
        hits = options.candidates if options.rerank else PLACE_HITS if places is not None else 0
        self.k = max(options.top_k, hits)
        self.min_candidates = options.min_candidates or options.top_k
        self.timings_ms = dict.fromkeys(STAGES, 0.0)
        self._options = options
        self._model = model
        self._partial = partial
        self._places = places
        self._card: Card | None = None
        self._started = time.perf_counter()
        self._hits: list[Candidate] = []
        self._version = 0
        self._degraded = False
        self._counts: list[int | None] = []
        self._scores: list[float | None] = []
        self._score_kind: ScoreKind = "count"

    @contextmanager
    def timed(self, stage: str) -> Iterator[None]:
        """Add the time of a block to one stage."""
        started = time.perf_counter()
        yield
        self.timings_ms[stage] += (time.perf_counter() - started) * 1e3

    def searched(
        self, hits: list[Candidate], *, version: int, degraded: bool, card: Card | None = None
    ) -> list[ImageRecord]:
        """Set the hits of the search.

        Args:
            hits: At most `k`, most similar first.
            version: The store version that was searched.
            degraded: Whether the search skipped unreadable rows.
            card: Of that version, for places.

        Returns:
            The candidates to match, most similar first; empty where nothing is re-ranked.
        """
        self._hits, self._version, self._degraded, self._card = hits, version, degraded, card
        return [hit.record for hit in hits[: self._options.candidates]] if self._options.rerank else []

    def counted(
        self,
        counts: Sequence[int | None],
        scores: Sequence[float | None] | None = None,
        score_kind: ScoreKind = "count",
    ) -> None:
        """Set the matches and scores of the first candidates; None where features could not be read.

        Args:
            counts: Mutual matches.
            scores: What candidates are ranked by; None: the counts.
            score_kind: What the scores are.
        """
        self._counts = list(counts)
        self._scores = list(self._counts if scores is None else scores)
        self._score_kind = score_kind

    def result(self, *, total_ms: float | None = None) -> QueryResult:
        """Return the result.

        Args:
            total_ms: Time of the whole query; default: since this object was created.
        """
        ranked = rank(self._hits, self._counts, self._scores, self._score_kind)
        place = None
        if self._places is not None and self._card is not None:
            place = self._places.place(ranked, self._card)
        if total_ms is None:
            total_ms = (time.perf_counter() - self._started) * 1e3
        return QueryResult(
            model=self._model,
            store_version=self._version,
            # A corrupt row or unreadable features: the rest of the result is right.
            degraded=self._degraded or None in self._counts,
            matches=ranked[: self._options.top_k],
            timings_ms={**self.timings_ms, "total": total_ms},
            reranked=len(self._counts) if self._partial else None,
            place=place,
        )
