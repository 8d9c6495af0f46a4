"""The card: round trip, comparison and validation."""

from __future__ import annotations

import dataclasses
import json

import pytest

from storage.card import FORMAT_VERSION, Card
from storage.errors import CardMismatch, CorruptStore
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
}


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


def test_card_of_a_newer_format_asks_to_upgrade() -> None:
    values = json.loads(make_card().to_json()) | {"format_version": FORMAT_VERSION + 1, "a_new_field": 1}
    with pytest.raises(CardMismatch, match="upgrade"):
        Card.from_json(json.dumps(values))


@pytest.mark.parametrize("text", ["", "{", "[]", "null", '{"format_version": 1}', '{"format_version": "x"}'])
def test_card_unreadable_text_raises_corrupt_store(text: str) -> None:
    with pytest.raises(CorruptStore):
        Card.from_json(text)
