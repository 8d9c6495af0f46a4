"""What a client may ask of a place: a share of wrong answers, and re-ranking where it helps."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from serving.matching_options import Matching, default_candidates
from serving.places.calibration import Calibration, Ranking, Steps
from serving.places.conditions import ScoreConditions
from serving.places.promises import Promise
from serving.places.rerank_rule import RerankRule
from serving.places.signs import WEIGHTS
from storage.calibration_file import CALIBRATION_FILE
from storage.store import Store
from tests.support.city_store import CityStore
from tests.support.http_client import ask
from tests.support.service_server import running_service

JPEG = "image/jpeg"


def query(url: str, photo: bytes, **parameters: Any) -> Any:
    return ask(f"{url}/v1/query", "POST", body=photo, kind=JPEG, **{k: str(v) for k, v in parameters.items()})


def calibration_of(store: Store) -> Calibration:
    """A calibration that calls every answer known at 10 %, and re-ranks nothing."""
    return Calibration(
        conditions=ScoreConditions.of(
            store.card,
            Matching(),
            candidates=default_candidates(store.card),
            rerank=True,
            precision="float32",
        ),
        rows=store.count,
        threshold_m=25.0,
        photos=200,
        elsewhere=0,
        ranking=Ranking(WEIGHTS, 0.0),
        probability=Steps((0.0,), (0.83,)),
        radii=Steps((0.0,), (17.0,)),
        promises=(Promise(0.1, None, 150, 2, 0.05),),
        confidence=0.9,
        max_wrong=0.1,
        made_at="",
        dataset="city",
        search_method="exact",
        rerank=RerankRule("none"),
    )


@pytest.mark.parametrize("level", ["0", "1", "-0.1", "nan", "inf", "many"])
def test_a_share_out_of_bounds_is_refused(running: Any, city_store: CityStore, level: str) -> None:
    answer = query(running.url, city_store.queries[0].read_bytes(), max_wrong=level)
    assert answer.status == 422
    assert answer.json()["error"]["reason"] == "bad_parameter"


def test_without_a_calibration_no_share_can_be_kept(running: Any, city_store: CityStore) -> None:
    photo = city_store.queries[0].read_bytes()
    refused = query(running.url, photo, max_wrong=0.05)
    assert refused.status == 409
    assert refused.json()["error"]["reason"] == "not_calibrated"
    answer = query(running.url, photo, rerank="auto").json()
    assert answer["matches"][0]["mutual_matches"] is not None
    assert answer["reranked"] > 0
    assert query(running.url, photo, rerank="perhaps").status == 422


def test_a_calibration_is_followed_by_a_running_service(city_store: CityStore) -> None:
    store = Store.open(city_store.uri)
    photo = city_store.queries[0].read_bytes()
    path = Path(city_store.uri, CALIBRATION_FILE)
    path.write_text(json.dumps(calibration_of(store).to_dict()))
    try:
        with running_service(city_store.uri) as service:
            answer = query(service.url, photo, max_wrong=0.1).json()
            assert answer["place"]["probability_right"] == 0.83
            assert (answer["place"]["known"], answer["place"]["radius_m"]) == (True, 17.0)
            assert (answer["calibration"]["valid"], answer["calibration"]["max_wrong"]) == (True, 0.1)
            other = query(service.url, photo, candidates=7).json()
            assert other["place"]["known"] is None
            assert "candidates" in other["calibration"]["reason"]
            refused = query(service.url, photo, max_wrong=0.05)
            assert (refused.status, refused.json()["error"]["reason"]) == (422, "level_not_promised")
            left_out = query(service.url, photo, rerank="auto").json()
            assert left_out["reranked"] == 0
            assert left_out["matches"][0]["mutual_matches"] is None
    finally:
        path.unlink()
