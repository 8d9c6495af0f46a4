"""Evaluation through a running service, beside exact search on full features."""

from __future__ import annotations

import dataclasses
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from pipelines.cli import main
from pipelines.evaluation.database_photos import DatabasePhotos
from pipelines.evaluation.deployed import deployed_costs
from pipelines.evaluation.full_features import FullFeatures, FullFeaturesEngine
from pipelines.evaluation.job import evaluate
from pipelines.evaluation.recall import measure_recall
from pipelines.evaluation.result import Evaluation
from pipelines.sources import SourceError, list_source
from serving.answer import QueryResult
from serving.engine import QueryEngine
from storage.store import Store
from tests.pipelines.evaluation.test_service_engine import Service
from tests.support.city_store import CityStore, store_of
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


class Reversed(QueryEngine):
    """Gives its answers in the opposite order, so that its recall is certainly another."""

    def answer_many(self, photos: Any, **options: Any) -> Iterator[Any]:  # type: ignore[override]
        for answer in super().answer_many(photos, **options):
            assert isinstance(answer, QueryResult)
            turned = enumerate(answer.matches[::-1], start=1)
            matches = tuple(dataclasses.replace(match, rank=rank) for rank, match in turned)
            yield dataclasses.replace(answer, matches=matches)


def test_each_part_of_a_service_with_quantised_features_and_approximate_search_costs_what_it_loses(
    city_store: CityStore, tmp_path: Path
) -> None:
    local = QueryEngine(store_of(city_store, tmp_path / "store", features="int4"), _extractor(city_store))

    asked = [str(path) for path in city_store.queries[:8]]

    def measure(engine: QueryEngine) -> Evaluation:
        return measure_recall(city_store.folder / "city", engine, candidates=20, only=asked)

    built: list[str] = []

    def measure_with(engine: QueryEngine) -> Evaluation:
        built.extend(local.store.snapshot._searchers)
        return measure(engine)

    service = measure(Reversed(QueryEngine.open(local.store.uri).store, local.extractor, method="ivf"))
    deployed = deployed_costs(local, service, "ivf", measure_with)
    assert "ivf" in built, "before a query waits for it"
    assert [column["name"] for column in deployed["columns"]] == [
        "exact search, full features",
        "exact search, features as stored",
        "ivf search, features as stored",
        "the service",
    ]
    assert deployed["full_features"] is True
    assert [column["ms_per_query"] is None for column in deployed["columns"]] == [True, False, False, False]
    # Full features are those of a store that keeps them; the others are measured by themselves.
    alone = [
        measure(QueryEngine.open(city_store.uri)),
        measure(QueryEngine(local.store, local.extractor, method="exact")),
        measure(QueryEngine(local.store, local.extractor, method="ivf")),
        service,
    ]
    recalls = [column["recall"] for column in deployed["columns"]]
    assert recalls[1:] == [one.recall["reranked"] for one in alone[1:]]
    assert abs(recalls[0]["1"] - alone[0].recall["reranked"]["1"]) <= 100 / len(asked)
    parts = ["int4 features", "ivf search", "options of matching and limits of the service"]
    assert [cost["part"] for cost in deployed["costs"]] == parts
    for cost, before, after in zip(deployed["costs"], recalls, recalls[1:], strict=False):
        assert cost["points"] == pytest.approx(after["1"] - before["1"], abs=0.02)
        assert cost["interval"][0] <= cost["points"] <= cost["interval"][1]
    assert deployed["costs"][-1]["points"] < -30
    assert deployed["costs"][-1]["lost"] > len(asked) / 3


@pytest.mark.long
def test_a_store_without_local_features_has_no_column_of_them(city_store: CityStore, tmp_path: Path) -> None:
    local = QueryEngine(store_of(city_store, tmp_path / "store", features="none"), _extractor(city_store))

    def measure(engine: QueryEngine) -> Evaluation:
        return measure_recall(city_store.folder / "city", engine, only=[str(city_store.queries[0])])

    deployed = deployed_costs(local, measure(local), "ivf", measure)
    names = [column["name"] for column in deployed["columns"]]
    assert names == ["exact search, no local features", "ivf search, no local features", "the service"]
    assert deployed["full_features"] is False


@pytest.mark.long
def test_full_features_come_from_the_database_that_is_given(
    city_store: CityStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    city, moved = tmp_path / "city", tmp_path / "moved"
    for side, photos, count in (("database", city_store.database, 12), ("queries", city_store.queries, 3)):
        (city / "images/test" / side).mkdir(parents=True)
        for path in photos[:count]:
            shutil.copy(path, city / "images/test" / side)
    store = store_of(city_store, tmp_path / "s", features="int4", database=city / "images/test/database")
    city.rename(moved)
    engine = QueryEngine(store, _extractor(city_store))
    photos = sorted((moved / "images/test/database").iterdir())
    records = store.get([path.name for path in photos[:3]])
    assert not FullFeatures(engine).readable(records)

    service = Service(engine, search_method="exact")
    monkeypatch.setattr("pipelines.evaluation.job.PlaceClient", lambda url, token: service)
    served = evaluate(moved, store_uri=store.uri, url="http://127.0.0.1:1")
    assert served.deployed is not None
    assert served.deployed["columns"][0]["name"] == "exact search, full features"

    photos[0].rename(photos[0].with_name("renamed.jpg"))
    listed = DatabasePhotos(lambda: list_source(moved / "images/test/database"))
    assert FullFeatures(engine, listed).readable(records), "found by its content"
    photos[1].write_bytes(b"another photo")
    listed = DatabasePhotos(lambda: list_source(moved / "images/test/database"))
    assert not FullFeatures(engine, listed).readable(records), "another photo under the same name"


def _extractor(city_store: CityStore) -> Any:
    return QueryEngine.open(city_store.uri).extractor
