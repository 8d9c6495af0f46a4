"""Figures of given ranks: precision by MSLS's definition, medians, conditions, density, arrays."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest

from pipelines.evaluation.figures import figures_of
from pipelines.evaluation.place_intervals import place_intervals
from tests.support.made_evaluations import make_evaluation, make_outcome


def test_mean_average_precision_is_that_of_msls() -> None:
    """Right answers at ranks 1 and 3 of three: (1 + 2/3) / 2, at depth 1 the first alone."""
    figures = figures_of([make_outcome(0, [3.0, 90.0, 7.0])], ("global", "reranked"))
    assert figures["mean_average_precision"]["reranked"] == pytest.approx(
        {"1": 100.0, "5": 83.33, "10": 83.33, "20": 83.33, "100": 83.33}
    )
    two = [make_outcome(0, [90.0, 3.0]), make_outcome(1, [90.0, 90.0])]
    assert figures_of(two, ("reranked",))["mean_average_precision"]["reranked"]["5"] == 25.0
    assert figures_of(two, ("global",))["mean_average_precision"]["global"]["5"] == 50.0


def test_median_error_counts_photos_without_an_answer_as_far_away() -> None:
    outcomes = [make_outcome(i, [float(i)]) for i in range(1, 6)]
    assert figures_of(outcomes, ("reranked",))["median_error_m"] == {"reranked": 3.0}
    lost = [make_outcome(i, []) for i in range(6, 12)]
    figures = figures_of(outcomes + lost, ("reranked",))
    assert figures["median_error_m"] == {"reranked": None}
    json.dumps(figures, allow_nan=False)


def test_recall_by_condition_and_density_adds_up() -> None:
    day, night = {"light": "day", "city": "cph"}, {"light": "night", "city": "cph"}
    outcomes = [
        *(make_outcome(i, [5.0], facets=day) for i in range(6)),
        *(make_outcome(i, [50.0, 5.0, 6.0], facets=night) for i in range(6, 10)),
        make_outcome(10, [90.0], facets=night),
    ]
    figures = figures_of(outcomes, ("global", "reranked"))
    parts = {
        (p["kind"], p["value"]): (p["queries"], p["recall"]["reranked"]["1"]) for p in figures["by_condition"]
    }
    assert parts == {("light", "day"): (6, 100.0), ("light", "night"): (5, 0.0), ("city", "cph"): (11, 54.55)}
    densities = [
        (p["least"], p["most"], p["queries"], p["recall"]["reranked"]["5"]) for p in figures["by_density"]
    ]
    assert densities == [(0, 0, 1, 0.0), (1, 1, 6, 100.0), (2, 5, 4, 100.0)]
    assert figures["places"] == 11


def test_queries_of_one_place_widen_the_interval() -> None:
    apart = [make_outcome(i, [5.0 if i % 3 else 50.0]) for i in range(60)]
    together = [make_outcome(i, [5.0 if (i // 6) % 3 else 50.0], cluster=i // 6) for i in range(60)]
    widths = []
    for outcomes in (apart, together):
        low, high = figures_of(outcomes, ("reranked",))["intervals"]["recall"]["reranked"]["1"]
        widths.append(high - low)
    assert widths[1] > 1.5 * widths[0]


def test_arrays_and_frames_have_a_row_per_query() -> None:
    evaluation = make_evaluation(
        [make_outcome(0, [3.0, 90.0, 7.0]), make_outcome(1, []), make_outcome(2, [40.0])]
    )
    arrays = evaluation.arrays
    assert arrays.ranks_global.tolist() == [[3, 2, 1], [0, 0, 0], [1, 0, 0]]
    assert arrays.distances_m[0].tolist() == [3.0, 90.0, 7.0]
    assert arrays.right.tolist() == [[True, False, True], [False] * 3, [False] * 3]
    assert arrays.first_hit_reranked.tolist() == [1, 0, 0]
    assert arrays.matches[0].tolist() == [21, 11, 1]
    assert arrays.image_ids[2].tolist() == ["2-1.jpg", "", ""]
    assert math.isnan(arrays.timings_ms["total"][1])
    assert np.isnan(arrays.similarities[1]).all()
    frame = evaluation.to_pandas()
    assert frame["error_m_reranked"].tolist()[0] == 3.0
    assert frame["error_m_global"].tolist()[0] == 7.0
    assert frame["rejected"].tolist()[1] == "empty"
    assert len(frame) == 3


def test_places_of_answers_have_intervals() -> None:
    def place(number: int, metres: float) -> dict[str, object]:
        position = {"utm_e": 500_000.0 + 1000 * number + metres, "utm_n": 4e6, "utm_zone": "33T"}
        return {"position": position, "radius_m": 20.0}

    outcomes = [make_outcome(i, [5.0], place=place(i, float(i))) for i in range(40)]
    intervals = place_intervals(outcomes)
    low, high = intervals["median_m"]
    assert low < 19.5 < high
    low, high = intervals["within_m"]["25"]
    assert low < 65.0 < high
    assert place_intervals([make_outcome(0, [5.0])]) == {}


def test_plots_show_every_stage() -> None:
    pytest.importorskip("matplotlib")
    figure = make_evaluation([make_outcome(i, [5.0 * i]) for i in range(12)]).plot()
    left, right = figure.axes
    assert len(left.lines) == len(right.lines) == 2
