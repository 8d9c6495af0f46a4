"""Compares the answers to the same queries before and after training: recall, gains, losses, significance."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from pipelines.evaluation.result import Evaluation, QueryOutcome
from pipelines.evaluation.sign_test import p_value_of
from serving.answer import Match

__all__ = ["STAGES", "by_stage", "describe_change"]

STAGES = ("global", "reranked")


def by_stage(evaluation: Evaluation) -> dict[str, dict[str, float]]:
    """Return the recall of both stages; the order is one where the model gives nothing to re-rank by."""
    return {stage: evaluation.recall.get(stage, evaluation.recall["global"]) for stage in STAGES}


def describe_change(before: Evaluation, after: Evaluation) -> dict[str, Any]:
    """Compare two evaluations of the same queries.

    Returns:
        Plain values for JSON: recall before, after and the gain in points, and the conditions of both; for
        each stage the
        number of first answers gained and lost and its p-value; and these queries.

    Raises:
        ValueError: the queries are not the same.
    """
    if [one.uri for one in before.outcomes] != [one.uri for one in after.outcomes]:
        raise ValueError("before and after have different queries: evaluate both on the same ones")
    was, now = by_stage(before), by_stage(after)
    gain = {
        stage: {k: round(now[stage][k] - value, 2) for k, value in was[stage].items()} for stage in STAGES
    }
    changed = {stage: _changed_queries(before.outcomes, after.outcomes, stage) for stage in STAGES}
    return {
        "dataset": after.dataset,
        "protocol": after.protocol,
        "queries": after.queries,
        "database": after.database,
        "model_before": before.model,
        "model_after": after.model,
        "conditions": {"before": dict(before.conditions), "after": dict(after.conditions)},
        "recall": {"before": was, "after": now, "gain": gain},
        "changed": {
            stage: {
                "gained": len(gained),
                "lost": len(lost),
                "p_value": p_value_of(len(gained), len(lost)),
            }
            for stage, (gained, lost) in changed.items()
        },
        # Re-ranked answers first: those are what users see.
        "gained": [_example(*pair, stage) for stage in STAGES[::-1] for pair in changed[stage][0]],
        "lost": [_example(*pair, stage) for stage in STAGES[::-1] for pair in changed[stage][1]],
    }


Pairs = list[tuple[QueryOutcome, QueryOutcome]]


def _changed_queries(
    before: Sequence[QueryOutcome], after: Sequence[QueryOutcome], stage: str
) -> tuple[Pairs, Pairs]:
    """Return the queries whose first answer went from wrong to right, and those from right to wrong."""
    gained: Pairs = []
    lost: Pairs = []
    for one, other in zip(before, after, strict=True):
        was, now = _first_hit(one, stage) == 1, _first_hit(other, stage) == 1
        if was != now:
            (gained if now else lost).append((one, other))
    return gained, lost


def _first_hit(outcome: QueryOutcome, stage: str) -> int | None:
    return outcome.first_hit_global if stage == "global" else outcome.first_hit_reranked


def _first_answer(outcome: QueryOutcome, stage: str) -> Match | None:
    """Return the first answer by global descriptor or after re-ranking."""
    if not outcome.matches:
        return None
    if stage == "reranked":
        return outcome.matches[0]
    return min(outcome.matches, key=lambda match: (-match.similarity, match.record.image_id))


def _example(before: QueryOutcome, after: QueryOutcome, stage: str) -> dict[str, Any]:
    return {
        "query": before.uri,
        "stage": stage,
        "before": _answer(before, stage),
        "after": _answer(after, stage),
    }


def _answer(outcome: QueryOutcome, stage: str) -> dict[str, Any]:
    match = _first_answer(outcome, stage)
    if match is None:
        return {"uri": None, "reason": outcome.rejected or "no answer"}
    record = match.record
    distance_m = outcome.position.distance_m(record.position)
    return {
        "uri": record.uri,
        "distance_m": None if distance_m is None else round(distance_m, 2),
        "similarity": round(match.similarity, 5),
        "mutual_matches": match.mutual_matches,
        "rank_of_first_right": _first_hit(outcome, stage),
    }
