"""Calls to replicas that die, are full, or hold different versions of the index."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from ray.exceptions import ActorDiedError, ActorUnavailableError
from ray.serve.exceptions import BackPressureError

from serving.errors import Refusal, Unreachable
from serving.metrics import Metrics
from serving.stages.messages import Descriptor, IndexStatus, Searched
from serving.stages.remote import RemoteStages, ask
from serving.stages.search import SearchWorker
from storage.position import Position
from storage.records import Candidate, ImageRecord
from storage.search.hits import SearchHits
from storage.search.index_partition import IndexPartition
from tests.support.store_samples import make_store

QUERY = Descriptor({None: np.ones(4, np.float32)})


def died() -> ActorDiedError:
    return ActorDiedError()


def replies(*outcomes: Any) -> Callable[[], Any]:
    remaining = list(outcomes)

    async def call() -> Any:
        outcome = remaining.pop(0)
        if isinstance(outcome, Exception) and not isinstance(outcome, Refusal):  # that one is returned
            raise outcome
        return outcome

    return call


@pytest.mark.parametrize(
    ("outcomes", "calls_again"),
    [
        (["ok"], 0),
        ([died(), "ok"], 1),
        ([ActorUnavailableError("gone", None), died(), "ok"], 2),
        ([Refusal(503, "not_ready", "closing"), "ok"], 1),
    ],
)
def test_ask_calls_again_when_the_replica_died(outcomes: list[Any], calls_again: int) -> None:
    again: list[int] = []
    assert asyncio.run(ask(replies(*outcomes), again=lambda: again.append(1))) == "ok"
    assert len(again) == calls_again


def test_ask_gives_up_and_passes_refusals_and_bugs_on() -> None:
    with pytest.raises(Unreachable):
        asyncio.run(ask(replies(died(), died(), died()), again=lambda: None))
    with pytest.raises(Refusal) as caught:
        asyncio.run(ask(replies(Refusal(422, "truncated", "cut short")), again=lambda: None))
    assert caught.value.reason == "truncated"
    full = BackPressureError(num_queued_requests=5, max_queued_requests=5)
    with pytest.raises(Refusal) as caught:
        asyncio.run(ask(replies(full), again=lambda: None))
    assert (caught.value.status, caught.value.reason) == (503, "overloaded")
    assert caught.value.retry_after_s is not None
    with pytest.raises(ZeroDivisionError):
        asyncio.run(ask(replies(ZeroDivisionError()), again=lambda: None))


class Part:
    """Handle of a Searcher whose loaded versions change with every call."""

    def __init__(self, number: int, *loaded: tuple[int, ...]) -> None:
        self.search = self
        self._number = number
        self._loaded = list(loaded)
        self.versions_requested: list[int | None] = []

    async def remote(
        self, descriptor: Any, k: int, version: int | None, within: Any, timeout_s: float
    ) -> Searched:
        loaded = self._loaded.pop(0) if len(self._loaded) > 1 else self._loaded[0]
        self.versions_requested.append(version)
        chosen = loaded[-1] if version is None else version
        if chosen not in loaded:
            return Searched(None, loaded, 1.0, 1, 0)
        name = f"v{chosen}-part{self._number}"
        record = ImageRecord(name, "", "", 1, 1, Position(), None, None, "", 0)
        result = SearchHits(chosen, 10, False, [Candidate(record, 0.5)], loaded)
        return Searched(result, loaded, 1.0, 1, 0)


def search(*parts: Part) -> Searched:
    stages = RemoteStages(None, parts, None, Metrics("test"))  # type: ignore[arg-type]
    return asyncio.run(stages.search(QUERY, k=10, timeout_s=1.0))


@pytest.mark.parametrize(
    ("parts", "version"),
    [
        (([(7,)], [(7,)]), 7),
        (([(6, 7)], [(6,)], [(6, 7)]), 6),
        (([(6, 7)], [(7,)], [(7, 8)]), 7),
        (([(6,), (6, 8)], [(7,), (7, 8)]), 8),  # nothing in common at first
        (([(6, 7), (7, 8)], [(6,), (8,)]), 8),  # the requested version is dropped in between
    ],
)
def test_search_answers_from_one_version_that_all_parts_hold(
    parts: tuple[list[tuple[int, ...]], ...], version: int
) -> None:
    searched = search(*(Part(number, *loaded) for number, loaded in enumerate(parts)))
    assert searched.result is not None
    assert searched.result.version == version
    names = [hit.record.image_id for hit in searched.result.hits]
    assert names == [f"v{version}-part{number}" for number in range(len(parts))]


def test_search_of_parts_that_never_agree_is_refused() -> None:
    with pytest.raises(Refusal) as caught:
        search(Part(0, (6,)), Part(1, (7,)))
    assert (caught.value.status, caught.value.reason) == (503, "not_ready")


def test_the_status_of_parts_says_how_the_oldest_version_is_searched() -> None:
    def part(status: IndexStatus) -> Any:
        return SimpleNamespace(status=SimpleNamespace(remote=replies(status)))

    parts = part(IndexStatus(8, 60_000, None, "ivf")), part(IndexStatus(7, 40, "missing", "exact"))
    stages = RemoteStages(None, parts, None, Metrics("test"))  # type: ignore[arg-type]
    assert asyncio.run(stages.status()) == IndexStatus(7, 40, "missing", "exact")


@pytest.mark.parametrize(("setting", "rows", "method"), [("auto", 50_000, "exact"), ("auto", 1, "ivf")])
def test_the_status_of_a_searcher_resolves_its_method(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, setting: Any, rows: int, method: str
) -> None:
    monkeypatch.setattr("storage.search.index_partition.EXACT_ROWS", rows)
    store = make_store(tmp_path / "store", ["a", "b"])
    worker = SearchWorker(IndexPartition(store.uri, method=setting))
    try:
        assert worker.status == IndexStatus(store.version, 2, None, method)
    finally:
        asyncio.run(worker.close())
