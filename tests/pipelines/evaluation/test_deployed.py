"""Evaluation through a running service, beside exact search on full features."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

from pipelines.cli import main
from pipelines.evaluation.full_features import FullFeatures, FullFeaturesEngine
from pipelines.evaluation.job import evaluate
from pipelines.sources import SourceError
from serving.engine import QueryEngine
from storage.store import Store
from tests.support.city_store import CityStore
from tests.support.pictures import write_photos
from tests.support.store_samples import make_store

pytestmark = pytest.mark.integration


def test_the_service_gives_what_the_engine_gives(city_store: CityStore, service_url: str) -> None:
    city = city_store.folder / "city"
    local = evaluate(city, store_uri=city_store.uri, remember=False)
    served = evaluate(city, store_uri=city_store.uri, url=service_url)
    assert served.recall == local.recall
    assert served.deployed is not None
    names = [column["name"] for column in served.deployed["columns"]]
    assert names == ["exact search, full features as stored", "the service"]
    (cost,) = served.deployed["costs"]
    assert (cost["points"], cost["won"], cost["lost"]) == (0.0, 0, 0)
    assert "through a service" in served.conditions["search"]


def test_another_store_than_the_service_serves_is_refused(
    city_store: CityStore, service_url: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    other = make_store(tmp_path / "other", ["a", "b"])
    with pytest.raises(SourceError):
        evaluate(city_store.folder / "city", store_uri=other.uri, url=service_url)
    write_photos(tmp_path / "set/queries", 1)
    city = str(city_store.folder / "city")
    assert main(["evaluate", city, "--url", service_url]) == 2
    assert "--url needs --store" in capsys.readouterr().err


def test_full_features_of_a_float16_store_are_those_it_holds(city_store: CityStore) -> None:
    engine = QueryEngine.open(city_store.uri)
    full = FullFeaturesEngine(engine, FullFeatures(engine))
    photo = city_store.queries[0]
    stored, extracted = (one.answer(photo, top_k=10, candidates=10) for one in (engine, full))
    assert [m.record.image_id for m in stored.matches][:3] == [m.record.image_id for m in extracted.matches][
        :3
    ]
    counts = [[m.mutual_matches or 0 for m in answer.matches] for answer in (stored, extracted)]
    assert abs(sum(counts[0]) - sum(counts[1])) <= 0.05 * sum(counts[0])


def test_photos_that_are_gone_leave_the_column_out(city_store: CityStore) -> None:
    engine = QueryEngine.open(city_store.uri)
    records = Store.open(city_store.uri).get([path.name for path in city_store.database[:3]])
    features = FullFeatures(engine)
    assert features.readable(records)
    gone = dataclasses.replace(records[0], uri="/nowhere.jpg", image_id="gone")
    assert not features.readable([gone])
