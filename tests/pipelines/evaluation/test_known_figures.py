"""Figures of calibrated answers."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from pipelines.evaluation.known_figures import describe_known, known_figures, most_wrong, reliability_curve
from pipelines.evaluation.known_intervals import known_intervals
from pipelines.evaluation.result import QueryOutcome
from storage.position import Position


def outcome(
    probability: float | None, right: bool, *, known: bool = False, uri: str = "q.jpg", cluster: int = 0
) -> QueryOutcome:
    place = None if probability is None else {"probability_right": probability, "known": known}
    hit = 1 if right else None
    return QueryOutcome(uri, Position(), None, 1, (), hit, hit, place=place, cluster=cluster)


def test_figures_of_four_answers() -> None:
    outcomes = [
        outcome(0.95, True, known=True),
        outcome(0.9, False, known=True, uri="wrong.jpg"),
        outcome(0.4, True),
        outcome(0.1, False),
        outcome(None, True),
    ]
    figures = known_figures(outcomes)
    assert figures["queries"] == 4
    assert figures["coverage"] == 0.5
    assert figures["false_discovery_rate"] == 0.5
    assert figures["auc_pr"] == pytest.approx((1 + 2 / 3) / 2, abs=1e-4)
    # Bins: 0.9 and 0.95 with half right, 0.4 right, 0.1 wrong.
    assert figures["ece"] == pytest.approx((2 * 0.425 + 0.6 + 0.1) / 4, abs=1e-4)
    assert [row["queries"] for row in reliability_curve(outcomes)] == [1, 1, 2]
    assert [o.uri for o in most_wrong(outcomes, count=1)] == ["wrong.jpg"]
    assert "50.0 % called known" in str(describe_known(figures))


def test_the_figures_say_of_how_many_answers_they_are() -> None:
    left_out = outcome(0.9, True)
    left_out = dataclasses.replace(left_out, place={"probability_right": None, "known": None})
    all_of = known_figures([outcome(0.9, True, known=True), outcome(0.2, False)])
    assert (all_of["queries"], all_of["of"]) == (2, 2)
    assert "among" not in str(describe_known(all_of))
    some = known_figures([outcome(0.9, True, known=True), left_out, left_out])
    assert (some["queries"], some["of"], some["coverage"]) == (1, 3, 1.0)
    assert str(describe_known(some)).startswith("of 1 calibrated answers among 3: 100.0 % called known")


def test_without_a_calibration_there_are_no_figures() -> None:
    assert known_figures([outcome(None, True)]) == {}
    assert describe_known({}) is None
    assert reliability_curve([]) == []


def test_chance_has_the_precision_of_the_share_and_a_true_probability_no_error() -> None:
    random = np.random.default_rng(0)
    probabilities = random.random(20_000)
    right = random.random(20_000) < probabilities
    figures = known_figures([outcome(float(p), bool(r)) for p, r in zip(probabilities, right, strict=True)])
    assert figures["ece"] < 0.02
    assert figures["false_discovery_rate"] is None
    same = known_figures([outcome(0.5, bool(r)) for r in right])
    assert same["auc_pr"] == pytest.approx(right.mean(), abs=1e-4)


def drawn(seed: int, places: int, views: int = 3, *, off: float = 0.0) -> list[QueryOutcome]:
    """Draw answers whose probability is true, or too high by `off`; those of a place are alike."""
    random = np.random.default_rng(seed)
    own = random.beta(2.0, 1.0, places)
    made = []
    for place in range(places):
        right = random.random() < own[place]
        for _ in range(views):
            probability = float(np.clip(own[place] + off, 0.0, 1.0))
            made.append(outcome(probability, bool(right), known=probability > 0.8, cluster=place))
    return made


def test_intervals_hold_the_truth_of_many_places() -> None:
    truth = known_figures(drawn(0, 40_000, 1))
    truth["ece"] = 0.0
    held = dict.fromkeys(("coverage", "false_discovery_rate", "auc_pr", "ece"), 0)
    for repeat in range(6):
        outcomes = drawn(1 + repeat, 80)
        figures, intervals = known_figures(outcomes), known_intervals(outcomes)
        assert set(intervals) == set(held)
        for name, (low, high) in intervals.items():
            assert low - 1e-4 <= figures[name] <= high + 1e-4
            assert 0.0 <= low < high <= 1.0
            held[name] += low - 1e-4 <= truth[name] <= high + 1e-4
    assert min(held.values()) >= 4, held


def test_an_error_of_calibration_is_told_from_chance() -> None:
    low, _ = known_intervals(drawn(3, 400, off=0.25))["ece"]
    assert low > 0.05


def test_intervals_stand_behind_their_figures() -> None:
    outcomes = drawn(5, 60)
    figures, intervals = known_figures(outcomes), known_intervals(outcomes)
    line = str(describe_known(figures, intervals))
    low, high = intervals["ece"]
    assert line.endswith(f"ECE {figures['ece']:.3f} ({low:.3f} to {high:.3f})")
    low, high = intervals["coverage"]
    coverage = f"{100 * figures['coverage']:.1f} %"
    assert line.startswith(f"{coverage} ({100 * low:.1f} to {100 * high:.1f}) called known")
    assert line.count(" to ") == 4
    assert str(describe_known(figures)).count(" to ") == 0


def test_without_answers_of_a_kind_their_interval_is_not_known() -> None:
    assert known_intervals([outcome(None, True)]) == {}
    unknown = [outcome(0.3, False, cluster=place) for place in range(30)]
    intervals = known_intervals(unknown)
    assert intervals["false_discovery_rate"] == intervals["auc_pr"] == [None, None]
    assert intervals["coverage"][0] == 0.0
    assert "called known" in str(describe_known(known_figures(unknown), intervals))
