"""Answers of an earlier run are used again, and only where nothing changed that could change them."""

from __future__ import annotations

import dataclasses
import importlib.metadata
import json
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from models.extractor import Extractor
from models.weights import load_extractor
from pipelines.cli import main
from pipelines.evaluation.answer_cache import cache_key
from pipelines.evaluation.describe import describe_notes
from pipelines.evaluation.engines import RememberingEngine
from pipelines.evaluation.job import evaluate
from pipelines.sources import list_source
from serving.engine import QueryEngine
from serving.matching_options import Matching
from storage.card import Card
from storage.store import Store
from tests.support.city_store import commit_photos
from tests.support.pictures import photo, write_photos


@pytest.fixture(scope="module")
def extractor() -> Extractor:
    return load_extractor("efficientnet-lite0")


def fill(uri: Path, folder: Path, extractor: Extractor) -> None:
    store = Store.create(uri, extractor.card)
    with store.lease():
        commit_photos(store, extractor, list_source(folder))


@pytest.fixture
def city(tmp_path: Path, extractor: Extractor) -> Path:
    write_photos(tmp_path / "city/database", 6)
    write_photos(tmp_path / "city/queries", 5)
    fill(tmp_path / "store", tmp_path / "city/database", extractor)
    return tmp_path / "city"


