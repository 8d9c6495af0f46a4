"""The options of matching: what they leave out, and that the first answer stays the first."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from models.images.decoder import decode_image
from models.matching import cpu_products
from serving.counting import CandidateMatcher
from serving.engine import QueryEngine
from serving.matching_options import ALL_EXACTLY, BadMatching, Matching, matching_of
from serving.reranking import match_in_turn
from serving.settings import read_settings
from serving.stages.messages import Counted
from serving.stages.rerank import RerankWorker, open_rerank_worker
from storage.card import FeatureEncoding
from storage.position import Position
from storage.records import ImageRecord
from tests.support.city_store import CityStore
from tests.support.encoded_features import make_encoded_store
from tests.support.http_client import ask
from tests.support.service_server import running_service

ROWS = 48
OPTIONS = [
    Matching(precision="fast"),
    Matching(stop_early=True),
    Matching(precision="fast", stop_early=True, budget_ms=60_000),
]


@pytest.fixture(scope="module")
def engine(city_store: CityStore) -> QueryEngine:
    return QueryEngine.open(city_store.uri)


@pytest.fixture
def round_everything(monkeypatch: pytest.MonkeyPatch) -> None:
    """Small maps are not worth rounding; round the default model's all the same."""
    monkeypatch.setattr(cpu_products, "_INT8_FROM", 0)


def with_options(engine: QueryEngine, matching: Matching) -> QueryEngine:
    return QueryEngine(engine.store, engine.extractor, matching=matching)


def bytes_of(engine: QueryEngine, photo: bytes, **options: Any) -> bytes:
    """An answer as it is sent, without its times."""
    return json.dumps(replace(engine.answer(photo, **options), timings_ms={}).to_dict()).encode()


def named(number: int) -> ImageRecord:
    return ImageRecord(f"p{number}", "", "", 1, 1, Position(), None, None, "s", number)


class Fetches:
    """Counts the records that are fetched, block by block."""

    def __init__(self, engine: QueryEngine, monkeypatch: pytest.MonkeyPatch) -> None:
        self.blocks: list[int] = []
        self._fetch = engine.store.fetch
        monkeypatch.setattr(engine.store, "fetch", self)

    def __call__(self, records: Sequence[ImageRecord]) -> Any:
        self.blocks.append(len(records))
        return self._fetch(records)


