"""Recall@K of what a user would get: the stored index, asked through the query engine.

Recall@K is the share of queries with at least one of the first K answers within the threshold (Euclidean in
UTM, inclusive; places in different zones never match). The denominator is every query that has coordinates,
also those without any positive in the database and those whose photo cannot be read.
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from models.images.decoder import ImageRejected
from models.images.photo_file import read_bytes
from pipelines.sources import SourceError, list_source, open_dataset
from serving.answer import Match, PlaceRecord, QueryResult
from serving.engine import QueryEngine
from storage.records import ImageRecord

__all__ = ["RECALL_AT", "Evaluation", "QueryOutcome", "measure_recall"]

RECALL_AT = (1, 5, 10, 20)
STAGES = ("decode", "extract", "search", "fetch", "rerank", "total")


@dataclass(frozen=True)
class QueryOutcome:
    """One query, its answers and the truth.

    Attributes:
        uri: The query photo.
        utm_e: Easting in metres.
        utm_n: Northing in metres.
        utm_zone: Zone, or None when unknown.
        rejected: Why the photo could not be used, or None.
        positives: Database images within the threshold.
        matches: Answers, re-ranked, best first.
        first_hit_global: Rank (from 1) of the first right answer by global descriptor, or None.
        first_hit_reranked: The same after re-ranking.
    """

    uri: str
    utm_e: float
    utm_n: float
    utm_zone: str | None
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
    candidates: int = 100,
    threshold_m: float = 25.0,
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
    located = queries.filter(pa.compute.is_valid(queries["utm_e"]))
    if only is not None:
        located = located.filter(pa.compute.is_in(located["uri"], pa.array(sorted(only), pa.string())))
    if not located.num_rows:
        raise SourceError(f"no query in {layout.queries} has coordinates in its name: nothing can be scored")
    asked = f"{located.num_rows} of {queries.num_rows} queries" if only is not None else "all queries"
    known = engine.store.known()
    if not known.num_rows:
        raise SourceError(f"the store {engine.store.uri} is empty: index {layout.database} into it first")
    truth = _Truth(known, threshold_m)
    outcomes, results = [], []
    started = time.perf_counter()
    for done, row in enumerate(located.to_pylist(), start=1):
        outcome, result = _ask(engine, row, truth, candidates)
        outcomes.append(outcome)
        results += [result] if result else []
        progress(done, located.num_rows)
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
        database_without_coordinates=known["utm_e"].null_count,
        degraded=sum(result.degraded for result in results),
        outcomes=tuple(outcomes),
        matched_per_query=_matched_per_query(results),
    )


class _Truth:
    """What lies within the threshold of a query."""

    def __init__(self, known: pa.Table, threshold_m: float) -> None:
        self.threshold_m = threshold_m
        located = known.filter(pa.compute.is_valid(known["utm_e"]))
        self.points = np.stack([located["utm_e"].to_numpy(), located["utm_n"].to_numpy()], axis=1)
        self.zones = np.array([zone_number(zone) for zone in located["utm_zone"].to_pylist()], np.int64)

    def positives(self, utm_e: float, utm_n: float, zone: str | None) -> int:
        near = self._near(self.points, np.array([utm_e, utm_n]))
        return int((near & _same_zone(self.zones, zone_number(zone))).sum())

    def right(self, record: ImageRecord | PlaceRecord, utm_e: float, utm_n: float, zone: str | None) -> bool:
        there = record.position
        if there.utm_e is None or there.utm_n is None:
            return False
        near = self._near(np.array([[there.utm_e, there.utm_n]]), np.array([utm_e, utm_n]))
        return bool((near & _same_zone(np.array([zone_number(there.utm_zone)]), zone_number(zone)))[0])

    def _near(self, points: NDArray[np.float64], point: NDArray[np.float64]) -> NDArray[np.bool_]:
        offset = points - point
        # Names carry centimetres: the slack keeps 25.00 m inclusive in binary arithmetic.
        near: NDArray[np.bool_] = np.hypot(offset[:, 0], offset[:, 1]) <= self.threshold_m + 1e-6
        return near


def zone_number(zone: str | None) -> int:
    """Return the number of a UTM zone such as `33U`, 0 when unknown."""
    return int(zone.rstrip("CDEFGHJKLMNPQRSTUVWX") or 0) if zone else 0


def _same_zone(zones: NDArray[np.int64], zone: int) -> NDArray[np.bool_]:
    # Equal metres in two zones are two places; an unknown zone is taken for the same.
    same: NDArray[np.bool_] = (zones == zone) | (zones == 0) | (zone == 0)
    return same


def _ask(
    engine: QueryEngine, row: dict[str, object], truth: _Truth, candidates: int
) -> tuple[QueryOutcome, QueryResult | None]:
    uri, zone = str(row["uri"]), row["utm_zone"]
    assert isinstance(row["utm_e"], float)
    assert isinstance(row["utm_n"], float)
    assert zone is None or isinstance(zone, str)
    where = (row["utm_e"], row["utm_n"], zone)
    result, rejected = None, None
    try:
        if row["rejected"]:
            raise ImageRejected(str(row["rejected"]), str(row["message"]))
        # All are listed, to tell what the global descriptors found; an early stop is that of a user's answer.
        listed = max(candidates, *RECALL_AT)
        result = engine.answer(
            read_bytes(uri), top_k=listed, candidates=candidates, min_candidates=max(RECALL_AT)
        )
    except ImageRejected as error:
        rejected = error.reason
    matches = result.matches if result else ()
    by_similarity = sorted(matches, key=lambda match: (-match.similarity, match.record.image_id))
    outcome = QueryOutcome(
        uri=uri,
        utm_e=where[0],
        utm_n=where[1],
        utm_zone=zone,
        rejected=rejected,
        positives=truth.positives(*where),
        matches=matches,
        first_hit_global=_first_hit(by_similarity, truth, where),
        first_hit_reranked=_first_hit(matches, truth, where),
    )
    return outcome, result


def _first_hit(matches: Sequence[Match], truth: _Truth, where: tuple[float, float, str | None]) -> int | None:
    return next((i for i, match in enumerate(matches, start=1) if truth.right(match.record, *where)), None)


def _matched_per_query(results: Sequence[QueryResult]) -> float:
    counted = sum(match.mutual_matches is not None for result in results for match in result.matches)
    return round(counted / len(results), 1) if results else 0.0


def _recall(first_hits: Sequence[int | None]) -> dict[str, float]:
    return {
        str(k): round(100.0 * sum(hit is not None and hit <= k for hit in first_hits) / len(first_hits), 2)
        for k in RECALL_AT
    }
