"""What candidates are ranked by: the default of each store, the option, and what is refused."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import pytest
import torch

from models.matching.mutual import mutual_nn_count
from models.matching.votes import vote_scores
from models.names import DEFAULT_MODEL
from serving.counting import CandidateMatcher, count_matches
from serving.lines import line_points
from serving.matching_options import BadMatching, Matching, default_candidates, matching_of
from serving.settings import InvalidSettings, read_settings
from storage.card import FEATURE_ENCODINGS, FeatureEncoding
from storage.features.reader import FeatureReader
from tests.support.encoded_features import ENCODED_IDS, make_encoded_store
from tests.support.store_samples import make_card


@pytest.mark.parametrize(
    ("model", "format_version", "expected"),
    [
        (DEFAULT_MODEL, 3, "votes"),
        (DEFAULT_MODEL, 2, "count"),
        (DEFAULT_MODEL, 1, "count"),
        ("efficientnet-lite0-adapted", 3, "count"),
        ("selavpr-vitl14", 3, "count"),
        ("selavpr-vitl14", 1, "count"),
    ],
)
def test_default_score_follows_model_and_format(model: str, format_version: int, expected: str) -> None:
    card = dataclasses.replace(make_card(), model=model, format_version=format_version)
    assert Matching().score_of(card) == expected
    assert Matching(score="votes").score_of(card) == "votes"
    assert Matching(score="count").score_of(card) == "count"
    for chosen in ("votes", "count"):
        assert Matching().score_of(dataclasses.replace(card, score=chosen)) == chosen


def test_fewer_candidates_are_matched_where_the_store_has_learned_its_descriptors() -> None:
    learned = make_card().stored_as("float16", aggregation_sha256="a" * 64, descriptor_dim=512)
    assert [default_candidates(card) for card in (make_card(), learned)] == [100, 50]


def test_other_scores_are_refused() -> None:
    with pytest.raises(BadMatching, match="score is 'best'"):
        matching_of({"score": "best"})
    with pytest.raises(InvalidSettings, match="score"):
        read_settings({"store": "s", "score": "best"})
    assert read_settings({"store": "s", "score": "votes"}).matching_options == Matching(score="votes")
    assert str(Matching(score="votes", stop_early=True)) == "ranked by votes, stopping early"


@pytest.mark.parametrize("encoding", FEATURE_ENCODINGS)
def test_every_encoding_votes_and_unreadable_candidates_have_no_score(
    encoding: FeatureEncoding, tmp_path: Any
) -> None:
    store = make_encoded_store(tmp_path / "s", encoding, ENCODED_IDS)
    codec = FeatureReader(tmp_path / "s", store.card).codec
    records = store.get(ENCODED_IDS)
    stored, ok = store.fetch(records)
    assert ok.all()
    assert len(records) == len(ENCODED_IDS)
    rng = np.random.default_rng(0)
    shape = (store.card.grid_height, store.card.grid_width, store.card.feature_dim)
    features = rng.standard_normal(shape).astype(np.float32)
    features /= np.linalg.norm(features, axis=-1, keepdims=True)
    options = {"codec": codec, "matching": Matching(score="votes")}

    whole = CandidateMatcher(features, store.card, **options)
    counts = whole.match(stored, ok)
    assert counts == count_matches(features, stored, ok, store.card, codec=codec)
    scores = whole.scores()
    assert all(0 <= score <= shape[0] * shape[1] for score in scores if score is not None)
    assert any(scores)

    blocks = CandidateMatcher(features, store.card, **options)
    for at in range(len(records)):
        blocks.match(stored[at : at + 1], ok[at : at + 1])
    assert blocks.scores() == scores

    readable = np.arange(len(records)) != 1
    partly = CandidateMatcher(features, store.card, **options)
    assert partly.match(stored, readable) == [None if i == 1 else count for i, count in enumerate(counts)]
    without = CandidateMatcher(features, store.card, **options)
    without.match(stored[readable], ok[readable])
    rest = iter(without.scores())
    assert partly.scores() == [next(rest) if usable else None for usable in readable]
    none = CandidateMatcher(features, store.card, **options)
    assert none.match(stored, np.zeros(len(records), bool)) == none.scores() == [None] * len(records)

    lines = line_points(features, stored[0], store.card, codec=codec, kind="votes")
    assert len(lines.agree) == len(lines.points) == len(lines.stored_points) == counts[0]
    assert line_points(features, stored[0], store.card, codec=codec).agree.all()


def test_selavpr_s_count_is_the_score_of_its_weights() -> None:
    rng = np.random.default_rng(1)
    card = dataclasses.replace(make_card(), model="selavpr-vitl14", min_similarity=None)
    stored = rng.standard_normal((3, card.grid_height, card.grid_width, card.feature_dim)).astype(np.float16)

    class Codec:
        binary = False

        def query(self, features: Any) -> Any:
            return features

    matcher = CandidateMatcher(stored[0].astype(np.float32), card, codec=Codec())  # type: ignore[arg-type]
    counts = matcher.match(stored, np.ones(3, bool))
    assert counts == mutual_nn_count(stored[0].astype(np.float32), stored).tolist()
    assert matcher.scores() == [float(count) for count in counts if count is not None]
    assert matcher.kind == "count"
    assert vote_scores(torch.zeros((0, 4), dtype=torch.int64), torch.zeros(0, 4), (2, 2)).tolist() == []
