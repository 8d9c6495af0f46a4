"""Whether answers of older versions may still be used, and how many drives wait."""

from __future__ import annotations

import asyncio
import shutil
from pathlib import Path
from typing import Any

import pytest

from serving.errors import Refusal
from serving.tracks.errors import AnotherAggregation, VersionGone
from serving.tracks.following import Following, require_aggregation
from storage.store import Store
from tests.support.paths import GOLDEN


@pytest.fixture
def relearned(tmp_path: Path) -> Store:
    """A store whose descriptors were learned anew: its versions have different cards."""
    shutil.copytree(GOLDEN / "store_v3_relearned", tmp_path / "store")
    return Store.open(tmp_path / "store")


def test_answers_of_another_aggregation_are_a_conflict(relearned: Store) -> None:
    require_aggregation(relearned, [relearned.version])
    kept = [v for v in range(1, relearned.version) if relearned.card_at(v) is not None]
    other = [
        v
        for v in kept
        if (card := relearned.card_at(v)) and card.aggregation_sha256 != relearned.card.aggregation_sha256
    ]
    assert other
    with pytest.raises(AnotherAggregation, match="query again"):
        require_aggregation(relearned, [other[0], relearned.version])


def test_versions_that_nobody_has_are_a_conflict(relearned: Store) -> None:
    with pytest.raises(VersionGone, match="does not keep version 4711"):
        require_aggregation(relearned, [4711])
    with pytest.raises(VersionGone, match="more than"):
        require_aggregation(relearned, list(range(1, 100)))


def test_drives_that_cannot_wait_are_refused(relearned: Store) -> None:
    class Stuck:
        async def with_store(self, work: Any) -> Any:
            await asyncio.sleep(3600)

    async def many() -> list[BaseException | None]:
        following = Following(Stuck())
        waiting = [asyncio.create_task(following.follow([], [], [], lag=0)) for _ in range(12)]
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        refused = [task.exception() for task in waiting if task.done()]
        for task in waiting:
            task.cancel()
        await asyncio.gather(*waiting, return_exceptions=True)
        return refused

    refused = asyncio.run(many())
    assert len(refused) == 4
    assert all(isinstance(error, Refusal) and error.status == 503 for error in refused)
