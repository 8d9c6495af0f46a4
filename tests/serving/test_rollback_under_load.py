"""Versions of a store change below a service that is asked all the time, through real HTTP.

Once by `placeray serve`, a process with Ray Serve; once by the same service in this process, without Ray.
"""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import requests

from pipelines.cli import main
from storage.store import Store
from tests.support.city_store import CityStore, copy_rows
from tests.support.query_load import Load
from tests.support.serve_client import query, wait_for
from tests.support.serve_command import served
from tests.support.service_server import running_service

FEW = 20  # answers before and after each change
HOW = [
    pytest.param("in this process", marks=pytest.mark.long),
    pytest.param("serve", marks=[pytest.mark.slow, pytest.mark.ray]),
]


@contextlib.contextmanager
def running(how: str, folder: Path, at: str | None = None) -> Iterator[str]:
    """Serve a store; yield the URL."""
    if how == "serve":
        with served(folder, *(() if at is None else ("--at", at))) as url:
            yield url
    else:
        with running_service(str(folder), at=at) as service:
            yield service.url


@pytest.fixture
def folder(city_store: CityStore, tmp_path: Path) -> Path:
    shutil.copytree(city_store.uri, tmp_path / "store")
    return tmp_path / "store"


def answer_of(url: str, photo: bytes) -> dict[str, Any]:
    reply = query(url, photo, top_k=20)
    assert reply.status_code == 200, reply.text
    answer: dict[str, Any] = reply.json()
    return answer


def matches_of(answer: dict[str, Any]) -> list[tuple[str, int]]:
    return [(match["image_id"], match["rank"]) for match in answer["matches"]]


def follows(url: str, photo: bytes, version: int) -> None:
    wait_for(lambda: answer_of(url, photo)["store_version"] == version, patience_s=60)


@pytest.mark.parametrize("how", HOW)
def test_no_request_fails_while_versions_are_rolled_back(
    how: str, folder: Path, city_store: CityStore
) -> None:
    photos = [path.read_bytes() for path in city_store.queries[:8]]
    store = Store.open(folder)
    rows = copy_rows(store, "-again")
    assert main(["tag-version", "june", "--store", str(folder)]) == 0
    with running(how, folder) as url:
        at_first = answer_of(url, photos[0])
        with Load(url, photos, clients=3) as load:
            for _ in range(2):
                load.wait_for_more(FEW)
                with store.lease():
                    grown = store.commit(rows)
                follows(url, photos[0], grown)
                assert matches_of(answer_of(url, photos[0])) != matches_of(at_first)
                load.wait_for_more(FEW)
                assert main(["rollback", "--store", str(folder), "--to", "june"]) == 0
                assert store.refresh()
                follows(url, photos[0], store.version)
                assert matches_of(answer_of(url, photos[0])) == matches_of(at_first)
            load.wait_for_more(FEW)
        print(f"{len(load.answers)} answers, the slowest after {load.longest_s():.2f} s: {load.statuses()}")
        assert set(load.statuses()) == {200}, [each for each in load.answers if each[0] != 200][:3]
        assert len(load.answers) >= 5 * FEW


@pytest.mark.parametrize("how", HOW)
def test_a_service_at_a_tag_stays_there_until_the_tag_moves(
    how: str, folder: Path, city_store: CityStore
) -> None:
    photo = city_store.queries[0].read_bytes()
    store = Store.open(folder)
    tagged = store.version
    assert main(["tag-version", "june", "--store", str(folder)]) == 0
    with running(how, folder, "june") as url:
        at_first = answer_of(url, photo)
        assert at_first["store_version"] == tagged
        with store.lease():
            grown = store.commit(copy_rows(store, "-again"))
        store.compact(keep_versions_s=0)
        for _ in range(20):
            assert matches_of(answer_of(url, photo)) == matches_of(at_first)
            assert requests.get(f"{url}/readyz", timeout=30).status_code == 200
        assert main(["tag-version", "june", "--store", str(folder)]) == 0
        wait_for(lambda: answer_of(url, photo)["store_version"] > grown, patience_s=60)
        assert matches_of(answer_of(url, photo)) != matches_of(at_first)