@pytest.fixture
def answered(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> list[str]:
    """Return the paths that the engine was asked about."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    asked: list[str] = []
    original = QueryEngine.answer_many

    def answer_many(self: QueryEngine, photos: Any, **options: Any) -> Iterator[Any]:
        def noted() -> Iterator[str]:
            for path in photos:
                asked.append(path)
                yield path

        return original(self, noted(), **options)

    monkeypatch.setattr(QueryEngine, "answer_many", answer_many)
    return asked


def test_the_same_run_again_answers_nothing_and_gives_the_same_figures(
    city: Path, answered: list[str], tmp_path: Path
) -> None:
    first = evaluate(city, store_uri=str(tmp_path / "store"))
    assert (len(answered), first.answers_remembered) == (5, 0)
    second = evaluate(city, store_uri=str(tmp_path / "store"))
    assert (len(answered), second.answers_remembered) == (5, 5)
    assert second.outcomes == first.outcomes
    assert second.recall == first.recall
    assert any("earlier run" in note for note in describe_notes(second))
    evaluate(city, store_uri=str(tmp_path / "store"), remember=False)
    assert len(answered) == 10


def test_an_interrupted_run_goes_on_where_it_was(city: Path, answered: list[str], tmp_path: Path) -> None:
    def interrupt(done: int, rejected: int, total: int) -> None:
        if answered and done == 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        evaluate(city, store_uri=str(tmp_path / "store"), progress=interrupt)
    answered.clear()
    result = evaluate(city, store_uri=str(tmp_path / "store"))
    assert result.answers_remembered == 3
    assert len(answered) == 2
    assert result.recall["reranked"]["1"] == 100.0


def test_a_setting_that_changes_an_answer_asks_again(city: Path, answered: list[str], tmp_path: Path) -> None:
    evaluate(city, store_uri=str(tmp_path / "store"))
    changes: list[dict[str, Any]] = [
        {"candidates": 3},
        {"rerank": False},
        {"matching": Matching(score="votes")},
        {"max_megapixels": 30.0},
    ]
    for changed in changes:
        answered.clear()
        again = evaluate(city, store_uri=str(tmp_path / "store"), **changed)
        assert (again.answers_remembered, len(answered)) == (0, 5), changed


def test_another_photo_another_version_and_another_store_at_the_same_place_are_asked_again(
    city: Path, answered: list[str], tmp_path: Path, extractor: Extractor
) -> None:
    evaluate(city, store_uri=str(tmp_path / "store"))
    answered.clear()
    first = sorted((city / "queries").iterdir())[0]
    first.write_bytes(photo(77))
    evaluate(city, store_uri=str(tmp_path / "store"))
    assert answered == [str(first)]
    (tmp_path / "store").rename(tmp_path / "former")
    fill(tmp_path / "store", city / "database", extractor)
    stores = [Store.open(tmp_path / name) for name in ("store", "former")]
    assert stores[0].version == stores[1].version
    answered.clear()
    evaluate(city, store_uri=str(tmp_path / "store"))
    assert len(answered) == 5


def test_another_version_of_placeray_asks_again(
    city: Path, answered: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    evaluate(city, store_uri=str(tmp_path / "store"))
    monkeypatch.setattr("pipelines.evaluation.answer_cache.__version__", "99.0")
    answered.clear()
    assert evaluate(city, store_uri=str(tmp_path / "store")).answers_remembered == 0
    assert len(answered) == 5


def test_another_card_has_another_key(city: Path, tmp_path: Path) -> None:
    store = Store.open(tmp_path / "store")

    def key(card: Card) -> str:
        same = {"version": store.version, "metadata": store.metadata, "measured": store.measured}
        return cache_key(SimpleNamespace(card=card, **same), {})  # type: ignore[arg-type]

    assert key(store.card) == cache_key(store, {})
    assert key(dataclasses.replace(store.card, min_similarity=0.37)) != key(store.card)


@pytest.mark.parametrize("package", ["pillow", "pillow-heif", "timm", "faiss-cpu", "torch", "numpy"])
def test_another_version_of_a_package_has_other_settings(
    city: Path, tmp_path: Path, extractor: Extractor, monkeypatch: pytest.MonkeyPatch, package: str
) -> None:
    engine = RememberingEngine(QueryEngine(Store.open(tmp_path / "store"), extractor), {})
    before = engine._settings({})
    monkeypatch.setattr(
        "pipelines.evaluation.package_versions.version",
        lambda name: "99.0" if name == package else importlib.metadata.version(name),
    )
    assert engine._settings({}) != before


def test_a_compiled_network_has_other_settings(
    city: Path, tmp_path: Path, extractor: Extractor, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = RememberingEngine(QueryEngine(Store.open(tmp_path / "store"), extractor), {})
    before = engine._settings({})
    assert engine._settings({}) == before
    monkeypatch.setattr(extractor, "_forward", lambda images: images)
    assert engine._settings({}) != before


def test_a_budget_of_time_is_never_remembered(city: Path, answered: list[str], tmp_path: Path) -> None:
    for _ in range(2):
        evaluate(city, store_uri=str(tmp_path / "store"), matching=Matching(budget_ms=1000.0))
    assert len(answered) == 10


def test_a_damaged_cache_and_one_that_cannot_be_written_do_no_harm(
    city: Path, answered: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    evaluate(city, store_uri=str(tmp_path / "store"))
    for path in (tmp_path / "cache").rglob("*.json"):
        path.write_bytes(b'{"' + path.read_bytes()[:200])
    assert evaluate(city, store_uri=str(tmp_path / "store")).answers_remembered == 0
    (tmp_path / "file").write_bytes(b"")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    assert evaluate(city, store_uri=str(tmp_path / "store")).recall["reranked"]["1"] == 100.0


def test_forgotten_photos_leave_the_answers_of_this_machine(
    city: Path, answered: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    store, kept = str(tmp_path / "store"), tmp_path / "cache/placeray/evaluations"
    evaluate(str(city), store_uri=store)
    photo_id = Store.open(store).metadata()["image_id"].to_pylist()[0]
    elsewhere = kept / ("0" * 64) / "answers.json"  # of another store
    elsewhere.parent.mkdir()
    elsewhere.write_text('{"1": {"matches": [["another", 1.0, null, 1.0, "votes"]]}}')

    def naming() -> list[Path]:
        return [path for path in kept.rglob("*.json") if photo_id.encode() in path.read_bytes()]

    assert main(["delete", photo_id, "--store", store]) == 0
    assert naming()
    capsys.readouterr()
    assert main(["delete", photo_id, "--store", store, "--forget", "--json"]) == 0
    assert json.loads(capsys.readouterr().out.splitlines()[-1])["answers_removed"] >= 1
    assert naming() == []
    assert elsewhere.exists()


def test_a_version_that_changes_during_the_run_is_reported(
    city: Path, answered: list[str], tmp_path: Path
) -> None:
    def delete_one(done: int, rejected: int, total: int) -> None:
        if answered and done == 5:
            store = Store.open(tmp_path / "store")
            with store.lease():
                store.delete(store.metadata()["image_id"].to_pylist()[:1])

    result = evaluate(city, store_uri=str(tmp_path / "store"), progress=delete_one)
    assert result.newest_version == result.store_version + 1
    assert any("moved to version" in note for note in describe_notes(result))
