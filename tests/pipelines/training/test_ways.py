"""The ways to use a model are ordered by recall; of equal ones the default is taken."""

from __future__ import annotations

from typing import Any

from pipelines.evaluation.result import Evaluation
from pipelines.training.ways import Way, best_way, recalls_of


def way(
    aggregation: Any, score: Any, first: tuple[float, float], *, fifth: float = 90.0, default: bool = False
) -> Way:
    recall = {
        stage: {"1": value, "5": fifth, "10": 100.0, "20": 100.0}
        for stage, value in zip(("global", "reranked"), first, strict=True)
    }
    evaluation = Evaluation(
        dataset="city",
        protocol="",
        model="model",
        store_version=1,
        queries=10,
        database=10,
        recall=recall,
        seconds={},
        queries_without_positive=0,
        queries_without_coordinates=0,
        queries_rejected=0,
        database_without_coordinates=0,
        degraded=0,
        outcomes=(),
    )
    return Way(aggregation, score, default, evaluation)


def test_the_way_of_most_right_answers_at_both_stages_is_best() -> None:
    ways = (
        way("gem", "count", (50.0, 90.0), default=True),
        way("gem", "votes", (50.0, 91.0)),
        way("learned", "count", (70.0, 80.0)),
        way("learned", "votes", (70.0, 70.0)),
    )
    assert best_way(ways) is ways[2]
    assert recalls_of(ways)["learned, count"] == {"global": 70.0, "reranked": 80.0}


def test_equal_first_answers_are_told_apart_by_the_first_five_and_then_the_default_stays() -> None:
    usual = way("gem", "count", (50.0, 90.0), default=True)
    equal = way("learned", "votes", (60.0, 80.0))
    better = way("learned", "count", (60.0, 80.0), fifth=95.0)
    assert best_way((equal, usual)) is usual
    assert best_way((equal, usual, better)) is better
