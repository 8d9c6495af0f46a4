"""One orchestration of a query's stages, for the engine and for the service."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import Any

import pytest

from serving.answer import QueryResult
from serving.engine import QueryEngine
from serving.gallery import Gallery
from serving.metrics import Metrics
from serving.places.places import Places
from serving.places.rerank_rule import RerankRule
from serving.priors.soft_prior import SoftPrior
from serving.query import STAGES, Query, QueryOptions
from serving.service import Service
from serving.settings import read_settings
from serving.stages.extract import open_extract_worker
from serving.stages.local import LocalStages
from serving.stages.rerank import open_rerank_worker
from serving.stages.search import open_search_worker
from storage.position import Position
from storage.records import Candidate, ImageRecord
from storage.search.filters import Heading, Near
from storage.search.partition import WHOLE_INDEX
from storage.store import Store
from tests.serving.places.test_calibration import CARD, FakeStore, calibration
from tests.serving.places.test_position import street
from tests.support.city_store import CityStore

FAR = SoftPrior(48.0, 11.0, 100.0)
QUERIES: list[dict[str, Any]] = [
    {"top_k": 5, "candidates": 100, "rerank": True},
    {"top_k": 30, "candidates": 10, "rerank": True},
    {"top_k": 3, "candidates": 7, "rerank": True},
    {"top_k": 1, "candidates": 1, "rerank": True},
    {"top_k": 25, "candidates": 100, "rerank": True},
    {"top_k": 100, "candidates": 1, "rerank": False},
    {"top_k": 4, "candidates": 9, "rerank": True, "within": Heading(90.0, 80.0), "prior": FAR},
    {"top_k": 4, "candidates": 9, "rerank": False, "within": Near(0.0, 0.0, 5.0), "prior": FAR},
]


def hits(count: int) -> list[Candidate]:
    def record(i: int) -> ImageRecord:
        return ImageRecord(f"p{i}", "", "", 1, 1, Position(), None, None, "s", i)

    return [Candidate(record(i), 1 - i / 100) for i in range(count)]


def query(*, partial: bool = False, **options: Any) -> Query:
    return Query(QueryOptions(**options), model="m", partial=partial)


def test_hits_wanted_cover_what_is_listed_and_what_is_matched() -> None:
    assert query(top_k=5, candidates=100).k == 100
    assert query(top_k=50, candidates=10).k == 50
    assert query(top_k=5, candidates=100, rerank=False).k == 5
    assert query(top_k=5, candidates=100, prior=FAR).k == 400


def test_candidates_are_the_first_hits_and_none_without_reranking() -> None:
    first = query(candidates=3).searched(hits(10), version=1, degraded=False)
    assert [record.image_id for record in first] == ["p0", "p1", "p2"]
    assert query(candidates=3, rerank=False).searched(hits(10), version=1, degraded=False) == []
    assert query().searched([], version=1, degraded=False) == []


@pytest.mark.parametrize(
    ("left_out", "counts", "degraded"),
    [(False, [1, 2], False), (True, [1, 2], True), (False, [1, None], True)],
)
def test_answer_is_degraded_where_rows_or_features_were_left_out(
    left_out: bool, counts: list[int | None], degraded: bool
) -> None:
    current = query(top_k=2)
    current.searched(hits(2), version=7, degraded=left_out)
    current.counted(counts)
    assert current.result().degraded is degraded
    assert current.result().store_version == 7


def test_reranked_is_told_where_candidates_may_be_skipped() -> None:
    for partial, expected in ((False, None), (True, 2)):
        current = query(partial=partial)
        current.searched(hits(9), version=1, degraded=False)
        current.counted([4, 5])
        assert current.result().reranked == expected


def test_times_of_a_stage_add_up_and_total_comes_last() -> None:
    current = query()
    for _ in range(2):
        with current.timed("fetch"):
            pass
    once = current.timings_ms["fetch"]
    assert once > 0
    assert list(current.result().timings_ms) == [*STAGES, "total"]
    assert current.result(total_ms=3.0).timings_ms == {**current.timings_ms, "total": 3.0}


def test_options_below_one_are_refused() -> None:
    for wrong in ({"top_k": 0}, {"candidates": 0}):
        with pytest.raises(ValueError, match="at least 1"):
            QueryOptions(**wrong)


BLEND = RerankRule("all", blend=5.0)


def calibrated_query(rule: RerankRule, **options: Any) -> tuple[Query, list[Candidate]]:
    """A query of a calibrated store that was searched: two images of one street, then two of another."""
    store = FakeStore(calibration(rerank=rule).to_dict())
    asked = QueryOptions(candidates=100, top_k=4, rerank="auto", **options)
    made = Query(asked, model="m", partial=False, places=Places(store))
    offsets_m, similarity = [0.0, 10.0, 300.0, 310.0], [0.9, 0.7, 0.6, 0.5]
    found = [
        Candidate(match.record, value)  # type: ignore[arg-type]
        for match, value in zip(street((48.2, 16.37), offsets_m, [None] * 4), similarity, strict=True)
    ]
    return made, made.searched(
        found,
        version=1,
        degraded=False,
        card=CARD,
        rows=1000,
        precision="float32",
        search_method="exact",
    )


def blended_answer(rule: RerankRule, votes: list[float], **options: Any) -> QueryResult:
    current, records = calibrated_query(rule, **options)
    assert len(records) == 4
    current.counted([9, 9, 9, 9], votes, "votes")
    return current.result()


def test_a_blend_decides_the_order_and_nothing_else() -> None:
    votes = [30.0, 10.0, 12.0, 11.0]
    plain, mixed = (blended_answer(rule, votes) for rule in (RerankRule("all"), BLEND))
    assert [match.score for match in plain.matches] == [30.0, 12.0, 11.0, 10.0]
    assert [match.score for match in mixed.matches] == votes  # ordered by similarity, above all
    assert mixed.place == plain.place  # with probability, known, radius and evidence
    assert mixed.place["probability_right"] is not None
    assert (plain.calibration or {})["guaranteed"] is True
    assert ((mixed.calibration or {})["valid"], (mixed.calibration or {})["guaranteed"]) == (True, False)


def test_the_place_is_that_of_the_first_answer_of_a_blend() -> None:
    votes = [10.0, 8.0, 12.0, 9.0]
    plain, mixed = (blended_answer(rule, votes) for rule in (RerankRule("all"), BLEND))
    assert (plain.matches[0].record.image_id, mixed.matches[0].record.image_id) == ("image-3", "image-1")
    assert (plain.place["evidence"][0], mixed.place["evidence"][0]) == ("image-3", "image-1")


def test_a_prior_weighs_raw_scores_under_a_blend() -> None:
    votes = [30.0, 10.0, 12.0, 11.0]
    mixed = blended_answer(BLEND, votes, prior=SoftPrior(48.2, 16.37, 100.0))
    weighed = {match.record.image_id: (match.score, match.prior_weight) for match in mixed.matches}
    for number, vote in enumerate(votes, start=1):
        score, weight = weighed[f"image-{number}"]
        assert weight is not None
        assert score == pytest.approx(vote * weight)
    assert min(match.score or 0.0 for match in mixed.matches) > 0


def test_unreadable_features_keep_their_rank_under_a_blend() -> None:
    current, _ = calibrated_query(BLEND)
    current.counted([None, 9, 9, 9], [None, 10.0, 12.0, 11.0], "votes")
    answer = current.result()
    assert [match.record.image_id for match in answer.matches] == [f"image-{rank}" for rank in (1, 2, 3, 4)]
    assert answer.matches[0].score is None


def test_a_query_that_the_rule_leaves_out_says_so() -> None:
    current, records = calibrated_query(RerankRule("none"))
    assert records == []
    answer = current.result()
    assert answer.calibration is not None
    assert (answer.place["probability_right"], answer.place["known"]) == (None, None)
    assert answer.calibration["valid"] is False
    assert "left this query" in answer.calibration["reason"]
    assert "not valid" not in answer.calibration["reason"]


def test_with_a_share_of_wrong_answers_every_query_is_re_ranked_by_its_scores() -> None:
    votes = [10.0, 8.0, 12.0, 9.0]
    answer = blended_answer(RerankRule("none", blend=5.0), votes, max_wrong=0.1)
    assert [match.score for match in answer.matches] == [12.0, 10.0, 9.0, 8.0]
    assert (answer.calibration or {})["guaranteed"] is True


async def answers_of_service(city_store: CityStore, photo: bytes, **options: Any) -> list[QueryResult]:
    settings = read_settings({"store": city_store.uri, "model_name": "efficientnet-lite0", **options})
    stages = LocalStages(
        open_extract_worker(settings), open_search_worker(settings, WHOLE_INDEX), open_rerank_worker(settings)
    )
    store = Store.open(city_store.uri)
    gallery = Gallery(store, refresh_s=60.0)
    service = Service(settings, stages, gallery, Metrics("test"), Places(store))
    try:
        return [await service.answer(photo, **each) for each in QUERIES]
    finally:
        await stages.close()


@pytest.mark.parametrize(
    "options",
    [
        {},
        pytest.param({"stop_early": True}, marks=pytest.mark.long),
        {"stop_early": True, "rerank_budget_ms": 0},
    ],
    ids=str,
)
def test_service_answers_as_the_engine_does(city_store: CityStore, options: dict[str, Any]) -> None:
    photo = city_store.database[7].read_bytes()  # one that stands out, so that matching does end early
    settings = read_settings({"store": city_store.uri, **options})
    engine = QueryEngine.open(city_store.uri, matching=settings.matching_options)
    expected = [engine.answer(photo, **each) for each in QUERIES]

    answers = asyncio.run(answers_of_service(city_store, photo, **options))

    for answer, same in zip(answers, expected, strict=True):
        assert list(answer.timings_ms) == list(same.timings_ms)
        # The number of threads may move the last bits of a similarity.
        assert replace(answer, timings_ms={}).to_dict() == replace(same, timings_ms={}).to_dict()
