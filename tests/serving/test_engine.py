"""The query engine on a real store and the real default model."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from PIL import Image

from models.extractor import Extractor
from models.feature_encoder import FeatureEncoder
from models.images import ImageRejected, decode_image
from models.matching.mutual import mutual_neighbours, mutual_nn_count
from models.weights import load_extractor
from serving.answer import QueryResult, rank
from serving.engine import QueryEngine
from serving.matching_options import ALL_EXACTLY, Matching
from storage.card import Card
from storage.errors import CardMismatch
from storage.features.shards import write_shard
from storage.position import Position
from storage.records import Candidate, ImageRecord
from storage.store import Store
from storage.table.schema import row_schema
from tests.support.pictures import photo
from tests.support.plain_votes import plain_votes

COUNT = 12


@pytest.fixture(scope="module")
def extractor() -> Extractor:
    return load_extractor("efficientnet-lite0")


@pytest.fixture(scope="module")
def store(extractor: Extractor, tmp_path_factory: pytest.TempPathFactory) -> Store:
    folder = str(tmp_path_factory.mktemp("engine") / "store")
    return fill(folder, extractor, range(COUNT))


def fill(folder: str, extractor: Extractor, seeds: range) -> Store:
    store = Store.create(folder, extractor.card)
    images = [decode_image(photo(seed)).pixels for seed in seeds]
    descriptors, features = extractor.extract(images)
    ids = [f"p{seed:02d}" for seed in seeds]
    shard = write_shard(store.uri, ids, FeatureEncoder(store.codec).encode(features))
    schema = row_schema(extractor.card)
    values = {
        "image_id": ids,
        "uri": ids,
        "sha256": ["0" * 64] * len(ids),
        "width": [96] * len(ids),
        "height": [72] * len(ids),
        "utm_e": [500000.0 + 10 * seed for seed in seeds],
        "utm_n": [4e6] * len(ids),
        "descriptor": list(descriptors.astype(extractor.card.descriptor_dtype)),
        "shard": [shard] * len(ids),
        "row": list(range(len(ids))),
    }
    columns = [pa.array(values.get(field.name, [None] * len(ids)), field.type) for field in schema]
    with store.lease():
        store.commit(pa.Table.from_arrays(columns, schema=schema))
    return store


def record(image_id: str) -> ImageRecord:
    return ImageRecord(image_id, "", "", 1, 1, Position(), None, None, "s", 0)


def test_answer_stored_photo_comes_first_with_every_cell_matched(store: Store, extractor: Extractor) -> None:
    engine = QueryEngine(store, extractor)
    for seed in range(COUNT):
        result = engine.answer(photo(seed), top_k=3)
        best = result.matches[0]
        assert best.record.image_id == f"p{seed:02d}"
        assert best.similarity == pytest.approx(1.0, abs=2e-3)
        assert best.mutual_matches is not None
        assert best.mutual_matches > 0.8 * 14 * 14
        assert [match.rank for match in result.matches] == [1, 2, 3]
        assert result.store_version == store.version
        assert not result.degraded
        parts = sum(ms for name, ms in result.timings_ms.items() if name != "total")
        assert 0 < parts <= result.timings_ms["total"]


def test_answer_order_is_that_of_counts_computed_by_hand(store: Store, extractor: Extractor) -> None:
    query = photo(77)
    pixels = decode_image(query).pixels
    descriptors, features = extractor.extract([pixels])
    hits = store.search(descriptors, k=6)[0]
    stored, _ = store.fetch([hit.record for hit in hits])
    counts = mutual_nn_count(features[0], stored, min_similarity=0.6).tolist()
    expected = sorted(zip(hits, counts, strict=True), key=lambda pair: (-pair[1], -pair[0].similarity))

    engine = QueryEngine(store, extractor, matching=Matching(score="count"))
    matches = engine.answer(query, top_k=6, candidates=6).matches

    assert [match.record.image_id for match in matches] == [hit.record.image_id for hit, _ in expected]
    assert [match.mutual_matches for match in matches] == [count for _, count in expected]
    assert [match.score for match in matches] == [float(count) for _, count in expected]
    assert {match.score_kind for match in matches} == {"count"}


def test_answer_order_is_that_of_votes_computed_by_hand(store: Store, extractor: Extractor) -> None:
    query = photo(77)
    descriptors, features = extractor.extract([decode_image(query).pixels])
    hits = store.search(descriptors, k=6)[0]
    stored, _ = store.fetch([hit.record for hit in hits])
    counts = mutual_nn_count(features[0], stored, min_similarity=0.6).tolist()
    partner, similarity = mutual_neighbours(features[0], stored)
    votes = plain_votes(partner.numpy(), similarity.numpy(), (14, 14))
    order = sorted(range(6), key=lambda i: (-votes[i], i))

    matches = QueryEngine(store, extractor).answer(query, top_k=6, candidates=6).matches

    assert [match.record.image_id for match in matches] == [hits[i].record.image_id for i in order]
    assert [match.score for match in matches] == [votes[i] for i in order]
    assert [match.mutual_matches for match in matches] == [counts[i] for i in order]
    assert {match.score_kind for match in matches} == {"votes"}


def test_answer_without_rerank_keeps_similarity_order(store: Store, extractor: Extractor) -> None:
    result = QueryEngine(store, extractor).answer(photo(77), top_k=COUNT, rerank=False)
    similarities = [match.similarity for match in result.matches]
    assert similarities == sorted(similarities, reverse=True)
    assert len(similarities) == COUNT
    assert {match.mutual_matches for match in result.matches} == {None}
    assert result.timings_ms["rerank"] == 0.0


def test_answer_beyond_the_candidates_is_listed_unranked(store: Store, extractor: Extractor) -> None:
    matches = QueryEngine(store, extractor).answer(photo(77), top_k=6, candidates=2).matches
    assert [match.mutual_matches is None for match in matches] == [False] * 2 + [True] * 4


def test_answer_lost_features_degrade_but_answer(extractor: Extractor, tmp_path: Path) -> None:
    store = fill(str(tmp_path / "store"), extractor, range(4))
    for shard in (tmp_path / "store" / "features").iterdir():
        shard.unlink()
    result = QueryEngine(Store.open(store.uri), extractor).answer(photo(2), top_k=4)
    assert result.degraded
    assert result.matches[0].record.image_id == "p02"
    assert result.matches[0].mutual_matches is None


def test_answer_bad_input_is_named(store: Store, extractor: Extractor) -> None:
    engine = QueryEngine(store, extractor)
    with pytest.raises(ImageRejected) as caught:
        engine.answer(b"no image")
    assert caught.value.reason == "not_an_image"
    with pytest.raises(ValueError, match="at least 1"):
        engine.answer(photo(1), top_k=0)


def test_engine_other_model_is_refused(store: Store, extractor: Extractor) -> None:
    class Other:
        card: Card = dataclasses.replace(extractor.card, weights_sha256="f" * 64)

    with pytest.raises(CardMismatch, match="weights_sha256"):
        QueryEngine(store, Other())  # type: ignore[arg-type]


def test_matched_points_same_photo_match_in_place(store: Store, extractor: Extractor) -> None:
    engine = QueryEngine(store, extractor)
    (stored,) = store.get(["p05"])
    left, right, similarity = engine.matched_points(photo(5), stored)
    assert len(left) == len(right) == len(similarity) > 150
    assert np.mean(np.all(left == right, axis=1)) > 0.95
    assert left.min() > 0
    assert left.max() < 1


def test_matched_points_of_an_answer_in_json_are_those_of_the_engine_s(
    store: Store, extractor: Extractor
) -> None:
    engine = QueryEngine(store, extractor)
    result = engine.answer(photo(77), top_k=1)
    rebuilt = QueryResult.from_dict(result.to_dict())
    expected = engine.matched_points(photo(77), result.matches[0].record)
    points = engine.matched_points(photo(77), rebuilt.matches[0].record)
    assert all(np.array_equal(a, b) for a, b in zip(points, expected, strict=True))
    with pytest.raises(KeyError, match="no image 'other'"):
        engine.matched_points(photo(77), dataclasses.replace(rebuilt.matches[0].record, image_id="other"))


def test_rank_unreadable_candidate_keeps_its_place_and_ties_keep_similarity() -> None:
    hits = [Candidate(record(name), 1.0 - i / 10) for i, name in enumerate("abcde")]
    ranked = rank(hits, [3, None, 9, 3, None])
    assert [match.record.image_id for match in ranked] == ["c", "b", "a", "d", "e"]
    assert [match.rank for match in ranked] == [1, 2, 3, 4, 5]
    assert [match.mutual_matches for match in ranked] == [9, None, 3, 3, None]


def test_answer_json_has_the_contract_s_fields(store: Store, extractor: Extractor) -> None:
    answer = QueryEngine(store, extractor).answer(photo(1), top_k=1).to_dict()
    assert answer.keys() == {
        "model",
        "store_version",
        "degraded",
        "place",
        "calibration",
        "matches",
        "timings_ms",
    }
    assert answer["matches"][0].keys() == {
        *("rank", "image_id", "uri", "lat", "lon", "utm_e", "utm_n", "similarity", "mutual_matches"),
        *("score", "score_kind"),
    }
    assert answer["matches"][0]["utm_e"] == 500010.0
    assert answer["timings_ms"].keys() == {"decode", "extract", "search", "fetch", "rerank", "total"}


def without_times(result: QueryResult | ImageRejected) -> QueryResult:
    assert isinstance(result, QueryResult)
    return dataclasses.replace(result, timings_ms={})


def rounded(result: QueryResult | ImageRejected) -> dict[str, object]:
    return without_times(result).to_dict()


def test_answer_takes_bytes_paths_pictures_and_arrays(
    store: Store, extractor: Extractor, tmp_path: Path
) -> None:
    (tmp_path / "photo.jpg").write_bytes(photo(5))
    pixels = decode_image(photo(5)).pixels
    engine = QueryEngine(store, extractor)
    expected = without_times(engine.answer(photo(5)))
    forms = (tmp_path / "photo.jpg", str(tmp_path / "photo.jpg"), pixels, Image.fromarray(pixels))
    for form in forms:
        assert without_times(engine.answer(form)) == expected
    with pytest.raises(ImageRejected, match=r"gone\.jpg"):
        engine.answer(tmp_path / "gone.jpg")


@pytest.mark.parametrize("batch_size", [1, 3, 16])
@pytest.mark.parametrize("matching", [ALL_EXACTLY, Matching(stop_early=True)], ids=["all", "stop_early"])
def test_answer_many_gives_the_answers_of_answer(
    store: Store, extractor: Extractor, batch_size: int, matching: Matching
) -> None:
    engine = QueryEngine(store, extractor, matching=matching)
    photos = [photo(seed) for seed in (3, 77, 5, 78, 1, 79, 2)]
    options = {"top_k": 4, "candidates": 9}
    answers = list(engine.answer_many(photos, batch_size=batch_size, **options))
    for answer, each in zip(answers, photos, strict=True):
        assert rounded(answer) == rounded(engine.answer(each, **options))
        assert isinstance(answer, QueryResult)
        parts = [ms for name, ms in answer.timings_ms.items() if name != "total"]
        assert answer.timings_ms["total"] == pytest.approx(sum(parts))
        assert all(ms > 0 for ms in parts)


def test_answer_many_gives_errors_in_their_places(store: Store, extractor: Extractor, tmp_path: Path) -> None:
    engine = QueryEngine(store, extractor)
    photos = [b"no image", tmp_path / "gone.jpg", b"", photo(4), b"no image", photo(6)]
    for batch_size in (1, 3, 6):
        answers = list(engine.answer_many(photos, batch_size=batch_size))
        reasons = [answer.reason if isinstance(answer, ImageRejected) else None for answer in answers]
        assert reasons == ["not_an_image", "missing", "empty", None, "not_an_image", None]
        assert rounded(answers[3]) == rounded(engine.answer(photo(4)))


def test_answer_many_reads_little_ahead_and_may_be_left_early(store: Store, extractor: Extractor) -> None:
    taken: list[int] = []

    def endless() -> Iterator[bytes]:
        for seed in itertools.count():
            taken.append(seed)
            yield photo(seed % COUNT)

    answers = QueryEngine(store, extractor).answer_many(endless(), batch_size=2)
    for seed in range(3):
        assert rounded(next(answers)) == rounded(QueryEngine(store, extractor).answer(photo(seed)))
    answers.close()
    assert len(taken) <= 3 + 2 * 2
    assert list(QueryEngine(store, extractor).answer_many([])) == []


def test_answer_many_refuses_what_is_out_of_bounds_at_once(store: Store, extractor: Extractor) -> None:
    engine = QueryEngine(store, extractor)
    for wrong in ({"top_k": 0}, {"candidates": 0}, {"batch_size": 0}):
        with pytest.raises(ValueError, match=r"at least 1|1 or more"):
            engine.answer_many([], **wrong)
    with pytest.raises(TypeError, match="a photo cannot be"):
        list(engine.answer_many([42]))  # type: ignore[list-item]
