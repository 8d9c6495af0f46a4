"""What a client may say that it knows: filters and a prior, as query parameters."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from serving.answer import unknown_place
from serving.client import PhotoRefused, PlaceClient
from serving.priors.soft_prior import SoftPrior
from storage.calibration_file import CALIBRATION_FILE
from storage.search.filters import Near, Tagged, all_of, inside_geojson
from storage.store import Store
from tests.serving.http.test_place_parameters import calibration_of
from tests.support.city_store import CityStore
from tests.support.http_client import ask
from tests.support.service_server import Running, running_service


def query(url: str, photo: bytes, parameters: dict[str, Any]) -> Any:
    return ask(f"{url}/v1/query", "POST", body=photo, kind="image/jpeg", **parameters)


@pytest.fixture(scope="module")
def photo(city_store: CityStore) -> bytes:
    return city_store.queries[0].read_bytes()


REFUSED = [
    *({"near": "48,11"}, {"radius_m": "5"}, {"near": "48,11", "radius_m": "0"}),
    *({"near": "48,11", "radius_m": "nan"}, {"near": "48;11", "radius_m": "5"}),
    *({"near": "98,11", "radius_m": "5"}, {"near": "48,11,2", "radius_m": "5"}),
    *({"within": "{}"}, {"within": "[" * 9_000}, {"within": "x" * 16_001}),
    *({"heading": "400"}, {"heading_tolerance": "5"}, {"heading": "5", "heading_tolerance": "181"}),
    *({"taken_after": "yesterday"}, {"taken_after": "2020", "taken_before": "2019"}),
    *({"tag": ""}, {"tag": "x" * 201}, {"prior": "48,11"}, {"prior": "48,11,0"}, {"prior": "48,11,inf"}),
]


@pytest.mark.parametrize("parameters", REFUSED, ids=lambda p: str(p)[:40])
def test_what_cannot_be_used_is_a_bad_parameter(
    running: Running, photo: bytes, parameters: dict[str, str]
) -> None:
    answer = query(running.url, photo, parameters)
    assert answer.status == 422
    assert answer.json()["error"]["reason"] == "bad_parameter"
    assert len(answer.json()["error"]["message"]) < 400


@pytest.mark.parametrize(
    ("parameters", "words"),
    [
        ({"near": "48;11", "radius_m": "5"}, "'48;11' cannot be read: give a position such as 48.137,11.575"),
        ({"prior": "4e1,11,5"}, "'4e1,11,5' cannot be read: give a prior such as 48.137,11.575,200"),
    ],
)
def test_a_position_of_another_form_is_refused_with_an_example(
    running: Running, photo: bytes, parameters: dict[str, str], words: str
) -> None:
    assert query(running.url, photo, parameters).json()["error"]["message"] == words


def test_filters_and_prior_reach_the_search(running: Running, photo: bytes) -> None:
    whole = query(running.url, photo, {"top_k": "48"}).json()
    assert "considered" not in whole
    far = whole["matches"][-1]
    near = {"near": f"{far['lat']},{far['lon']}", "radius_m": "40"}
    left = query(running.url, photo, {"top_k": "48", **near}).json()
    assert 0 < left["considered"] == len(left["matches"]) < 48
    assert far["image_id"] in {match["image_id"] for match in left["matches"]}
    weighed = query(running.url, photo, {"prior": f"{far['lat']},{far['lon']},30"}).json()
    assert all(0 < match["prior_weight"] <= 1 for match in weighed["matches"])
    assert weighed["calibration"]["guaranteed"] is False
    nothing = query(running.url, photo, {"tag": "night", **near}).json()
    assert (nothing["considered"], nothing["matches"], nothing["place"]) == (0, [], unknown_place())


def test_the_client_asks_for_the_same(running: Running, photo: bytes) -> None:
    client = PlaceClient(running.url)
    far = client.answer(photo, top_k=48).matches[-1].record.position
    assert far.lat is not None
    assert far.lon is not None
    square = [[far.lon + x / 1000, far.lat + y / 1000] for x, y in ((-1, -1), (1, -1), (1, 1), (-1, 1))]
    area = inside_geojson(json.dumps({"type": "Polygon", "coordinates": [[*square, square[0]]]}))
    inside = client.answer(photo, within=area, prior=SoftPrior(far.lat, far.lon, 50.0))
    assert inside.considered
    assert inside.matches[0].prior_weight is not None
    both = all_of([Near(far.lat, far.lon, 1.0), Tagged("a"), Tagged("b")])
    assert client.answer(photo, within=both).considered == 0
    wide = [[n / 400, 48 + n % 2 / 1e5] for n in range(1500)]
    with pytest.raises(PhotoRefused):
        client.answer(
            photo, within=inside_geojson(json.dumps({"type": "Polygon", "coordinates": [[[0, 40], *wide]]}))
        )


def test_known_is_an_estimate_where_the_search_is_narrowed(city_store: CityStore, photo: bytes) -> None:
    path = Path(city_store.uri, CALIBRATION_FILE)
    path.write_text(json.dumps(calibration_of(Store.open(city_store.uri)).to_dict()))
    try:
        with running_service(city_store.uri) as service:
            for parameters, guaranteed in (
                ({}, True),
                ({"heading": "90", "heading_tolerance": "180"}, False),
            ):
                answer = query(service.url, photo, parameters).json()
                assert answer["place"]["known"] is True
                assert answer["calibration"]["valid"] is True
                assert answer["calibration"]["guaranteed"] is guaranteed
    finally:
        path.unlink()
