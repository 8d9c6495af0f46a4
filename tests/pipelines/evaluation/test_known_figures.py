"""Figures of calibrated answers."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from pipelines.evaluation.known_figures import describe_known, known_figures, most_wrong, reliability_curve
from pipelines.evaluation.result import QueryOutcome
from storage.position import Position


def outcome(
    probability: float | None, right: bool, *, known: bool = False, uri: str = "q.jpg"
) -> QueryOutcome:
    place = None if probability is None else {"probability_right": probability, "known": known}
    hit = 1 if right else None
    return QueryOutcome(uri, Position(), None, 1, (), hit, hit, place=place)


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
