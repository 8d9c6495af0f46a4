"""Adaptive re-ranking: what it stops for, and that it orders as matching everything does."""

from __future__ import annotations

import random
from collections.abc import Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from models.matching.adaptive import StopRule, rank_adaptively


class Matcher:
    """Knows all counts and remembers what it was asked for."""

    def __init__(self, counts: Sequence[int | None]) -> None:
        self.counts = counts
        self.asked: list[list[int]] = []

    def __call__(self, indices: list[int]) -> list[int | None]:
        self.asked.append(indices)
        return [self.counts[i] for i in indices]


def falling(count: int) -> list[float]:
    return [1 - i / 1000 for i in range(count)]


@settings(max_examples=200, deadline=None, derandomize=True)
@given(
    counts=st.lists(st.one_of(st.none(), st.integers(0, 9)), max_size=40),
    seed=st.integers(0, 1000),
    block=st.integers(1, 50),
    first=st.integers(1, 5),
)
def test_rank_without_a_rule_equals_sorting_everything(
    counts: list[int | None], seed: int, block: int, first: int
) -> None:
    draw = random.Random(seed)
    similarities = [draw.choice([0.1, 0.5, 0.9]) for _ in counts]
    ranking = rank_adaptively(similarities, Matcher(counts), StopRule(block=block, first=first))
    by_similarity = sorted(range(len(counts)), key=lambda i: -similarities[i])
    known = [i for i in by_similarity if counts[i] is not None]
    expected = sorted(known, key=lambda i: -(counts[i] or 0))
    expected += [i for i in by_similarity if counts[i] is None]
    assert ranking.order == tuple(expected), f"seed {seed}"
    assert ranking.counts == tuple(counts)
    assert (ranking.matched, ranking.reason) == (len(counts), "all")


@settings(max_examples=200, deadline=None, derandomize=True)
@given(
    counts=st.lists(st.integers(0, 6), min_size=1, max_size=60),
    block=st.integers(1, 20),
    first=st.integers(1, 4),
)
def test_rank_certain_never_changes_the_first_answers(counts: list[int], block: int, first: int) -> None:
    everything = rank_adaptively(falling(len(counts)), Matcher(counts), StopRule(first=first))
    rule = StopRule(first=first, block=block, least=1, most=6)
    ranking = rank_adaptively(falling(len(counts)), Matcher(counts), rule)
    assert ranking.order[:first] == everything.order[:first]
    assert sorted(ranking.order) == list(range(len(counts)))


def test_rank_certain_stops_when_nobody_can_have_more() -> None:
    matcher = Matcher([3, 50, 1, 50, *[2] * 96])
    ranking = rank_adaptively(falling(100), matcher, StopRule(block=2, most=50))
    assert (ranking.matched, ranking.reason, ranking.order[0]) == (2, "certain", 1)
    assert ranking.counts[:4] == (3, 50, None, None)
    assert ranking.order[2:] == tuple(range(2, 100))


def test_rank_blocks_follow_the_similarity() -> None:
    matcher = Matcher([0, 1, 2, 3, 4])
    rank_adaptively([0.1, 0.5, 0.3, 0.9, 0.7], matcher, StopRule(block=2))
    assert matcher.asked == [[3, 4], [1, 2], [0]]


@pytest.mark.parametrize(("leader", "matched", "reason"), [(60, 20, "lead"), (14, 100, "all")])
def test_rank_lead_stops_for_an_outstanding_leader_only(leader: int, matched: int, reason: str) -> None:
    draw = random.Random(0)
    counts = [draw.randint(5, 13) for _ in range(100)]
    counts[7] = leader
    ranking = rank_adaptively(falling(100), Matcher(counts), StopRule(lead=6.0))
    assert (ranking.matched, ranking.reason, ranking.order[0]) == (matched, reason, 7)


def test_rank_lead_among_equal_small_counts_is_not_a_lead() -> None:
    counts = [0] * 30
    counts[3] = 1
    assert rank_adaptively(falling(30), Matcher(counts), StopRule(lead=4.0)).reason == "all"


def test_rank_patience_counts_from_the_last_newcomer() -> None:
    counts = [5] * 100
    counts[25] = 9
    rule = StopRule(block=5, least=5, patience=30)
    ranking = rank_adaptively(falling(100), Matcher(counts), rule)
    assert (ranking.matched, ranking.reason, ranking.order[:2]) == (60, "patience", (25, 0))
    ranking = rank_adaptively(falling(100), Matcher([5] * 100), rule)
    assert (ranking.matched, ranking.reason) == (35, "patience")


def test_rank_least_holds_lead_and_patience_back() -> None:
    rule = StopRule(block=5, least=50, patience=0, lead=0.0)
    assert rank_adaptively(falling(100), Matcher([5] * 100), rule).matched == 50


def test_rank_budget_matches_one_block_and_ends_in_time() -> None:
    now = 0.0
    matcher = Matcher(list(range(100)))

    def slow(indices: list[int]) -> list[int | None]:
        nonlocal now
        now += 0.4
        return matcher(indices)

    def ranked(budget_s: float) -> tuple[int, str, int]:
        ranking = rank_adaptively(falling(100), slow, StopRule(budget_s=budget_s), clock=lambda: now)
        return ranking.matched, ranking.reason, ranking.order[0]

    assert ranked(0.0) == (10, "budget", 9)
    assert ranked(1.0) == (30, "budget", 29)
    assert ranked(100.0) == (100, "all", 99)


def test_rank_no_candidates_is_empty() -> None:
    ranking = rank_adaptively([], Matcher([]), StopRule())
    assert (ranking.order, ranking.matched, ranking.reason) == ((), 0, "all")


def test_rank_wrong_answers_refused() -> None:
    with pytest.raises(ValueError, match="one for each"):
        rank_adaptively([0.1, 0.2], lambda indices: [1], StopRule())
    with pytest.raises(ValueError, match="NaN"):
        rank_adaptively([0.1, float("nan")], Matcher([1, 2]), StopRule())


@pytest.mark.parametrize(
    "wrong",
    [{"first": 0}, {"block": 0}, {"least": 0}, {"lead": float("nan")}, {"patience": -1}, {"budget_s": -0.5}],
)
def test_stop_rule_impossible_values_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(ValueError, match=next(iter(wrong))):
        StopRule(**wrong)  # type: ignore[arg-type]
