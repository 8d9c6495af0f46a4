"""The one class of answers: its JSON, and how it shows."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace
from typing import Any

import pytest

from serving.answer import Match, PlaceRecord, QueryResult
from storage.position import Position
from tests.support.paths import ROOT

JSON: dict[str, Any] = {
    "request_id": "r1",
    "model": "selavpr-vits14",
    "store_version": 3,
    "degraded": True,
    "reranked": 20,
    "place": {"position": None, "radius_m": None, "evidence": [], "calibrated": False},
    "calibration": None,
    "matches": [
        {
            "rank": 1,
            "image_id": "a/<b>.jpg",
            "uri": "/photos/a/<b>.jpg",
            "lat": 47.5,
            "lon": 7.25,
            "utm_e": None,
            "utm_n": None,
            "similarity": 0.123457,
            "mutual_matches": 143,
            "score": 71.2345,
            "score_kind": "votes",
        }
    ],
    "timings_ms": {"extract": 20.5, "total": 30.6},
}


def test_answer_rebuilt_from_json_gives_the_same_json() -> None:
    answer = QueryResult.from_dict({**JSON, "of_a_later_version": 1})
    assert answer.to_dict() == JSON
    assert list(answer.to_dict()) == list(JSON)
    assert answer.matches[0].record.image_id == "a/<b>.jpg"
    assert answer.matches[0].record.position == Position(lat=47.5, lon=7.25)
    assert QueryResult.from_dict(json.loads(json.dumps(answer.to_dict()))) == answer


def test_answer_of_the_engine_has_neither_request_id_nor_reranked_unless_set() -> None:
    answer = replace(QueryResult.from_dict(JSON), request_id=None, reranked=None)
    assert answer.to_dict() == {name: JSON[name] for name in JSON if name not in ("request_id", "reranked")}


def test_json_is_rounded() -> None:
    match = Match(1, PlaceRecord("a", "a", Position()), 0.12345678, None)
    answer = QueryResult("m", 1, False, (match,), {"total": 1.23456}).to_dict()
    assert answer["matches"][0]["similarity"] == 0.123457
    assert answer["timings_ms"] == {"total": 1.235}


@pytest.mark.parametrize("missing", ["model", "matches", "timings_ms"])
def test_json_that_lacks_a_value_is_refused(missing: str) -> None:
    with pytest.raises(KeyError, match=missing):
        QueryResult.from_dict({name: value for name, value in JSON.items() if name != missing})


def test_repr_is_one_short_line() -> None:
    answer = replace(QueryResult.from_dict(JSON), degraded=False)
    assert repr(answer) == "QueryResult(1 match, best 'a/<b>.jpg' 71.2 votes, 143 mutual matches, 31 ms)"
    unranked = replace(
        answer, matches=(replace(answer.matches[0], mutual_matches=None, score=None, score_kind=None),) * 2
    )
    assert repr(unranked) == "QueryResult(2 matches, best 'a/<b>.jpg' similarity 0.123, 31 ms)"
    assert repr(QueryResult("m", 1, True, (), {})) == "QueryResult(0 matches, degraded)"


def test_html_is_a_table_with_everything_escaped() -> None:
    html = QueryResult.from_dict(JSON)._repr_html_()
    assert html.count("<tr>") == 2
    assert "a/&lt;b&gt;.jpg" in html
    assert "<b>" not in html
    assert "None" not in html


def test_answers_need_no_torch() -> None:
    code = "import sys, serving.answer, serving.client; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=False).returncode == 0
