"""Parts of the report page: what is on the map, in the histogram, and among suspects."""

from __future__ import annotations

import pyarrow as pa
import pytest

from pipelines.evaluation.report_parts import (
    error_histogram,
    map_of,
    parts_table,
    suspect_truth,
)
from storage.position import POSITION_COLUMNS
from tests.support.made_evaluations import make_evaluation, make_outcome


def stored(*places: tuple[str, float]) -> pa.Table:
    rows = [
        {"image_id": name, "utm_e": east, "utm_n": 4e6, "utm_zone": "33T", "lat": None, "lon": None}
        for name, east in places
    ]
    kinds = [(name, pa.string() if name == "utm_zone" else pa.float64()) for name in POSITION_COLUMNS]
    return pa.Table.from_pylist(rows, schema=pa.schema([("image_id", pa.string()), *kinds]))


def test_a_wrong_query_has_a_line_to_its_answer_and_a_ring_at_its_truth() -> None:
    right, wrong = make_outcome(0, [5.0]), make_outcome(1, [400.0, 8.0])
    table = stored(("0-1.jpg", 500_005.0), ("1-1.jpg", 501_400.0), ("1-2.jpg", 501_008.0))
    drawn = map_of(make_evaluation([right, wrong, make_outcome(2, [])]), table)
    assert drawn is not None
    assert len(drawn["queries"]) == 3
    assert [line[4] for line in drawn["lines"]] == ["--bad", "--good"]
    (bad, _) = drawn["lines"]
    per_metre = (bad[2] - bad[0]) / 400.0
    (ring,) = drawn["truths"]
    assert ring[0] - bad[0] == pytest.approx(8.0 * per_metre)
    assert map_of(make_evaluation([right]), stored()) is None


def test_histogram_counts_every_query_once_per_stage() -> None:
    outcomes = [make_outcome(i, [metres]) for i, metres in enumerate((0.5, 1.0, 20.0, 25.0, 30.0, 5000.0))]
    histogram = error_histogram(make_evaluation([*outcomes, make_outcome(6, [])]))
    assert histogram is not None
    of_stage = [title for *_, stage, title in histogram["bars"] if stage == "reranked"]
    counts = {
        title.split(", ")[1].split(" m:")[0]: int(title.split(": ")[1].split()[0]) for title in of_stage
    }
    assert counts["≤ 1"] == 2
    assert counts["≤ 25"] == 2
    assert sum(int(title.split(": ")[1].split()[0]) for title in of_stage) == 7


def test_suspects_agree_as_well_as_right_answers_do() -> None:
    right = [make_outcome(i, [5.0, 90.0]) for i in range(4)]  # first answers score 11
    strong, weak = make_outcome(4, [90.0, 95.0, 99.0]), make_outcome(5, [90.0])  # 21 and 1
    evaluation = make_evaluation([*right, weak, strong])
    assert [outcome.uri for outcome in suspect_truth(evaluation)] == [strong.uri]
    assert suspect_truth(make_evaluation([weak])) == []


def test_parts_have_a_row_each() -> None:
    outcomes = [make_outcome(i, [5.0], facets={"light": "day"}) for i in range(4)]
    ((name, count, recalls, final),) = parts_table(make_evaluation(outcomes).by_condition)
    assert (name, count, final) == ("light day", 4, 100.0)
    assert recalls[0].startswith("100.0 (")
