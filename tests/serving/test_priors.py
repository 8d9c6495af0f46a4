"""Filters and priors in the engine: what is left, how it ranks, and what is said about its place."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import pytest

from serving.answer import QueryResult, unknown_place
from serving.engine import QueryEngine
from serving.priors.errors import TagsNotKept, require_tags
from serving.priors.soft_prior import ELSEWHERE, SoftPrior
from serving.query import Query, QueryOptions
from storage.position import Position
from storage.records import Candidate, ImageRecord
from storage.search.filters import Near, Tagged, all_of
from tests.support.city_store import CityStore
from tests.support.store_samples import make_card


@pytest.fixture(scope="module")
def engine(city_store: CityStore) -> QueryEngine:
    return QueryEngine.open(city_store.uri)


@pytest.fixture(scope="module")
def photo(city_store: CityStore) -> Path:
    return city_store.queries[0]


@pytest.fixture(scope="module")
def unfiltered(engine: QueryEngine, photo: Path) -> QueryResult:
    return engine.answer(photo, top_k=48, candidates=48)


def somewhere(answer: QueryResult, rank: int) -> tuple[float, float]:
    position = answer.matches[rank - 1].record.position
    assert position.lat is not None
    assert position.lon is not None
    return position.lat, position.lon


def test_a_filter_leaves_the_places_that_pass_it_in_their_order(
    engine: QueryEngine, photo: Path, unfiltered: QueryResult
) -> None:
    centre = somewhere(unfiltered, 30)
    whole = engine.answer(photo, top_k=48, rerank=False)
    answer = engine.answer(photo, top_k=48, rerank=False, within=Near(*centre, 60.0))
    inside = [
        match.record.image_id
        for match in whole.matches
        if (match.record.position.distance_m(Position(*centre)) or 0.0) <= 60.0
    ]
    assert 1 < len(inside) < 48
    assert [match.record.image_id for match in answer.matches] == inside
    assert answer.considered == len(inside)
    assert answer.to_dict()["considered"] == len(inside)
    assert unfiltered.considered is None
    assert "considered" not in unfiltered.to_dict()
    assert f"{len(inside)} considered" in repr(answer)
    reranked = engine.answer(photo, top_k=48, candidates=48, within=Near(*centre, 60.0))
    assert sorted(match.record.image_id for match in reranked.matches) == sorted(inside)


def test_a_filter_that_leaves_nothing_gives_an_answer_without_places(
    engine: QueryEngine, photo: Path
) -> None:
    answer = engine.answer(photo, within=Near(0.0, 0.0, 10.0))
    assert (answer.matches, answer.considered, answer.place) == ((), 0, unknown_place())
    assert QueryResult.from_dict(json.loads(json.dumps(answer.to_dict()))).considered == 0
    assert engine.answer(photo, within=Tagged("night")).considered == 0


def test_many_photos_are_narrowed_alike(
    engine: QueryEngine, city_store: CityStore, unfiltered: QueryResult
) -> None:
    centre = somewhere(unfiltered, 5)
    asked = {"within": Near(*centre, 80.0), "prior": SoftPrior(*centre, 40.0), "candidates": 10}
    photos = city_store.queries[:3]
    many = list(engine.answer_many(photos, **asked))  # type: ignore[arg-type]
    for photo, answer in zip(photos, many, strict=True):
        assert isinstance(answer, QueryResult)
        one = engine.answer(photo, **asked)  # type: ignore[arg-type]
        assert [match.record.image_id for match in answer.matches] == [m.record.image_id for m in one.matches]
        assert answer.considered == one.considered


@pytest.mark.parametrize("rerank", [True, False])
def test_a_prior_leaves_nothing_out_and_says_what_it_gave(
    engine: QueryEngine, photo: Path, unfiltered: QueryResult, rerank: bool
) -> None:
    centre = somewhere(unfiltered, 48)
    answer = engine.answer(photo, top_k=48, candidates=48, rerank=rerank, prior=SoftPrior(*centre, 30.0))
    assert {m.record.image_id for m in answer.matches} == {m.record.image_id for m in unfiltered.matches}
    weights = [match.prior_weight for match in answer.matches]
    assert all(weight is not None and ELSEWHERE <= weight <= 1 for weight in weights)
    assert answer.to_dict()["matches"][0]["prior_weight"] == pytest.approx(weights[0], abs=1e-4)
    last = next(m for m in answer.matches if m.record.image_id == unfiltered.matches[-1].record.image_id)
    assert last.prior_weight == pytest.approx(1.0)
    assert last.rank < 48
    plain = {match.record.image_id: match for match in unfiltered.matches}
    for match in answer.matches:
        assert match.similarity == pytest.approx(plain[match.record.image_id].similarity)
    if rerank:  # votes depend on the order of the candidates, counts do not
        assert all(m.mutual_matches == plain[m.record.image_id].mutual_matches for m in answer.matches)
        scores = [match.score or 0.0 for match in answer.matches]
        assert scores == sorted(scores, reverse=True)


def test_scores_are_multiplied_by_the_weights_and_what_was_not_matched_stays_behind() -> None:
    spots = [Position(lat=0.0, lon=0.0), Position(lat=10.0, lon=0.0), Position()]
    hits = [
        Candidate(ImageRecord(str(i), "", "", 1, 1, spot, None, None, "s", i), 0.9 - i / 100)
        for i, spot in enumerate(spots)
    ]
    query = Query(QueryOptions(prior=SoftPrior(10.0, 0.0, 50.0)), model="m", partial=False)
    records = query.searched(hits, version=1, degraded=False)
    assert [record.image_id for record in records] == ["1", "0", "2"]
    query.counted([10, 20, None], [10.0, 20.0, None], "votes")
    matches = query.result().matches
    assert [(m.record.image_id, m.score) for m in matches] == [
        ("1", 10.0),
        ("0", 20.0 * ELSEWHERE),
        ("2", None),
    ]


def test_a_prior_at_the_place_keeps_the_place_and_one_far_away_too(
    engine: QueryEngine, photo: Path, unfiltered: QueryResult
) -> None:
    best = unfiltered.matches[0].record
    for prior in (SoftPrior(*somewhere(unfiltered, 1), 50.0), SoftPrior(-40.0, 170.0, 10.0)):
        answer = engine.answer(photo, candidates=48, prior=prior)
        assert answer.matches[0].record.image_id == best.image_id
        assert answer.place["position"] is not None


def test_known_is_no_guarantee_where_the_search_was_narrowed() -> None:
    card = make_card()
    for options, narrowed in (
        (QueryOptions(), False),
        (QueryOptions(within=Near(0.0, 0.0, 1.0)), True),
        (QueryOptions(prior=SoftPrior(0.0, 0.0, 1.0)), True),
    ):
        query = Query(options, model="m", partial=False)
        assert query._asked_of(card, 1, "float32", rerank=True).narrowed is narrowed


def test_tags_are_not_asked_of_a_store_whose_format_has_none() -> None:
    old = dataclasses.replace(make_card(), format_version=2)
    filters = (Tagged("night"), all_of([Near(0.0, 0.0, 1.0), Tagged("night")]))
    for within in filters:
        with pytest.raises(TagsNotKept, match="placeray upgrade") as refused:
            require_tags(old, within)
        assert (refused.value.exit_code, refused.value.http_status) == (5, 409)
    require_tags(old, Near(0.0, 0.0, 1.0))
    require_tags(old, None)
    require_tags(old.upgraded(), filters[0])
