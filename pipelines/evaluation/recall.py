"""Recall@K of the answers a user would get, from a stored index through the query engine.

Recall@K is the share of queries with at least one of the first K answers within the threshold, inclusive.
Distances are Euclidean in UTM within one zone and geodesic across zones (`storage.position`). The denominator
is every query that can be scored, also those without any positive in the database and those whose photo
cannot be read. A protocol may score by frame number instead, see `pipelines.evaluation.protocols`.
"""

from __future__ import annotations

import contextlib
import dataclasses
import time
from collections.abc import Callable, Collection, Generator, Mapping, Sequence
from pathlib import Path
from typing import Any

from models.images import ImageRejected
from pipelines.defaults import THRESHOLD_M
from pipelines.evaluation.conditions import DISTANCE, conditions_of
from pipelines.evaluation.dataset_digest import dataset_digest
from pipelines.evaluation.engines import NO_LIMITS, AnsweringEngine, Limits
from pipelines.evaluation.figures import figures_of
from pipelines.evaluation.ground_truth import Truth
from pipelines.evaluation.known_figures import known_figures
from pipelines.evaluation.known_intervals import known_intervals
from pipelines.evaluation.place_figures import place_figures
from pipelines.evaluation.place_intervals import place_intervals
from pipelines.evaluation.queries import Queries, read_queries
from pipelines.evaluation.result import RECALL_AT, Evaluation, QueryOutcome
from pipelines.evaluation.scoring import Scoring, scoring_by_metres
from pipelines.sources import Dataset, SourceError, open_dataset
from serving.answer import Match, QueryResult
from serving.matching_options import default_candidates
from serving.places.rerank_rule import RerankRule
from serving.query import Rerank
from storage.position import Position

__all__ = ["measure_recall"]

_MIN_MATCHED = 20  # candidates before an early stop
STAGES = ("decode", "extract", "search", "fetch", "rerank", "total")


