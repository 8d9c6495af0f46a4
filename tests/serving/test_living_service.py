"""The service while its store grows, vanishes, comes back or becomes another one."""

from __future__ import annotations

import shutil
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import requests

from serving.app import checked
from serving.engine import QueryEngine
from serving.settings import read_settings
from storage.errors import CardMismatch
from storage.store import Store
from tests.support.city_store import CityStore, copy_rows, make_store_of_another_model
from tests.support.serve_client import query, wait_for
from tests.support.service_server import Running, running_service
from tests.support.store_samples import make_card

REFRESH_S = 0.25


@pytest.fixture
def living(city_store: CityStore, tmp_path: Path) -> Iterator[tuple[Running, Path]]:
    """A service over a store that the test may change."""
    shutil.copytree(city_store.uri, tmp_path / "store")
    with running_service(str(tmp_path / "store"), refresh_s=REFRESH_S) as running:
        yield running, tmp_path / "store"


def status(url: str, path: str) -> int:
    return requests.get(url + path, timeout=30).status_code


@pytest.mark.integration
def test_service_answers_from_one_version_each_while_the_store_grows(
    living: tuple[Running, Path], city_store: CityStore
) -> None:
    running, folder = living
    store = Store.open(folder)
    rows, first = copy_rows(store, ""), store.version
    counts = {first: store.count}
    photo = city_store.queries[0].read_bytes()
    done = threading.Event()
    failures: list[str] = []
    seen: list[tuple[int, int]] = []

    def ask() -> None:
        while not done.is_set():
            reply = query(running.url, photo, top_k=100, rerank=False)
            if reply.status_code != 200:
                failures.append(reply.text)
                return
            answer = reply.json()
            seen.append((answer["store_version"], len(answer["matches"])))

    askers = [threading.Thread(target=ask) for _ in range(2)]
    for asker in askers:
        asker.start()
    try:
        for step in range(6):
            with store.lease():
                store.commit(rename(rows, f"{step}-").slice(0, 5))
            counts[store.version] = store.count
            time.sleep(0.6)
        wait_for(lambda: failures or seen[-1][0] == store.version, patience_s=30)
    finally:
        done.set()
        for asker in askers:
            asker.join()
    assert not failures
    assert len({version for version, _ in seen}) >= 3, seen  # it did follow, more than once
    for version, matches in seen:
        assert matches == min(100, counts[version]), f"version {version}"


def rename(rows: object, prefix: str) -> object:
    import pyarrow as pa

    assert isinstance(rows, pa.Table)
    keys = pa.array([prefix + key for key in rows["image_id"].to_pylist()], pa.string())
    return rows.set_column(0, rows.schema.field(0), keys)


def test_service_says_so_when_its_store_vanishes_and_recovers(
    living: tuple[Running, Path], city_store: CityStore
) -> None:
    running, folder = living
    photo = city_store.queries[1].read_bytes()
    before = query(running.url, photo).json()
    assert status(running.url, "/readyz") == 200

    shutil.move(folder, folder.with_name("away"))
    wait_for(lambda: status(running.url, "/readyz") == 503, patience_s=10)
    assert status(running.url, "/healthz") == 200
    refused = query(running.url, photo)
    assert refused.status_code == 503
    assert refused.json()["error"]["reason"] == "store_unavailable"
    assert int(refused.headers["retry-after"]) >= 1
    assert str(folder) not in refused.text
    assert "placeray_ready{" in requests.get(f"{running.url}/metrics", timeout=30).text

    shutil.move(folder.with_name("away"), folder)
    wait_for(lambda: status(running.url, "/readyz") == 200, patience_s=10)
    after = query(running.url, photo).json()
    assert after["matches"] == before["matches"]


def test_service_refuses_another_models_store_in_place_of_its_own(
    living: tuple[Running, Path], city_store: CityStore
) -> None:
    running, folder = living
    shutil.rmtree(folder)
    Store.create(folder, make_card(model="other"))
    wait_for(lambda: status(running.url, "/readyz") == 503, patience_s=10)
    reply = requests.get(f"{running.url}/readyz", timeout=30)
    assert reply.json()["error"]["reason"] == "store_mismatch"
    refused = query(running.url, city_store.queries[0].read_bytes())
    assert refused.status_code == 503


def test_checked_refuses_another_model_before_anything_starts(tmp_path: Path, city_store: CityStore) -> None:
    make_store_of_another_model(tmp_path / "store", city_store)
    with pytest.raises(CardMismatch):
        checked(read_settings({"store": str(tmp_path / "store")}))
    assert checked(read_settings({"store": city_store.uri})).model_name == "efficientnet-lite0"


def test_engine_answers_from_the_version_it_began_with(city_store: CityStore, tmp_path: Path) -> None:
    shutil.copytree(city_store.uri, tmp_path / "store")
    engine = QueryEngine.open(str(tmp_path / "store"))
    view = engine.store.snapshot
    with engine.store.lease():
        engine.store.delete([path.name for path in city_store.database[:1]])
    assert engine.store.snapshot is not view
    assert view.count == len(city_store.database)
    result = engine.answer(city_store.queries[0].read_bytes(), top_k=100, candidates=5)
    assert result.store_version == engine.store.version
