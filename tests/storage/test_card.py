"""The card: round trip, comparison and validation."""

from __future__ import annotations

import dataclasses
import json

import pytest

from storage.card import FORMAT_VERSION, Card
from storage.errors import CardMismatch, CorruptStore
from tests.support.paths import GOLDEN
from tests.support.store_samples import make_card

OTHER = {
    "model": "other",
    "weights_sha256": "1" * 64,
    "preprocessing": dataclasses.replace(make_card().preprocessing, resize="tensor_bilinear"),
    "descriptor_dim": 17,
    "grid_height": 3,
    "grid_width": 3,
    "feature_dim": 5,
    "min_similarity": 0.6,
    "descriptor_dtype": "float32",
    "feature_dtype": "float32",
    "metric": "dot",
    "feature_encoding": "int4",
    "projection_sha256": "2" * 64,
    "aggregation_sha256": "3" * 64,
    "local_whitening_sha256": "4" * 64,
    "code_bits": 64,
    "feature_layer": 10,
    "feature_part": "value",
    "attended_share": 0.5,
    "aggregation": "learned",
    "score": "votes",
}
RARE = {"code_bits", "feature_layer", "feature_part", "attended_share"}
TRAINED = {"aggregation", "score"}
MODEL_PART = {
    *("model", "weights_sha256", "preprocessing", "descriptor_dim", "grid_height", "grid_width"),
    *("feature_dim", "feature_dtype", "metric", *RARE),
}
LEARNED = make_card().stored_as(
    "int4", aggregation_sha256="a" * 64, local_whitening_sha256="b" * 64, descriptor_dim=512
)


def test_card_json_round_trip_returns_an_equal_card() -> None:
    card = dataclasses.replace(make_card(), min_similarity=0.6)
    assert Card.from_json(card.to_json()) == card
    assert Card.from_json(make_card().to_json()).min_similarity is None


def test_card_require_same_compares_everything_but_the_format() -> None:
    card = make_card()
    newer = dataclasses.replace(card, format_version=card.format_version + 1)
    assert newer != card
    card.require_same(newer)
    with pytest.raises(CardMismatch, match="descriptor_dim"):
        card.require_same(dataclasses.replace(newer, descriptor_dim=17))


@pytest.mark.parametrize("name", sorted(OTHER))
def test_card_require_same_refuses_any_other_field_and_names_it(name: str) -> None:
    other = dataclasses.replace(make_card(), **{name: OTHER[name]})
    with pytest.raises(CardMismatch, match=name):
        make_card().require_same(other)


def test_card_fields_are_all_compared() -> None:
    assert {field.name for field in dataclasses.fields(Card)} == {*OTHER, "format_version"}
    assert set(OTHER) > MODEL_PART


def test_card_of_a_newer_format_asks_to_upgrade() -> None:
    values = json.loads(make_card().to_json()) | {"format_version": FORMAT_VERSION + 1, "a_new_field": 1}
    with pytest.raises(CardMismatch, match="upgrade"):
        Card.from_json(json.dumps(values))


@pytest.mark.parametrize("field", ["a_new_field", "\x1b[2J", "n" * 10_000])
@pytest.mark.parametrize("where", ["card", "preprocessing"])
def test_card_with_unknown_fields_is_of_a_newer_placeray(field: str, where: str) -> None:
    for card in (make_card(), make_card().stored_as("int4"), LEARNED):
        values = json.loads(card.to_json())
        (values if where == "card" else values["preprocessing"])[field] = None
        with pytest.raises(CardMismatch, match=r"made by a newer placeray.*upgrade") as caught:
            Card.from_json(json.dumps(values))
        assert caught.value.exit_code == 5
        assert str(caught.value).isprintable()
        assert len(str(caught.value)) < 300


