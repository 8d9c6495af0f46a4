"""Answers whose candidates have no position, and answers without any candidate: `place` is in both."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from serving.answer import QueryResult, unknown_place
from serving.client import PlaceClient
from serving.engine import QueryEngine
from storage.calibration_file import CALIBRATION_FILE
from storage.store import Store
from tests.serving.http.test_place_parameters import calibration_of
from tests.support.city_store import CityStore, make_unplaced_store
from tests.support.service_server import Running, running_service


@pytest.fixture(scope="module")
def unplaced(city_store: CityStore, tmp_path_factory: pytest.TempPathFactory) -> Store:
    """A store of six photos without a position, calibrated all the same."""
    store = make_unplaced_store(tmp_path_factory.mktemp("unplaced"), city_store)
    Path(store.uri, CALIBRATION_FILE).write_text(json.dumps(calibration_of(store).to_dict()))
    return store


@pytest.fixture(scope="module")
def serving(unplaced: Store) -> Iterator[Running]:
    with running_service(unplaced.uri) as service:
        yield service


def test_candidates_without_a_position_make_a_place_without_one(
    unplaced: Store, city_store: CityStore
) -> None:
    engine = QueryEngine.open(unplaced.uri)
    photo = city_store.queries[0]
    placed = QueryEngine.open(city_store.uri).answer(photo)
    (many,) = engine.answer_many([photo])
    assert isinstance(many, QueryResult)
    for answer in (engine.answer(photo), engine.answer(photo, rerank=False), many):
        assert len(answer.matches) == 5
        assert answer.place == unknown_place()
        assert answer.place.keys() == placed.place.keys()
        assert json.loads(json.dumps(answer.to_dict()))["place"]["position"] is None
    about = engine.answer(photo, max_wrong=0.1).calibration
    assert about is not None
    assert (about["exists"], about["valid"], about["guaranteed"]) == (True, False, False)
    assert about["reason"].startswith("no candidate has a position")


def test_an_emptied_store_answers_with_a_place_too(city_store: CityStore, tmp_path: Path) -> None:
    store = make_unplaced_store(tmp_path, city_store, photos=2)
    with store.lease():
        store.delete([f"{number}.jpg" for number in range(2)])
    answer = QueryEngine.open(store.uri).answer(city_store.queries[0])
    assert (answer.matches, answer.place) == ((), unknown_place())
    with running_service(store.uri) as service:
        served = PlaceClient(service.url).answer(city_store.queries[0])
    assert (served.matches, served.place) == ((), unknown_place())


def test_the_service_and_its_client_say_the_same(serving: Running, city_store: CityStore) -> None:
    client = PlaceClient(serving.url)
    answer = client.query(city_store.queries[0].read_bytes())
    assert answer["place"] == unknown_place()
    assert answer["calibration"]["reason"].startswith("no candidate has a position")
    assert client.answer(city_store.queries[0]).place == unknown_place()
    track = client.track(city_store.queries[:2])
    assert [(frame["known"], frame["position"]) for frame in track["frames"]] == [(False, None)] * 2


def test_the_schema_promises_a_place(serving: Running) -> None:
    schemas = serving.service and PlaceClient(serving.url)._transport.send("GET", "/openapi.json", {}, None)
    answer: dict[str, Any] = schemas["components"]["schemas"]
    assert "place" in answer["QueryAnswer"]["required"]
    assert answer["QueryAnswer"]["properties"]["place"] == {"$ref": "#/components/schemas/PlaceAnswer"}
    assert set(answer["PlaceAnswer"]["required"]) == set(unknown_place())


def test_a_service_before_places_is_understood(
    city_store: CityStore, serving: Running, monkeypatch: pytest.MonkeyPatch
) -> None:
    client = PlaceClient(serving.url)
    send = client._transport.send
    for value in ({}, {"place": None}):

        def older(*args: Any, value: dict[str, Any] = value) -> dict[str, Any]:
            answer = send(*args)
            del answer["place"], answer["calibration"]
            return answer | value

        monkeypatch.setattr(client._transport, "send", older)
        assert client.answer(city_store.queries[0]).place == unknown_place()
