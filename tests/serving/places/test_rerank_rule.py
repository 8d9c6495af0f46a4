"""When `--rerank auto` leaves a query as it is."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from pipelines.calibration.rerank import find_rule
from pipelines.evaluation.result import QueryOutcome
from serving.answer import Match
from serving.places.rerank_rule import RerankRule, blended, first_margin
from storage.position import Position
from storage.records import Candidate
from tests.serving.places.test_position import match


def hits(similarity: list[float], offsets_m: list[float]) -> list[Candidate]:
    return [
        Candidate(match(1, Position(utm_e=offset, utm_n=0.0), None).record, value)  # type: ignore[arg-type]
        for value, offset in zip(similarity, offsets_m, strict=True)
    ]


def test_the_margin_is_over_the_next_place_elsewhere() -> None:
    assert first_margin(hits([0.9, 0.8, 0.5], [0.0, 10.0, 100.0])) == pytest.approx(0.4)
    assert first_margin(hits([0.9, 0.8], [0.0, 10.0])) == 0.0
    assert first_margin([]) == 0.0


def test_a_rule_skips_clear_queries() -> None:
    clear, doubtful = hits([0.9, 0.4], [0.0, 100.0]), hits([0.6, 0.5], [0.0, 100.0])
    rule = RerankRule("below", margin=0.3)
    assert (rule.skips(clear), rule.skips(doubtful)) == (True, False)
    assert (RerankRule("all").skips(clear), RerankRule("none").skips(doubtful)) == (False, True)
    assert RerankRule.from_dict(rule.to_dict()) == rule
    for spoilt in ({"mode": "some"}, {"margin": "x"}, {"blend": -1}, {"ms_per_query": float("inf")}):
        with pytest.raises(ValueError, match=r"."):
            RerankRule.from_dict(rule.to_dict() | spoilt)


def outcome(margin: float, *, first_right: bool, reranked_right: bool) -> QueryOutcome:
    """Two candidates 100 m apart: the more similar one, and the one that matching may prefer."""
    first_wins = first_right == reranked_right
    scores = (9.0, 5.0) if first_wins else (5.0, 9.0)
    made: list[tuple[Match, bool]] = []
    for number, (similarity, score) in enumerate(zip((0.5 + margin, 0.5), scores, strict=True)):
        place = Position(utm_e=100.0 * number, utm_n=0.0)
        right = first_right if number == 0 else not first_right if not first_wins else False
        made.append((dataclasses.replace(match(number + 1, place, score), similarity=similarity), right))
    made.sort(key=lambda pair: -(pair[0].score or 0))
    right = tuple(is_right for _, is_right in made)
    return QueryOutcome(
        "q.jpg",
        Position(),
        None,
        1,
        tuple(each for each, _ in made),
        1 if first_right else None,
        1 if reranked_right else None,
        right=right,
    )


def test_skipping_begins_above_every_margin_at_which_matching_corrected_an_answer() -> None:
    easy = [outcome(0.6, first_right=True, reranked_right=True) for _ in range(40)]
    corrected = [outcome(0.3, first_right=False, reranked_right=True) for _ in range(5)]
    rule = find_rule([*easy, *corrected], hits=100, ms_per_query=12.0)
    assert rule.mode == "below"
    assert 0.3 < rule.margin <= 0.6
    assert rule.ms_per_query == 12.0
    assert find_rule(corrected, hits=100, ms_per_query=1.0).mode == "all"
    assert find_rule([], hits=100, ms_per_query=1.0).mode == "all"


def test_re_ranking_that_harms_is_left_out() -> None:
    harmed = [outcome(0.1, first_right=True, reranked_right=False) for _ in range(5)]
    easy = [outcome(0.1, first_right=True, reranked_right=True) for _ in range(20)]
    assert find_rule([*harmed, *easy], hits=100, ms_per_query=1.0).mode == "none"


def test_a_blend_of_zero_keeps_the_order_of_scores() -> None:
    scores, similarity = np.array([3.0, 9.0, 5.0]), np.array([0.9, 0.1, 0.2])
    assert blended(scores, similarity, 0.0).argsort().tolist() == scores.argsort().tolist()
    assert blended(scores, similarity, 5.0).argmax() == 0
    assert np.isfinite(blended(np.ones(3), similarity, 0.3)).all()
