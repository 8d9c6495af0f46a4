"""Early stopping: by a lead, by the budget, and not at all without a rule."""

from __future__ import annotations

import random
from collections.abc import Sequence

import pytest

from models.matching.adaptive import StopRule, match_in_blocks


class Matcher:
    """Knows all counts and records the ranges that it was called with."""

    def __init__(self, counts: Sequence[int | None]) -> None:
        self.counts = counts
        self.blocks: list[range] = []

    def __call__(self, block: range) -> list[int | None]:
        self.blocks.append(block)
        return [self.counts[i] for i in block]


@pytest.mark.parametrize("block", [1, 2, 3, 5, 50])
def test_without_a_rule_every_candidate_is_matched_once_in_order(block: int) -> None:
    matcher = Matcher([4, None, 0, 9, 4])
    assert match_in_blocks(5, matcher, StopRule(block=block)) == matcher.counts
    assert [i for some in matcher.blocks for i in some] == [0, 1, 2, 3, 4]
    assert max(len(some) for some in matcher.blocks) == min(block, 5)


@pytest.mark.parametrize(("leader", "matched"), [(60, 20), (14, 100)])
def test_only_an_outstanding_leader_stops_matching(leader: int, matched: int) -> None:
    draw = random.Random(0)
    counts = [draw.randint(5, 13) for _ in range(100)]
    counts[7] = leader
    assert match_in_blocks(100, Matcher(counts), StopRule(lead=6.0)) == counts[:matched]


def test_a_lead_among_equal_small_counts_is_not_a_lead() -> None:
    counts = [0] * 30
    counts[3] = 1
    assert match_in_blocks(30, Matcher(counts), StopRule(lead=4.0)) == counts


def test_candidates_without_features_neither_lead_nor_follow() -> None:
    counts: list[int | None] = [None] * 30
    counts[0] = 60
    counts[25] = 5
    assert match_in_blocks(30, Matcher(counts), StopRule(lead=6.0)) == counts


def test_min_candidates_are_matched_before_a_lead_counts() -> None:
    rule = StopRule(block=5, min_candidates=50, lead=0.0)
    assert len(match_in_blocks(100, Matcher([5] * 100), rule)) == 50


def test_after_the_budget_no_block_is_started(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 0.0
    monkeypatch.setattr("models.matching.adaptive.time.perf_counter", lambda: now)

    def slow(block: range) -> list[int | None]:
        nonlocal now
        now += 0.4
        return [*block]

    def matched(budget_s: float) -> int:
        return len(match_in_blocks(100, slow, StopRule(budget_s=budget_s)))

    assert [matched(budget_s) for budget_s in (0.0, 1.0, 100.0)] == [10, 30, 100]


def test_without_candidates_nothing_is_matched() -> None:
    matcher = Matcher([])
    assert match_in_blocks(0, matcher, StopRule()) == matcher.blocks == []


def test_another_number_of_counts_is_refused() -> None:
    with pytest.raises(ValueError, match="one for each"):
        match_in_blocks(2, lambda block: [1], StopRule())


@pytest.mark.parametrize(
    "wrong", [{"block": 0}, {"min_candidates": 0}, {"lead": float("nan")}, {"lead": -1}, {"budget_s": -0.5}]
)
def test_stop_rule_impossible_values_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(ValueError, match=next(iter(wrong))):
        StopRule(**wrong)  # type: ignore[arg-type]