def test_card_text_of_older_formats_has_no_later_fields() -> None:
    later = ["aggregation_sha256", "local_whitening_sha256"]
    encoding = ["feature_encoding", "projection_sha256"]
    plain_names = sorted({*OTHER, "format_version"} - {*later, *encoding, *RARE, *TRAINED})
    plain_card, encoded = (
        make_card(),
        dataclasses.replace(make_card(), format_version=2, feature_encoding="int4"),
    )
    assert list(json.loads(plain_card.to_json())) == plain_names
    assert list(json.loads(encoded.to_json())) == sorted([*plain_names, *encoding])
    assert list(json.loads(LEARNED.to_json())) == sorted({*OTHER, "format_version"} - RARE - TRAINED)
    assert Card.from_json(LEARNED.to_json()) == LEARNED
    full = dataclasses.replace(LEARNED, **{name: OTHER[name] for name in RARE | TRAINED})
    assert list(json.loads(full.to_json())) == sorted({*OTHER, "format_version"})
    assert Card.from_json(full.to_json()) == full


def test_card_text_has_what_training_chose_and_nothing_else_of_it() -> None:
    for chosen in ({"aggregation": "learned", "score": "count"}, {"aggregation": "gem"}, {"score": "votes"}):
        card = dataclasses.replace(make_card(), **chosen)
        assert {name: json.loads(card.to_json())[name] for name in chosen} == chosen
        assert not (TRAINED - set(chosen)) & set(json.loads(card.to_json()))
        assert Card.from_json(card.to_json()) == card
        assert dataclasses.replace(card, format_version=2).stored_as("int4").score == card.score


@pytest.mark.parametrize(("name", "value"), [("aggregation", "../x"), ("aggregation", 1), ("score", "best")])
def test_card_with_another_choice_of_training_is_refused(name: str, value: object) -> None:
    values = json.loads(make_card().to_json()) | {name: value}
    with pytest.raises(CorruptStore, match=name):
        Card.from_json(json.dumps(values))


@pytest.mark.parametrize("name", ["store_v1_float16", "store_v2_int4_pca64"])
def test_card_of_an_older_store_is_written_byte_for_byte(name: str) -> None:
    text = (GOLDEN / name / "card.json").read_bytes()
    assert Card.from_json(text).to_json().encode() == text


def test_card_of_an_older_format_with_a_later_field_is_corrupt() -> None:
    values = json.loads(make_card().to_json()) | {"aggregation_sha256": "a" * 64}
    with pytest.raises(CorruptStore, match="format 3"):
        Card.from_json(json.dumps(values))


@pytest.mark.parametrize("name", ["aggregation_sha256", "local_whitening_sha256"])
@pytest.mark.parametrize(
    "value", ["", "../../victim", "/" + "0" * 63, "A" * 64, "a" * 64 + "\n", 1, [], True]
)
def test_card_learned_fields_are_digests(name: str, value: object) -> None:
    values = json.loads(LEARNED.to_json()) | {name: value}
    with pytest.raises(CorruptStore, match=name):
        Card.from_json(json.dumps(values))


@pytest.mark.parametrize("name", sorted(OTHER))
def test_card_require_model_compares_the_model_part_only(name: str) -> None:
    model = dataclasses.replace(make_card(), **{name: OTHER[name]})
    if name in MODEL_PART:
        with pytest.raises(CardMismatch, match=name):
            make_card().require_model(model)
    else:
        make_card().require_model(model)


def test_card_with_an_aggregation_takes_its_own_model_whatever_the_width() -> None:
    LEARNED.require_model(make_card())
    with pytest.raises(CardMismatch, match="grid_width"):
        LEARNED.require_model(dataclasses.replace(make_card(), grid_width=9))


def test_card_of_another_aggregation_keeps_the_local_features() -> None:
    relearned = dataclasses.replace(LEARNED, aggregation_sha256="c" * 64, descriptor_dim=64)
    LEARNED.require_same_features(relearned)
    with pytest.raises(CardMismatch, match=r"aggregation_sha256.*Use the store's own"):
        LEARNED.require_same(relearned)
    other = OTHER | {"feature_encoding": "int8"}
    for name in ("feature_encoding", "local_whitening_sha256", "min_similarity", "weights_sha256"):
        with pytest.raises(CardMismatch, match=name):
            LEARNED.require_same_features(dataclasses.replace(relearned, **{name: other[name]}))


@pytest.mark.parametrize("text", ["", "{", "[]", "null", '{"format_version": 1}', '{"format_version": "x"}'])
def test_card_unreadable_text_raises_corrupt_store(text: str) -> None:
    with pytest.raises(CorruptStore):
        Card.from_json(text)
