"""The store of an index run: what is chosen once, at its creation."""

from __future__ import annotations

from pathlib import Path

import pytest

from models.store_fit import fitting_card, fitting_extractor
from models.weights import load_card
from pipelines.indexing.opening import card_of, open_or_create
from storage.card import Card
from storage.errors import CardMismatch
from storage.store import Store

MODEL = "efficientnet-lite0"


def size_of(card: Card) -> tuple[int, int]:
    return card.preprocessing.height, card.preprocessing.width


@pytest.mark.parametrize("asked", [None, (256, 320)])
def test_input_size_is_chosen_at_creation_and_kept(tmp_path: Path, asked: tuple[int, int] | None) -> None:
    uri, own = str(tmp_path / "store"), size_of(load_card(MODEL))
    chosen, other = asked or own, (320, 256) if asked else (256, 320)
    card, fresh = card_of(None, asked, uri, None, None)
    assert (fresh, size_of(card)) == (True, chosen)
    open_or_create(uri, card, requested=False, aggregation=None, fresh=True, learn=lambda channels: None)  # type: ignore[arg-type,return-value]
    stored = Store.open(uri).card
    assert size_of(stored) == chosen
    assert (stored.grid_height, stored.grid_width) == (card.grid_height, card.grid_width)
    for given in (None, chosen):
        kept, fresh = card_of(None, given, uri, None, None)
        assert (fresh, size_of(kept)) == (False, chosen)
    with pytest.raises(CardMismatch, match=f"--image-size {other[0]}x{other[1]} does not fit the store"):
        card_of(None, other, uri, None, None)
    # What asks the store takes its size, whatever the model's own is.
    assert size_of(fitting_card(uri, stored, None)) == chosen
    assert size_of(fitting_extractor(uri, stored, MODEL).card) == chosen
