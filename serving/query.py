"""State of one query: what each stage needs, its timings, and the result.

`QueryEngine` runs the stages in its own thread, `Service` calls workers. What both share is here.
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np

from serving.answer import Match, QueryResult, rank, unknown_place
from serving.defaults import CANDIDATES, TOP_K
from serving.matching_options import ALL_EXACTLY, Matching, ScoreKind
from serving.places.conditions import ScoreConditions
from serving.places.places import Asked, Places
from serving.places.rerank_rule import RerankRule, blended
from serving.priors.errors import require_tags
from serving.priors.soft_prior import SoftPrior, weighed_score, weighed_similarity
from storage.card import Card
from storage.records import Candidate, ImageRecord
from storage.search.row_filter import RowFilter

__all__ = ["STAGES", "Query", "QueryOptions", "Rerank", "hits_of_place"]

Rerank = bool | Literal["auto"]

STAGES = ("decode", "extract", "search", "fetch", "rerank")
PLACE_HITS = 20  # what a place is made of without re-ranking
PRIOR_HITS = 4  # times as many are searched for under a prior, which chooses among them


@dataclass(frozen=True, kw_only=True)
class QueryOptions:
    """Options of one query.

    Attributes:
        top_k: Number of places to return.
        candidates: Number of global-descriptor hits that are re-ranked.
        rerank: False keeps the order of the global descriptors; `auto` does where calibration found out that
            matching changes nothing, see `serving.places.rerank_rule`, unless `max_wrong` is given.
        min_candidates: Candidates matched before an early stop, never below 20; None: `top_k`.
        max_wrong: Share of wrong answers among those called known; None: that of the calibration.
        within: Which stored images may be found; None: all.
        prior: Where the photo was probably taken: what lies near ranks better, and nothing is left out.

    Raises:
        ValueError: a number is below 1, or the share not between 0 and 1.
    """

    top_k: int = TOP_K
    candidates: int = CANDIDATES
    rerank: Rerank = True
    min_candidates: int | None = None
    max_wrong: float | None = None
    within: RowFilter | None = None
    prior: SoftPrior | None = None

    def __post_init__(self) -> None:
        if self.top_k < 1 or self.candidates < 1:
            raise ValueError(f"top_k {self.top_k} and candidates {self.candidates} must be at least 1")
        if self.max_wrong is not None and not 0 < self.max_wrong < 1:
            raise ValueError(f"max_wrong is {self.max_wrong}: give a share above 0 and below 1, such as 0.05")


def hits_of_place(candidates: int, *, rerank: bool) -> int:
    """Return how many of the most similar hits a place is made of, whatever is returned."""
    return candidates if rerank else PLACE_HITS


class Query:
    """One query; its methods are called in the order of the stages.

    Args:
        options: Of this query.
        model: Name of the model that answers.
        partial: Whether the matching options allow candidates to be skipped.
        places: Makes the place of the answer; None: it names no position.
        matching: Options of matching, which a calibration holds for.

    Attributes:
        k: Number of hits to search for.
        within: Which rows to search.
        min_candidates: Candidates to match before an early stop.
        timings_ms: Milliseconds of each of `STAGES` so far.
    """

    def __init__(
        self,
        options: QueryOptions,
        *,
        model: str,
        partial: bool,
        places: Places | None = None,
        matching: Matching = ALL_EXACTLY,
    ) -> None:
        self._place_hits = hits_of_place(options.candidates, rerank=bool(options.rerank))
        self._kept = max(options.top_k, self._place_hits if options.rerank or places is not None else 0)
        self.k = self._kept if options.prior is None else PRIOR_HITS * self._kept
        self.min_candidates = options.min_candidates or options.top_k
        self.timings_ms = dict.fromkeys(STAGES, 0.0)
        self.within = options.within
        self._options = options
        self._model = model
        self._partial = partial
        self._places = places
        self._matching = matching
        self._card: Card | None = None
        self._asked = Asked()
        self._rule: RerankRule | None = None
        self._started = time.perf_counter()
        self._hits: list[Candidate] = []
        self._prior_weights: list[float] | None = None
        self._considered: int | None = None
        self._version = 0
        self._degraded = False
        self._counts: list[int | None] = []
        self._scores: list[float | None] = []
        self._score_kind: ScoreKind = "count"
        self._order_by: list[float | None] | None = None  # the scores, unless a rule blends

    @contextmanager
    def timed(self, stage: str) -> Iterator[None]:
        """Add the time of a block to one stage."""
        started = time.perf_counter()
        yield
        self.timings_ms[stage] += (time.perf_counter() - started) * 1e3

    def searched(
        self,
        hits: list[Candidate],
        *,
        version: int,
        degraded: bool,
        card: Card | None = None,
        rows: int = 0,
        precision: str = "",
        considered: int | None = None,
        search_method: str | None = None,
    ) -> list[ImageRecord]:
        """Set the hits of the search.

        Args:
            hits: At most `k`, most similar first.
            version: The store version that was searched.
            degraded: Whether the search skipped unreadable rows.
            card: Of that version, for places.
            rows: How many rows that version has.
            precision: What the network computed in.
            considered: How many rows the filter left; None without one.
            search_method: How they were searched.

        Returns:
            The candidates to match, most similar first; empty where nothing is re-ranked.

        Raises:
            TagsNotKept: the filter asks for tags, which the store's format does not have.
            NotCalibrated, LevelNotPromised: the store cannot keep `max_wrong`.
        """
        require_tags(card, self.within)
        if self._options.prior is not None:
            hits, weights = self._options.prior.reordered(hits)
            hits, self._prior_weights = hits[: self._kept], weights[: self._kept]
        self._considered = considered
        self._hits, self._version, self._degraded, self._card = hits, version, degraded, card
        reranked = bool(self._options.rerank)
        asked = self._asked_of(card, rows, precision, rerank=reranked)
        self._asked = replace(asked, search_method=search_method)
        if self._options.rerank == "auto" and self._places is not None and self._options.max_wrong is None:
            self._rule = self._places.rerank_rule(self._asked)
        if self._rule is not None:
            reranked = not self._rule.skips(hits[: self._options.candidates])
            self._asked = replace(self._asked, by_rule=self._rule.selects, left_out=not reranked)
        if self._places is not None:
            self._places.calibration(self._asked)  # refused before anything is matched
        return [hit.record for hit in hits[: self._options.candidates]] if reranked else []

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
        if self._prior_weights is not None:
            pairs = zip(self._scores, self._prior_weights, strict=False)
            self._scores = [weighed_score(score, weight) for score, weight in pairs]
        if self._rule is not None and self._rule.blend:
            self._order_by = self._blended(self._rule.blend)

    def result(self, *, total_ms: float | None = None) -> QueryResult:
        """Return the result.

        Args:
            total_ms: Time of the whole query; default: since this object was created.
        """
        ranked = self._ranked(self._hits)
        place, calibration = unknown_place(), None
        if self._places is not None and self._card is not None:
            made_of = self._made_of()
            place, calibration = self._places.answer(made_of, self._card, self._asked)
        if total_ms is None:
            total_ms = (time.perf_counter() - self._started) * 1e3
        return QueryResult(
            model=self._model,
            store_version=self._version,
            # A corrupt row or unreadable features: the rest of the result is right.
            degraded=self._degraded or None in self._counts,
            matches=ranked[: self._options.top_k],
            timings_ms={**self.timings_ms, "total": total_ms},
            reranked=len(self._counts) if self._partial or self._options.rerank == "auto" else None,
            place=place,
            calibration=calibration,
            considered=self._considered,
        )

    def _ranked(self, hits: list[Candidate]) -> tuple[Match, ...]:
        values = self._counts, self._scores, self._score_kind, self._prior_weights
        return rank(hits, *values, order_by=self._order_by)

    def _made_of(self) -> tuple[Match, ...]:
        """Return what the place is made of, as many for every `top_k`: the first answer, then by score.

        A calibration is of the scores: it knows no blend of them.
        """
        hits = self._hits[: self._place_hits]
        if self._order_by is None:
            return self._ranked(hits)
        first, highest = None, -math.inf
        for row, key in enumerate(self._order_by):
            if key is not None and key > highest:
                first, highest = row, key
        order_by = list(self._scores)
        if first is not None:
            order_by[first] = math.inf
        values = self._counts, self._scores, self._score_kind, self._prior_weights
        return rank(hits, *values, order_by=order_by)

    def _blended(self, blend: float) -> list[float | None]:
        """Return what the hits are ordered by: scores with some of the similarity added; None stays."""
        rows = [row for row, score in enumerate(self._scores) if score is not None]
        scores: list[float | None] = [None] * len(self._scores)
        if rows:
            own = np.array([self._scores[row] for row in rows], np.float64)
            similarity = np.array([self._hits[row].similarity for row in rows], np.float64)
            if self._prior_weights is not None:
                weights = np.array([self._prior_weights[row] for row in rows], np.float64)
                similarity = weighed_similarity(similarity, weights)
            mixed = blended(own, similarity, blend)
            for row, score in zip(rows, mixed.tolist(), strict=True):
                scores[row] = score
        return scores

    def _asked_of(self, card: Card | None, rows: int, precision: str, *, rerank: bool) -> Asked:
        narrowed = self._options.within is not None or self._options.prior is not None
        if card is None:
            return Asked(max_wrong=self._options.max_wrong, narrowed=narrowed)
        conditions = ScoreConditions.of(
            card,
            self._matching,
            candidates=self._options.candidates,
            rerank=rerank,
            precision=precision,
        )
        return Asked(conditions=conditions, rows=rows, max_wrong=self._options.max_wrong, narrowed=narrowed)