def test_exact_mode_answers_byte_by_byte_as_without_options(
    engine: QueryEngine, city_store: CityStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    fetches = Fetches(engine, monkeypatch)
    explicit = with_options(engine, Matching(precision="exact", stop_early=False, budget_ms=None))
    for path in city_store.queries[:3]:
        default = bytes_of(engine, path.read_bytes(), top_k=30)
        assert bytes_of(explicit, path.read_bytes(), top_k=30) == default
        assert b"reranked" not in default
        assert json.loads(default)["matches"][29]["mutual_matches"] is not None
    assert fetches.blocks == [ROWS] * 6


@pytest.mark.usefixtures("round_everything")
@pytest.mark.parametrize("matching", OPTIONS, ids=str)
def test_options_keep_the_first_answer_and_its_count(
    engine: QueryEngine, city_store: CityStore, matching: Matching
) -> None:
    quick = with_options(engine, matching)
    for path in [*city_store.queries, *city_store.database[:4]]:
        expected = engine.answer(path.read_bytes(), top_k=1).matches[0]
        assert quick.answer(path.read_bytes(), top_k=1).matches[0] == expected


@pytest.mark.usefixtures("round_everything")
def test_fast_answers_every_candidate_with_counts_near_the_exact(
    engine: QueryEngine, city_store: CityStore
) -> None:
    photo = city_store.queries[0].read_bytes()
    exact, fast = (
        {match.record.image_id: match.mutual_matches for match in each.answer(photo, top_k=ROWS).matches}
        for each in (engine, with_options(engine, Matching(precision="fast")))
    )
    assert exact.keys() == fast.keys()
    counts = np.array([[exact[name], fast[name]] for name in exact], float)
    assert np.abs(counts[:, 0] - counts[:, 1]).max() < 10
    if cpu_products.int8_available():
        assert (counts[:, 0] != counts[:, 1]).any()  # the option does reach the matching


def test_stop_early_reads_and_matches_fewer_where_one_clearly_leads(
    engine: QueryEngine, city_store: CityStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    fetches = Fetches(engine, monkeypatch)
    photo = city_store.database[7].read_bytes()  # its own image has nearly every cell matched
    by_similarity = [
        match.record.image_id for match in engine.answer(photo, top_k=ROWS, rerank=False).matches
    ]

    result = with_options(engine, Matching(stop_early=True)).answer(photo, top_k=ROWS, min_candidates=5)

    assert result.reranked == 20
    assert fetches.blocks == [10, 10]
    assert result.matches[0].record.image_id == city_store.database[7].name
    assert [match.mutual_matches is not None for match in result.matches] == [True] * 20 + [False] * 28
    assert [match.record.image_id for match in result.matches[20:]] == by_similarity[20:]
    assert not result.degraded
    assert result.to_dict()["reranked"] == 20


def test_stop_early_matches_at_least_what_is_listed(engine: QueryEngine, city_store: CityStore) -> None:
    quick = with_options(engine, Matching(stop_early=True))
    photo = city_store.database[7].read_bytes()
    assert [quick.answer(photo, top_k=k).reranked for k in (1, 20, 21, 35, 100)] == [20, 20, 30, 40, 48]
    assert quick.answer(photo, candidates=12).reranked == 12
    assert quick.answer(photo, rerank=False).reranked == 0


def test_no_budget_at_all_still_matches_one_block(engine: QueryEngine, city_store: CityStore) -> None:
    photo = city_store.queries[2].read_bytes()
    expected = engine.answer(photo, top_k=10, candidates=10).matches
    for budget_ms in (0.0, 1e-6):
        result = with_options(engine, Matching(budget_ms=budget_ms)).answer(photo, top_k=12)
        assert result.reranked == 10
        assert result.matches[:10] == expected
        assert [match.mutual_matches for match in result.matches[10:]] == [None, None]
    assert with_options(engine, Matching(budget_ms=3_600_000)).answer(photo).reranked == ROWS


def test_match_in_turn_of_an_unreadable_candidate_counts_on() -> None:
    records = [named(i) for i in range(45)]
    counts = {f"p{i}": 3 for i in range(45)} | {"p2": None, "p11": 90}

    def match(some: Sequence[ImageRecord]) -> list[int | None]:
        return [counts[record.image_id] for record in some]

    matched = match_in_turn(records, match, Matching(stop_early=True), min_candidates=1)
    assert matched == [counts[record.image_id] for record in records[:20]]
    assert match_in_turn(records, match, ALL_EXACTLY, min_candidates=1) == list(counts.values())
    assert match_in_turn([], match, Matching(budget_ms=0), min_candidates=1) == []


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"precision": "quick"}, 'choose "exact" or "fast"'),
        ({"budget_ms": -1.0}, "from 0 up"),
        ({"budget_ms": float("nan")}, "from 0 up"),
        ({"budget_ms": float("inf")}, "from 0 up"),
    ],
)
def test_matching_out_of_bounds_is_named(options: dict[str, Any], message: str) -> None:
    with pytest.raises(BadMatching, match=message):
        Matching(**options)


def test_matching_of_flags_and_settings_reads_their_names() -> None:
    assert matching_of({"top_k": 5}) == ALL_EXACTLY
    flags = {"matching": "fast", "stop_early": True, "rerank_budget_ms": 7.5}
    assert matching_of(flags) == Matching(precision="fast", stop_early=True, budget_ms=7.5)
    assert str(matching_of(flags)) == "fast, stopping early, 7.5 ms per query"
    assert read_settings({"store": "s", **flags}).matching_options == matching_of(flags)
    assert str(ALL_EXACTLY) == ""


async def counted_together(worker: RerankWorker, queries: list[tuple[Any, Any]]) -> list[Counted]:
    try:
        return list(await asyncio.gather(*(worker.count(*each, timeout_s=60) for each in queries)))
    finally:
        await worker.close()


