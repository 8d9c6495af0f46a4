"""Figures of places: distance to the truth, and how often the radius holds it."""

from __future__ import annotations

from typing import Any

from pipelines.evaluation.place_figures import describe_place, place_figures
from pipelines.evaluation.result import QueryOutcome
from storage.position import Position


def outcome(off_m: float | None, radius_m: float | None = None) -> QueryOutcome:
    place: dict[str, Any] | None = None
    if off_m is not None:
        position = {"lat": None, "lon": None, "utm_e": 100.0 + off_m, "utm_n": 50.0, "utm_zone": None}
        place = {"position": position, "radius_m": radius_m}
    return QueryOutcome("q.jpg", Position(utm_e=100.0, utm_n=50.0), None, 1, (), None, None, place=place)


def test_figures_count_the_places_that_are_known() -> None:
    outcomes = [outcome(2.0, 3.0), outcome(20.0, 5.0), outcome(40.0, 50.0), outcome(200.0), outcome(None)]
    figures = place_figures(outcomes)
    assert figures == {
        "queries": 4,
        "median_m": 30.0,
        "p90_m": 152.0,
        "within_m": {"10": 25.0, "25": 50.0, "50": 75.0},
        "radius_coverage": 66.7,
    }
    assert "30.0 m" in str(describe_place(figures))
    ends = {"median_m": [2.0, 40.0], "within_m": {"25": [10.0, 90.0]}, "radius_coverage": [None, None]}
    line = str(describe_place(figures, ends))
    assert "median 30.0 m (2.0 to 40.0), " in line
    assert "50.0 % (10.0 to 90.0) within 25 m" in line
    assert line.endswith("the radius holds 66.7 %")


def test_without_places_there_is_nothing_to_say() -> None:
    figures = place_figures([outcome(None)])
    assert figures["median_m"] is None
    assert figures["radius_coverage"] is None
    assert describe_place(figures) is None
    assert describe_place({}) is None
