"""What a store's own photos say about the radius of its places."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from pipelines.own_photos.due import measure_if_due
from pipelines.own_photos.measuring import measure_own_photos, measure_spacing_m
from serving.engine import QueryEngine
from serving.places.own_photos import OwnPhotos
from storage.calibration_file import OWN_PHOTOS_FILE
from storage.errors import StoreLocked
from storage.position import Position, Positions
from storage.store import Store
from tests.support.city_store import CityStore, make_city_store


@pytest.fixture(scope="module")
def city(tmp_path_factory: pytest.TempPathFactory) -> CityStore:
    return make_city_store(tmp_path_factory.mktemp("own"), database=40, queries=8, seed=3)


def test_spacing_is_the_distance_to_the_next_place_not_to_the_other_view() -> None:
    places = [Position(utm_e=10.0 * (i // 2), utm_n=0.2 * (i % 2)) for i in range(40)]
    assert measure_spacing_m(Positions.of(places)) == pytest.approx(10.0, abs=0.01)
    assert measure_spacing_m(Positions.of(places[:2])) is None
    assert measure_spacing_m(Positions.of([Position()])) is None


def test_a_city_is_measured_once_and_again_when_it_has_changed(city: CityStore) -> None:
    store = Store.open(city.uri)
    with pytest.raises(StoreLocked):
        store.write_measured(OWN_PHOTOS_FILE, {})
    with store.lease():
        measured = measure_if_due(store)
        assert measure_if_due(store) is None
        assert measured is not None
        values = store.measured(OWN_PHOTOS_FILE)
        assert values is not None
        assert OwnPhotos.from_dict(values).rows == 40
        store.write_measured(OWN_PHOTOS_FILE, values | {"rows": 20})
        assert measure_if_due(store) is not None
        Path(city.uri, OWN_PHOTOS_FILE).write_text("[")
        assert measure_if_due(store) is not None
    assert measured.spacing_m == pytest.approx(10.0, abs=0.1)
    line = measured.lines["votes"]
    # With its own place in the store a photo leads by more and is placed better than without it.
    assert line.lead_with > line.lead_without
    assert line.error_with < line.error_without
    leads = np.linspace(0, 1, 21)
    radii = [measured.radius_m(lead, "votes") for lead in leads]
    assert radii == sorted(radii, reverse=True)
    assert measured.radius_m(0.5, "count") is None


def test_answers_get_a_radius_from_the_file_and_none_without_it(city: CityStore) -> None:
    store = Store.open(city.uri)
    with store.lease():
        measured = measure_own_photos(store)
        assert measured is not None
        store.write_measured(OWN_PHOTOS_FILE, measured.to_dict())
    photo = city.queries[0]
    place = QueryEngine.open(city.uri).answer(photo).place
    assert place["radius_m"] > 0
    assert (place["probability_right"], place["known"], place["calibrated"]) == (None, None, False)
    by_descriptor = QueryEngine.open(city.uri).answer(photo, rerank=False, top_k=1).place
    assert by_descriptor is not None
    assert by_descriptor["radius_m"] > 0
    assert len(by_descriptor["evidence"]) >= 1
    for text in ("{", "[]", json.dumps({"format": 99}), json.dumps(measured.to_dict() | {"spacing_m": "x"})):
        Path(city.uri, OWN_PHOTOS_FILE).write_text(text)
        spoilt = QueryEngine.open(city.uri).answer(photo).place
        assert spoilt is not None
        assert spoilt["radius_m"] is None
    other = measured.to_dict() | {"aggregation_sha256": "0" * 64}
    Path(city.uri, OWN_PHOTOS_FILE).write_text(json.dumps(other))
    assert QueryEngine.open(city.uri).answer(photo).place["radius_m"] is None  # type: ignore[index]
