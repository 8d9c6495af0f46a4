"""Recall@K of what a user would get: the stored index, asked through the query engine.

Recall@K is the share of queries with at least one of the first K answers within the threshold, inclusive.
Distances are Euclidean in UTM within one zone and geodesic across zones (`storage.position`). The denominator
is every query that has coordinates, also those without any positive in the database and those whose photo
cannot be read.
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyarrow as pa

from models.images.decoder import ImageRejected
from models.images.photo_file import read_bytes
from pipelines.defaults import THRESHOLD_M
from pipelines.evaluation.ground_truth import GroundTruth, positions_of
from pipelines.sources import SourceError, list_source, open_dataset
from serving.answer import Match, QueryResult
from serving.defaults import CANDIDATES
from serving.engine import QueryEngine
from storage.position import Position

__all__ = ["RECALL_AT", "Evaluation", "QueryOutcome", "measure_recall"]

RECALL_AT = (1, 5, 10, 20)
STAGES = ("decode", "extract", "search", "fetch", "rerank", "total")


@dataclass(frozen=True)
class QueryOutcome:
    """One query, its answers and the truth.

    Attributes:
        uri: The query photo.
        position: Where it was taken.
        rejected: Why the photo could not be used, or None.
        positives: Database images within the threshold.
        matches: Answers, re-ranked, best first.
        first_hit_global: Rank (from 1) of the first right answer by global descriptor, or None.
        first_hit_reranked: The same after re-ranking.
    """

    uri: str
    position: Position
    rejected: str | None
    positives: int
    matches: tuple[Match, ...]
    first_hit_global: int | None
    first_hit_reranked: int | None


@dataclass(frozen=True)
class Evaluation:
    """Recalls in percent, seconds, and every query's outcome.

    Attributes:
        dataset: Name of the data set.
        protocol: What counts as right, named so that figures are comparable.
        model: Model of the store.
        store_version: Version that answered.
        queries: Queries scored.
        database: Images in the store.
        recall: `{"global": {"1": ...}, "reranked": {"1": ...}}` in percent.
        seconds: Seconds spent in each stage over all queries, and in all.
        queries_without_positive: Scored queries with nothing right in the database; nobody could find them.
        queries_without_coordinates: Queries left out because there is no truth to score them by.
        queries_rejected: Scored queries whose photo could not be used; they count as misses.
        database_without_coordinates: Stored images that can never count as right.
        degraded: Queries answered while something stored could not be used.
        outcomes: One for each scored query.
        matched_per_query: Candidates whose matches were counted, on average over the queries answered.
    """

    dataset: str
    protocol: str
    model: str
    store_version: int
    queries: int
    database: int
    recall: dict[str, dict[str, float]]
    seconds: dict[str, float]
    queries_without_positive: int
    queries_without_coordinates: int
    queries_rejected: int
    database_without_coordinates: int
    degraded: int
    outcomes: tuple[QueryOutcome, ...] = field(repr=False)
    matched_per_query: float = 0.0

    def summary(self) -> dict[str, Any]:
        """Return everything but the outcomes, for JSON."""
        names = [field.name for field in dataclasses.fields(self) if field.name != "outcomes"]
        return {name: getattr(self, name) for name in names}


def measure_recall(
    dataset: str | Path,
    engine: QueryEngine,
    *,
    split: str = "test",
    candidates: int = CANDIDATES,
    threshold_m: float = THRESHOLD_M,
    only: Collection[str] | None = None,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> Evaluation:
    """Ask the engine for every query of a data set and score the answers.

    Args:
        dataset: Data set in the standard layout; its database must be what the engine's store holds.
        engine: Answers the queries.
        split: Which of train, val, test where the data set has them.
        candidates: How many hits are re-ranked.
        threshold_m: Distance up to which an answer is right, in metres, inclusive.
        only: Paths of the queries to ask; by default all.
        progress: Called with (done, total) after each query.

    Raises:
        SourceError: no data set there, no queries, none with coordinates, or an empty store.
    """
    layout = open_dataset(dataset, split=split)
    queries = list_source(layout.queries).sort_by("uri")
    located = queries.filter(pa.array(positions_of(queries).known))
    if only is not None:
        located = located.filter(pa.compute.is_in(located["uri"], pa.array(sorted(only), pa.string())))
    if not located.num_rows:
        raise SourceError(f"no query in {layout.queries} has coordinates in its name: nothing can be scored")
    asked = f"{located.num_rows} of {queries.num_rows} queries" if only is not None else "all queries"
    known = engine.store.metadata()
    if not known.num_rows:
        raise SourceError(f"the store {engine.store.uri} is empty: index {layout.database} into it first")
    truth = GroundTruth(located, known, threshold_m)
    outcomes, results = [], []
    started = time.perf_counter()
    for i, row in enumerate(located.to_pylist()):
        result, rejected = _ask(engine, row, candidates)
        outcomes.append(_score(row["uri"], truth.positions[i], truth.positives(i), result, rejected))
        if result:
            results.append(result)
        progress(i + 1, located.num_rows)
    seconds = {stage: round(sum(r.timings_ms[stage] for r in results) / 1e3, 4) for stage in STAGES}
    protocol = [f"{threshold_m:g} m in UTM, inclusive", asked, f"{candidates} candidates re-ranked"]
    seconds["wall"] = round(time.perf_counter() - started, 4)
    return Evaluation(
        dataset=layout.name,
        protocol="; ".join([*protocol, *([str(engine.matching)] if str(engine.matching) else [])]),
        model=engine.store.card.model,
        store_version=engine.store.version,
        queries=len(outcomes),
        database=known.num_rows,
        recall={
            "global": _recall([outcome.first_hit_global for outcome in outcomes]),
            "reranked": _recall([outcome.first_hit_reranked for outcome in outcomes]),
        },
        seconds=seconds,
        queries_without_positive=sum(outcome.positives == 0 for outcome in outcomes),
        queries_without_coordinates=queries.num_rows - located.num_rows,
        queries_rejected=sum(outcome.rejected is not None for outcome in outcomes),
        database_without_coordinates=truth.database_without_coordinates,
        degraded=sum(result.degraded for result in results),
        outcomes=tuple(outcomes),
        matched_per_query=_matched_per_query(results),
    )


def _ask(engine: QueryEngine, row: dict[str, Any], candidates: int) -> tuple[QueryResult | None, str | None]:
    """Return the answer to one query, or the reason why its photo cannot be used."""
    if row["rejected"]:
        return None, row["rejected"]
    # All are listed, to tell what the global descriptors found; an early stop is that of a user's answer.
    listed = max(candidates, *RECALL_AT)
    try:
        photo = read_bytes(row["uri"])
        return engine.answer(photo, top_k=listed, candidates=candidates, min_candidates=max(RECALL_AT)), None
    except ImageRejected as error:
        return None, error.reason


def _score(
    uri: str,
    position: Position,
    positives: frozenset[str],
    result: QueryResult | None,
    rejected: str | None,
) -> QueryOutcome:
    matches = result.matches if result else ()
    by_similarity = sorted(matches, key=lambda match: (-match.similarity, match.record.image_id))
    return QueryOutcome(
        uri=uri,
        position=position,
        rejected=rejected,
        positives=len(positives),
        matches=matches,
        first_hit_global=_first_hit(by_similarity, positives),
        first_hit_reranked=_first_hit(matches, positives),
    )


def _first_hit(matches: Sequence[Match], positives: frozenset[str]) -> int | None:
    return next((i for i, match in enumerate(matches, start=1) if match.record.image_id in positives), None)


def _matched_per_query(results: Sequence[QueryResult]) -> float:
    counted = sum(match.mutual_matches is not None for result in results for match in result.matches)
    return round(counted / len(results), 1) if results else 0.0


def _recall(first_hits: Sequence[int | None]) -> dict[str, float]:
    return {
        str(k): round(100.0 * sum(hit is not None and hit <= k for hit in first_hits) / len(first_hits), 2)
        for k in RECALL_AT
    }
