"""A running service follows a store that learns again, and refuses no query meanwhile."""

from __future__ import annotations

import asyncio
import threading
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
