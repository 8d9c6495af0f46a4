"""A service in the place of an engine: its defaults, limits and settings are those of the figures."""

from __future__ import annotations

from typing import Any

import pytest

from pipelines.evaluation.describe import describe_notes
from pipelines.evaluation.recall import measure_recall
from pipelines.evaluation.result import Evaluation
from pipelines.evaluation.service_engine import ServiceEngine
from serving.answer import QueryResult
from serving.engine import QueryEngine
from serving.matching_options import Matching
from tests.support.city_store import CityStore


class Service:
    """Answers as a service of an engine does, within its limits."""

    def __init__(self, engine: QueryEngine, **info: Any) -> None:
        self.engine, self.asked = engine, [(0, 0)]
        store = engine.store
        self.told = {"model": store.card.model, "store_version": store.version, "rows": store.count}
        self.told |= {"topology": "compact", "method": "auto", "max_candidates": 40, "max_top_k": 100}
        self.told |= {"candidates": 12, **info}

    def info(self) -> dict[str, Any]:
        return self.told

    def answer(self, photo: bytes, *, top_k: int, candidates: int, rerank: Any) -> QueryResult:
        assert top_k <= self.told["max_top_k"]
        assert candidates <= self.told["max_candidates"]
        self.asked.append((top_k, candidates))
        return self.engine.answer(photo, top_k=top_k, candidates=candidates, rerank=rerank)


def measured(city_store: CityStore, service: Service, **options: Any) -> Evaluation:
    engine = ServiceEngine(service.engine, service)  # type: ignore[arg-type]
    return measure_recall(city_store.folder / "city", engine, **options)


@pytest.fixture(scope="module")
def engine(city_store: CityStore) -> QueryEngine:
    return QueryEngine.open(city_store.uri)


def test_the_service_says_how_many_candidates_are_re_ranked(
    city_store: CityStore, engine: QueryEngine
) -> None:
    service = Service(engine)
    result = measured(city_store, service)
    assert set(service.asked[1:]) == {(100, 12)}
    assert result.conditions["candidates"] == 12
    assert "12 candidates re-ranked" in result.protocol
    assert result.limited == {}
    more = measured(city_store, service, candidates=60)
    assert more.conditions["candidates"] == 40
    assert "60 candidates were asked for: the service re-ranks at most 40" in " ".join(describe_notes(more))


def test_depths_that_the_service_does_not_list_are_left_out(
    city_store: CityStore, engine: QueryEngine
) -> None:
    result = measured(city_store, Service(engine, max_top_k=15))
    for values in (result.recall, result.mean_average_precision, result.intervals["recall"]):
        assert [list(depths) for depths in values.values()] == [["1", "5", "10"]] * 2
    assert all(list(part["recall"]["global"]) == ["1", "5", "10"] for part in result.by_density)
    (note,) = [note for note in describe_notes(result) if "left out" in note]
    assert note.startswith("R@20, R@100 left out: the service lists at most 15 places")
    few = measured(city_store, Service(engine, max_top_k=10))
    assert any("global descriptor are of the 10 places" in note for note in describe_notes(few))


def test_conditions_are_those_of_the_service(city_store: CityStore, engine: QueryEngine) -> None:
    set_so = {"score": None, "matching": "fast", "stop_early": True, "rerank_budget_ms": 50.0}
    service = Service(engine, **set_so, precision="bf16", search_method="ivf")
    result = measured(city_store, service, only=[str(path) for path in city_store.queries[:3]])
    told = result.conditions
    # Asked for 100 places it would match 100 candidates before it stops, unlike for its users.
    assert set(service.asked[1:]) == {(20, 12)}
    assert result.limited == {"max_top_k": 20, "depths_left_out": [100], "by_early_stop": True}
    assert "R@100 left out: 20 places are asked for, as with more the service would not stop early." in (
        describe_notes(result)
    )
    assert list(result.recall["reranked"]) == ["1", "5", "10", "20"]
    assert told["matching"] == "fast, stopping early, 50 ms per query"
    assert "fast, stopping early, 50 ms per query" in result.protocol
    assert (told["precision"], told["device"]) == ("bf16", "the service's device")
    assert told["search"] == "ivf through a service, topology compact"
    chosen = ServiceEngine(engine, service)  # type: ignore[arg-type]
    assert chosen.search_method == "ivf"
    assert chosen.matching == Matching(precision="fast", stop_early=True, budget_ms=50.0)


def test_what_a_service_does_not_say_is_not_guessed(city_store: CityStore, engine: QueryEngine) -> None:
    earlier = measured(city_store, Service(engine))
    assert earlier.conditions["matching"] == "as the service is set"
    assert earlier.conditions["precision"] == "the precision of the service"
    exact = {"score": None, "matching": "exact", "stop_early": False, "rerank_budget_ms": None}
    assert measured(city_store, Service(engine, **exact)).conditions["matching"] == "every candidate, exactly"
    odd = measured(city_store, Service(engine, **exact | {"matching": "later"}))
    assert odd.conditions["matching"] == "as the service is set"
