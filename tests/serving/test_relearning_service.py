"""A running service follows a store that learns again, and refuses no query meanwhile."""

from __future__ import annotations

import asyncio
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from pipelines.relearn import relearn
from serving.settings import ServeSettings
from serving.stages.extract import open_extract_worker
from serving.stages.local import LocalStages
from serving.stages.rerank import open_rerank_worker
from serving.stages.search import open_search_worker
from storage.search.partition import WHOLE_INDEX
from tests.support.city_store import make_city_store
from tests.support.serve_client import deployed, query, serve_started, wait_for


@pytest.mark.slow
def test_queries_are_answered_while_the_store_moves_to_other_descriptors(tmp_path: Path) -> None:
    city = make_city_store(tmp_path, database=40, queries=1)
    settings = ServeSettings(store=city.uri, refresh_s=0.5)
    seen: list[tuple[int, bool]] = []

    async def ask() -> None:
        stages = LocalStages(
            open_extract_worker(settings),
            open_search_worker(settings, WHOLE_INDEX),
            open_rerank_worker(settings),
        )
        learning = threading.Thread(target=relearn, args=(city.uri,))
        try:
            for turn in range(2000):
                path = city.database[turn % 8]
                extracted = await stages.extract(path.read_bytes(), timeout_s=20)
                searched = await stages.search(extracted.descriptor, k=1, timeout_s=20)
                assert searched.result is not None
                hit = searched.result.hits[0].record.image_id
                seen.append((searched.result.version, hit == path.name))
                if turn == 5:
                    learning.start()
                if len({version for version, _ in seen}) == 2 and turn > 30:
                    break
        finally:
            learning.join()
            await stages.close()

    asyncio.run(ask())
    assert len({version for version, _ in seen}) == 2
    assert all(right for _, right in seen)


@pytest.mark.slow
def test_a_split_service_refuses_no_query_and_compares_no_other_descriptors_while_the_store_learns(
    tmp_path: Path, local_ray: None
) -> None:
    city = make_city_store(tmp_path, database=40, queries=1)
    photos = [path.read_bytes() for path in city.database[:8]]
    stop = threading.Event()
    seen: list[tuple[int, int, bool]] = []

    def ask(turn: int) -> None:
        """Ask for stored photos: a descriptor of another aggregation would find others."""
        while not stop.is_set():
            response = query(url, photos[turn % 8], top_k=1, rerank="false")
            answer = response.json()
            right = response.ok and answer["matches"][0]["image_id"] == city.database[turn % 8].name
            seen.append((response.status_code, answer.get("store_version", 0), right))
            turn += 3

    def versions() -> set[int]:
        return {version for _, version, _ in seen}

    with (
        serve_started() as url,
        deployed(city.uri, topology="split", shards=2, refresh_s=0.5),
        ThreadPoolExecutor(3) as clients,
    ):
        asking = [clients.submit(ask, turn) for turn in range(3)]
        try:
            wait_for(lambda: len(seen) >= 20)
            relearn(city.uri)
            wait_for(lambda: len(versions()) == 2)
            wait_for(lambda: len([1 for _, version, _ in seen if version == max(versions())]) >= 40)
        finally:
            stop.set()
        for one in asking:
            one.result()
    assert {status for status, _, _ in seen} == {200}
    assert all(right for _, _, right in seen)
