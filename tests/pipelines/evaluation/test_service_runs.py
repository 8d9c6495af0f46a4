"""Runs through a service: what ends them early, what is kept of an interrupted one, what changes."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from models.extractor import Extractor
from models.weights import load_extractor
from pipelines.cli import main
from pipelines.evaluation.describe import describe_notes
from pipelines.evaluation.engines import RememberingEngine
from pipelines.evaluation.job import DatasetEvaluation, evaluate
from pipelines.sources import list_source
from serving.answer import QueryResult
from serving.engine import QueryEngine
from serving.transport import ServiceRefused
from storage.store import Store
from tests.pipelines.evaluation.test_service_engine import Service
from tests.support.city_store import commit_photos, copy_rows
from tests.support.pictures import write_photos

SETTINGS = {"score": None, "matching": "exact", "stop_early": False, "rerank_budget_ms": None}
SETTINGS |= {"search_method": "exact", "method": "exact"}


class Interrupted(Service):
    """A service that is asked about some photos before somebody presses Ctrl-C or something else happens."""

    def __init__(self, engine: QueryEngine, after: int, then: Callable[[], None], **info: Any) -> None:
        super().__init__(engine, **info)
        self.after, self.then = after, then

    def answer(self, photo: bytes, **options: Any) -> QueryResult:
        if len(self.asked) - 1 == self.after:
            self.then()
        return super().answer(photo, **options)


@pytest.fixture(scope="module")
def extractor() -> Extractor:
    return load_extractor("efficientnet-lite0")


@pytest.fixture
def city(tmp_path: Path, extractor: Extractor, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr("pipelines.evaluation.service_engine._THREADS", 1)
    write_photos(tmp_path / "city/database", 4)
    write_photos(tmp_path / "city/queries", 5)
    store = Store.create(tmp_path / "store", extractor.card)
    with store.lease():
        commit_photos(store, extractor, list_source(tmp_path / "city/database"))
    return tmp_path / "city"


Ask = Callable[[Service], DatasetEvaluation]


@pytest.fixture
def through(city: Path, monkeypatch: pytest.MonkeyPatch) -> Ask:
    def ask(service: Service) -> DatasetEvaluation:
        monkeypatch.setattr("pipelines.evaluation.job.PlaceClient", lambda url, token: service)
        monkeypatch.setattr("pipelines.evaluation.job.deployed_costs", lambda *_: {})  # of other tests
        return evaluate(city, store_uri=str(city.parent / "store"), url="http://127.0.0.1:1")

    return ask


def served(city: Path, extractor: Extractor) -> QueryEngine:
    return QueryEngine(Store.open(city.parent / "store"), extractor)


def ctrl_c() -> None:
    raise KeyboardInterrupt


def test_an_interrupted_run_goes_on_and_one_that_is_through_leaves_nothing(
    city: Path, extractor: Extractor, through: Ask
) -> None:
    engine = served(city, extractor)
    with pytest.raises(KeyboardInterrupt):
        through(Interrupted(engine, 3, ctrl_c, **SETTINGS))
    service = Service(engine, **SETTINGS)
    result = through(service)
    assert (len(service.asked) - 1, result.answers_remembered) == (2, 3)
    assert any("3 answers are those of an earlier run" in note for note in describe_notes(result))
    again = through(service)
    assert (len(service.asked) - 1, again.answers_remembered) == (7, 0), "a new run asks anew"
    assert again.recall == result.recall
    assert [o.matches for o in again.outcomes] == [o.matches for o in result.outcomes]


@pytest.mark.parametrize(
    "other",
    [
        {"stop_early": True},
        {"rerank_budget_ms": 1e6},
        {"matching": "of a later version"},
    ],
)
def test_answers_of_a_service_with_other_settings_are_not_used(
    city: Path, extractor: Extractor, through: Ask, other: dict[str, Any]
) -> None:
    engine = served(city, extractor)
    with pytest.raises(KeyboardInterrupt):
        through(Interrupted(engine, 3, ctrl_c, **SETTINGS))
    service = Service(engine, **SETTINGS | other)
    assert through(service).answers_remembered == 0
    assert len(service.asked) - 1 == 5


def test_a_service_that_moves_to_another_version_is_reported(
    city: Path, extractor: Extractor, through: Ask
) -> None:
    engine = served(city, extractor)
    before = engine.store.version
    service = Interrupted(engine, 2, lambda: None, **SETTINGS)

    def restarted() -> None:
        store = Store.open(engine.store.uri)
        with store.lease():
            store.commit(copy_rows(store, "-again"))
        service.engine = QueryEngine(store, extractor)

    service.then = restarted
    result = through(service)
    assert result.store_versions == [before, before + 1]
    notes = " ".join(describe_notes(result))
    assert f"The store changed during the run: versions {before}, {before + 1} answered." in notes


def test_answers_of_another_version_are_not_kept(city: Path, extractor: Extractor) -> None:
    class Moved(QueryEngine):
        def answer_many(self, photos: Any, **options: Any) -> Iterator[Any]:  # type: ignore[override]
            for answer in super().answer_many(photos, **options):
                yield dataclasses.replace(answer, store_version=self.store.version + 1)  # type: ignore[type-var]

    moved = Moved(Store.open(city.parent / "store"), extractor)
    photos = {str(path): path.name for path in sorted((city / "queries").iterdir())}
    for _ in range(2):
        engine = RememberingEngine(moved, photos, folder=city.parent / "kept")
        assert len(list(engine.answer_many(photos, top_k=3, candidates=3, rerank=False))) == 5
        assert engine.remembered == 0


def test_a_wrong_url_or_token_ends_the_run_before_anything_is_indexed(
    city: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    class Refusing:
        def info(self) -> None:
            raise ServiceRefused("http://127.0.0.1:1 requires a valid token; set PLACERAY_TOKEN")

    monkeypatch.setattr("pipelines.evaluation.job.PlaceClient", lambda url, token: Refusing())
    new = city.parent / "new"
    code = main(["evaluate", str(city), "--store", str(new), "--url", "http://127.0.0.1:1", "--quiet"])
    assert code == ServiceRefused.exit_code
    assert "requires a valid token" in capsys.readouterr().err
    assert not new.exists()
