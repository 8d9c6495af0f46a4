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


def outcome(margin: float, *, first_right: bool, reranked_right: bool, place: int = 0) -> QueryOutcome:
    """Two candidates 100 m apart: the more similar one, and the one that matching may prefer."""
    first_wins = first_right == reranked_right
    scores = (9.0, 5.0) if first_wins else (5.0, 9.0)
    made: list[tuple[Match, bool]] = []
    for number, (similarity, score) in enumerate(zip((0.5 + margin, 0.5), scores, strict=True)):
        where = Position(utm_e=100.0 * number, utm_n=0.0)
        right = first_right if number == 0 else not first_right if not first_wins else False
        made.append((dataclasses.replace(match(number + 1, where, score), similarity=similarity), right))
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
        cluster=place,
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
    easy = [outcome(0.1, first_right=True, reranked_right=True) for _ in range(20)]
    harmed = [outcome(0.1, first_right=True, reranked_right=False, place=place) for place in range(6)]
    assert find_rule([*harmed, *easy], hits=100, ms_per_query=1.0).mode == "none"
    assert find_rule([*harmed[:5], *easy], hits=100, ms_per_query=1.0).mode == "all"  # 1 in 16 by chance


def test_photos_of_one_place_are_one_piece_of_evidence() -> None:
    harmed = [outcome(0.1, first_right=True, reranked_right=False) for _ in range(6)]
    assert find_rule(harmed, hits=100, ms_per_query=1.0).mode == "all"


def blend_helps(place: int) -> QueryOutcome:
    """The votes prefer a wrong candidate by little, and the similarity a right one by much."""
    right, wrong, last = (
        dataclasses.replace(match(rank, Position(utm_e=east, utm_n=0.0), score), similarity=similarity)
        for rank, east, score, similarity in ((2, 0.0, 9.0, 0.9), (1, 100.0, 10.0, 0.2), (3, 200.0, 1.0, 0.1))
    )
    matches, is_right = (wrong, right, last), (False, True, False)
    return QueryOutcome("q.jpg", Position(), None, 1, matches, 1, 2, right=is_right, cluster=place)


def test_a_blend_is_preferred_where_it_gains_at_more_places_than_chance() -> None:
    lost = [
        dataclasses.replace(outcome(0.1, first_right=False, reranked_right=True), cluster=10 + place)
        for place in range(12)
    ]  # so that re-ranking itself is worth it
    gained = [blend_helps(place) for place in range(6)]
    assert find_rule([*gained, *lost], hits=100, ms_per_query=1.0).blend > 0
    assert find_rule([*gained[:5], *lost], hits=100, ms_per_query=1.0).blend == 0.0


def test_a_blend_of_zero_keeps_the_order_of_scores() -> None:
    scores, similarity = np.array([3.0, 9.0, 5.0]), np.array([0.9, 0.1, 0.2])
    assert blended(scores, similarity, 0.0).argsort().tolist() == scores.argsort().tolist()
    assert blended(scores, similarity, 5.0).argmax() == 0
    assert np.isfinite(blended(np.ones(3), similarity, 0.3)).all()