@pytest.mark.parametrize("options", [{}, {"stop_early": True}, {"rerank_budget_ms": 0}], ids=str)
def test_worker_counts_a_batch_as_the_engine_one_by_one(
    engine: QueryEngine, city_store: CityStore, options: dict[str, Any]
) -> None:
    photos = [path.read_bytes() for path in [*city_store.queries[:5], city_store.database[7]]]
    queries = []
    for photo in photos:
        descriptors, features = engine.extractor.extract([decode_image(photo).pixels])
        queries.append((features[0], [hit.record for hit in engine.store.search(descriptors, k=ROWS)[0]]))
    settings = read_settings({"store": city_store.uri, **options})
    alone = with_options(engine, matching_of(options))

    counted = asyncio.run(counted_together(open_rerank_worker(settings), queries))

    for (_, records), photo, reply in zip(queries, photos, counted, strict=True):
        result = alone.answer(photo, top_k=ROWS, min_candidates=1)
        expected = {match.record.image_id: match for match in result.matches}
        answered = [expected[record.image_id] for record in records[: len(reply.counts)]]
        assert reply.counts == [match.mutual_matches for match in answered]
        assert reply.scores == [match.score for match in answered]
        assert reply.score_kind == "votes"
        assert len(reply.counts) == (ROWS if result.reranked is None else result.reranked)
    assert max(reply.batch for reply in counted) > 1
    if options:  # each reply tells of its own fetches only
        assert all(reply.cache_hits + reply.cache_misses == len(reply.counts) for reply in counted)


@pytest.mark.usefixtures("round_everything")
def test_service_with_options_tells_how_many_were_matched(engine: QueryEngine, city_store: CityStore) -> None:
    quick = with_options(engine, Matching(precision="fast", stop_early=True))
    with running_service(city_store.uri, matching="fast", stop_early=True) as service:
        for path in (city_store.database[7], *city_store.queries[:2]):
            photo = path.read_bytes()
            response = ask(f"{service.url}/v1/query", "POST", body=photo, kind="image/jpeg", top_k=3).json()
            expected = quick.answer(photo, top_k=3).to_dict()
            assert response["reranked"] == expected["reranked"]
            assert response["matches"] == expected["matches"]
            assert response["matches"][0] == engine.answer(photo).to_dict()["matches"][0]
        response = ask(f"{service.url}/openapi.json").json()["components"]["schemas"]["QueryAnswer"]
    assert "reranked" in response["properties"]
    assert "reranked" not in response["required"]


@pytest.mark.parametrize("encoding", ["float16", "int4", "int4-pca64", "binary"])
def test_worker_on_an_accelerator_counts_once_before_it_is_asked(
    encoding: FeatureEncoding, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store, matched = make_encoded_store(tmp_path / "s", encoding), []

    class OnCpu(CandidateMatcher):
        def __init__(self, *arguments: Any, device: torch.device, **options: Any) -> None:
            matched.append(device.type)
            super().__init__(*arguments, device="cpu", **options)

    monkeypatch.setattr("serving.stages.rerank.CandidateMatcher", OnCpu)
    for score in ("votes", "count"):
        for device in ("cpu", "cuda"):
            matching = Matching(score=score)
            RerankWorker(store.uri, store.card, device=device, matching=matching).warm_up()
    assert matched == ["cuda", "cuda"]


def test_worker_on_a_cpu_keeps_freed_memory(city_store: CityStore, monkeypatch: pytest.MonkeyPatch) -> None:
    calls_made: list[bool] = []
    monkeypatch.setattr("serving.stages.rerank.keep_freed_memory", lambda: calls_made.append(True))
    for device, calls in (("cuda", 0), ("cpu", 1)):
        monkeypatch.setattr("serving.stages.rerank.best_device", lambda device=device: torch.device(device))
        monkeypatch.setattr(RerankWorker, "warm_up", lambda _: None)
        open_rerank_worker(read_settings({"store": city_store.uri}))
        assert len(calls_made) == calls