def measure_recall(
    dataset: str | Path | Dataset,
    engine: AnsweringEngine,
    *,
    split: str = "test",
    candidates: int | None = None,
    rerank: Rerank = True,
    threshold_m: float = THRESHOLD_M,
    only: Collection[str] | None = None,
    follow_links: bool = False,
    queries: Queries | None = None,
    scoring: Scoring | None = None,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> Evaluation:
    """Answer every query of a data set in batches and score the answers.

    Args:
        dataset: Data set in a known layout; its database must be that of the engine's store.
        engine: Answers the queries.
        split: One of train, val and test, where the data set has them.
        candidates: How many hits are re-ranked; 0: none; default: as of `QueryEngine.answer`, or of the
            service that answers. None are where the store has no local features.
        rerank: False ranks by global descriptor only, `auto` where calibration found that matching helps.
        threshold_m: Distance up to which an answer is right, in metres, inclusive.
        only: Paths of the queries to score; by default all.
        follow_links: Whether symbolic links may lead out of the folder of the queries.
        queries: The queries, where they are read already.
        scoring: Which answers are right, by another protocol than the distance.
        progress: Called with (done, total) as queries are answered.

    Raises:
        SourceError: the data set or its queries are missing, no query has coordinates, or the store is empty.
    """
    layout = dataset if isinstance(dataset, Dataset) else open_dataset(dataset, split=split)
    scoring = scoring or scoring_by_metres(threshold_m)
    queries = queries or read_queries(
        layout.queries,
        only=only if only is not None else scoring.only,
        follow_links=follow_links,
        max_pixels=engine.max_pixels,
        by_position=scoring.by_position,
    )
    known = engine.store.metadata()
    if not known.num_rows:
        raise SourceError(f"the store {engine.store.uri} is empty: index {layout.database} into it first")
    limits: Limits = getattr(engine, "limits", NO_LIMITS)
    asked = candidates
    candidates = _candidates(engine, candidates, limits) if rerank else 0
    depths = tuple(k for k in RECALL_AT if limits.max_top_k is None or k <= limits.max_top_k)
    truth = scoring.truth(queries.rows, known)
    if truth.database_without_coordinates == known.num_rows:
        raise SourceError(
            f"none of {known.num_rows} images in the store {engine.store.uri} has a position, so no answer "
            f"could be right: index {layout.database} with coordinates, from a listing, file names or EXIF"
        )
    started = time.perf_counter()
    top_k = min(max(candidates, *RECALL_AT), limits.max_top_k or max(candidates, *RECALL_AT))
    outcomes, results = _answer_and_score(engine, queries.rows, truth, top_k, candidates, rerank, progress)
    wall_s = time.perf_counter() - started
    selected = (
        "all queries" if queries.listed == queries.total else f"{len(outcomes)} of {queries.total} queries"
    )
    conditions = conditions_of(
        engine,
        candidates=candidates,
        protocol=scoring.protocol,
        score=_score_kind(results, candidates),
        dataset_sha256=dataset_digest(queries.rows, known),
    )
    return Evaluation(
        dataset=layout.name,
        protocol=_protocol(engine, scoring, truth, selected, candidates),
        model=engine.store.card.model,
        store_version=engine.store.version,
        queries=len(outcomes),
        database=known.num_rows,
        seconds=_stage_seconds(results) | {"wall": round(wall_s, 4)},
        queries_without_positive=sum(outcome.positives == 0 for outcome in outcomes),
        queries_without_coordinates=queries.without_position,
        queries_rejected=sum(outcome.rejected is not None for outcome in outcomes),
        database_without_coordinates=truth.database_without_coordinates,
        degraded=sum(result.degraded for result in results),
        outcomes=tuple(outcomes),
        matched_per_query=_matched_per_query(results),
        conditions=conditions,
        place=place_figures(outcomes),
        known=known_figures(outcomes),
        rerank=_rerank_figures(engine, results, rerank, candidates),
        store_versions=sorted({result.store_version for result in results}),
        limited=_limited(limits, asked, candidates, top_k),
        **_figures(outcomes, ("global", "reranked") if candidates else ("global",), depths),
    )


def _candidates(engine: AnsweringEngine, asked: int | None, limits: Limits) -> int:
    """Return how many hits the engine re-ranks; 0 where the store has nothing to re-rank by."""
    card = engine.store.card
    if not card.has_features:
        return 0
    wanted = (limits.candidates or default_candidates(card)) if asked is None else asked
    return min(wanted, limits.max_candidates or wanted)


def _limited(limits: Limits, asked: int | None, candidates: int, top_k: int) -> dict[str, Any]:
    """Return what a service does not give: see `Evaluation.limited`."""
    left_out = [k for k in RECALL_AT if k > top_k]
    limited: dict[str, Any] = {"max_top_k": top_k, "depths_left_out": left_out} if left_out else {}
    if left_out and limits.by_early_stop:
        limited["by_early_stop"] = True
    if asked and 0 < candidates < asked:
        limited |= {"candidates_asked": asked, "max_candidates": limits.max_candidates}
    if candidates > top_k:
        limited |= {"max_top_k": top_k, "candidates_listed": top_k}
    return limited


def _figures(
    outcomes: Sequence[QueryOutcome], stages: tuple[str, ...], depths: tuple[int, ...]
) -> dict[str, Any]:
    """Return the figures that follow from the outcomes, with intervals of place and known figures too."""
    figures = figures_of(outcomes, stages, depths)
    if intervals := place_intervals(outcomes):
        figures["intervals"]["place"] = intervals
    if intervals := known_intervals(outcomes):
        figures["intervals"]["known"] = intervals
    return figures


def _protocol(engine: AnsweringEngine, scoring: Scoring, truth: Truth, selected: str, candidates: int) -> str:
    reranked = f"{candidates} candidates re-ranked" if candidates else "no re-ranking"
    rule = f"{truth.rule} ({DISTANCE})" if scoring.by_position else truth.rule
    parts = [f"{scoring.protocol.name}: {rule}", selected, reranked]
    if candidates and str(engine.matching):
        parts.append(str(engine.matching))
    return "; ".join(parts)


def _score_kind(results: Sequence[QueryResult], candidates: int) -> str | None:
    """Return what the answers were ranked by; None without re-ranking, or without answers."""
    matched = (match for result in results for match in result.matches if match.mutual_matches is not None)
    kinds = {str(match.score_kind) for match in matched}
    return ", ".join(sorted(kinds)) if kinds and candidates else None


def _answer_and_score(
    engine: AnsweringEngine,
    rows: Sequence[Mapping[str, Any]],
    truth: Truth,
    top_k: int,
    candidates: int,
    rerank: Rerank,
    progress: Callable[[int, int], None],
) -> tuple[list[QueryOutcome], list[QueryResult]]:
    """Return the outcome of every query, and the answers to those whose photo can be used."""
    outcomes, results = [], []
    clusters = truth.clusters().tolist()
    with contextlib.closing(_answer(engine, rows, top_k, candidates, rerank)) as answers:
        for i, (row, answer) in enumerate(zip(rows, answers, strict=True)):
            scored = _score(row["uri"], truth.positions[i], truth.positives(i), answer)
            known = {"facets": row.get("facets", {}), "sha256": row.get("sha256")}
            outcomes.append(dataclasses.replace(scored, cluster=clusters[i], **known))
            if not isinstance(answer, ImageRejected):
                results.append(answer)
            progress(i + 1, len(rows))
    return outcomes, results


def _answer(
    engine: AnsweringEngine,
    rows: Sequence[Mapping[str, Any]],
    top_k: int,
    candidates: int,
    rerank: Rerank,
) -> Generator[QueryResult | ImageRejected]:
    """Yield the answer to each query, or the error of a photo that cannot be used."""
    # All candidates are listed, to score the global descriptors too; the early stop is that of a query.
    answers = engine.answer_many(
        (row["uri"] for row in rows if not row["rejected"]),
        top_k=top_k,
        candidates=max(1, candidates),
        rerank=rerank if candidates else False,
        min_candidates=_MIN_MATCHED,
    )
    with contextlib.closing(answers):
        for row in rows:
            if row["rejected"]:
                yield ImageRejected(row["rejected"], row["message"] or "")
            else:
                yield next(answers)


def _score(
    uri: str, position: Position, positives: frozenset[str], answer: QueryResult | ImageRejected
) -> QueryOutcome:
    matches: tuple[Match, ...] = ()
    rejected: str | None = None
    if isinstance(answer, ImageRejected):
        rejected = answer.reason
    else:
        matches = answer.matches
    right = tuple(match.record.image_id in positives for match in matches)
    outcome = QueryOutcome(
        uri=uri,
        position=position,
        rejected=rejected,
        positives=len(positives),
        matches=matches,
        first_hit_global=None,
        first_hit_reranked=_first_hit(right),
        right=right,
        positive_ids=positives,
        timings_ms={} if isinstance(answer, ImageRejected) else dict(answer.timings_ms),
        place=getattr(answer, "place", None),
    )
    by_similarity = _first_hit([right[i] for i in outcome.by_similarity()])
    return dataclasses.replace(outcome, first_hit_global=by_similarity)


def _first_hit(right: Sequence[bool]) -> int | None:
    return next((rank for rank, is_right in enumerate(right, start=1) if is_right), None)


def _stage_seconds(results: Sequence[QueryResult]) -> dict[str, float]:
    return {stage: round(sum(result.timings_ms[stage] for result in results) / 1e3, 4) for stage in STAGES}


def _matched_per_query(results: Sequence[QueryResult]) -> float:
    counted = sum(match.mutual_matches is not None for result in results for match in result.matches)
    return round(counted / len(results), 1) if results else 0.0


def _rerank_figures(
    engine: AnsweringEngine, results: Sequence[QueryResult], rerank: Rerank, candidates: int
) -> dict[str, Any]:
    """Return what `--rerank auto` left out; empty otherwise.

    Returns:
        `rule`: that of the calibration, None without a valid one; `skipped`: share of the queries that were
        not re-ranked; `saved_ms`: time per query that took at calibration and was saved, on average.
    """
    if rerank != "auto" or not results:
        return {}
    rule_of = getattr(engine, "rerank_rule", None)  # a service does not tell
    rule: RerankRule | None = None if rule_of is None else rule_of(candidates=candidates)
    skipped = sum(not result.reranked for result in results) / len(results)
    saved_ms = None if rule is None else round(skipped * rule.ms_per_query, 2)
    return {
        "rule": None if rule is None else rule.to_dict(),
        "skipped": round(skipped, 4),
        "saved_ms": saved_ms,
    }
