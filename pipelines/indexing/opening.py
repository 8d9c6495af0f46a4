"""The store of an index run: opened, or created with what is learned from the listed images beforehand."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from models.aggregation.choice import chosen_aggregation, with_aggregation
from models.names import DEFAULT_MODEL
from models.store_fit import fitting_card, require_fit
from storage.card import Card, FeatureEncoding
from storage.errors import InvalidBatch, StoreNotFound
from storage.features.encodings import FeatureCodec, default_encoding, projected_channels
from storage.features.projection import projection_sha256
from storage.store import Store

__all__ = ["card_of", "open_or_create"]


def card_of(
    model: str | None,
    image_size: tuple[int, int] | None,
    store_uri: str,
    features: FeatureEncoding | None,
    aggregation: str | None,
) -> tuple[Card, bool]:
    """Return the card of the store after comparing it with the model, or that of a new store and True.

    The input size is that of the store unless another one is requested. The card of a new store does not name
    its projection and its aggregation yet.

    Raises:
        CardMismatch: a flag does not fit the store, see `models.store_fit`.
    """
    try:
        stored = Store.open(store_uri).card
    except StoreNotFound:
        from models.weights import load_card

        card = load_card(model or DEFAULT_MODEL, image_size=image_size)
        return card.stored_as(features or default_encoding(card)), True
    given = {"image_size": image_size, "features": features, "aggregation": aggregation}
    require_fit(store_uri, stored, given)
    fitting_card(store_uri, stored, model)
    return stored, False


def open_or_create(
    store_uri: str,
    card: Card,
    *,
    requested: bool,
    aggregation: str | None,
    fresh: bool,
    learn: Callable[[int], NDArray[np.float32]],
) -> Store:
    """Open the store, or create it, with a projection if the encoding has one.

    If too few images can be used to learn it, that is an error only where the encoding was requested.

    Args:
        store_uri: The store.
        card: As `card_of` returns it.
        requested: Whether the encoding was requested.
        aggregation: Of a new store, see `models.aggregation.choice`.
        fresh: Whether there is no store.
        learn: Learns a projection to a number of channels.
    """
    if not fresh:
        return Store.create(store_uri, card)
    channels = projected_channels(card.feature_encoding, card.feature_dim)
    if channels is None:
        return _create(store_uri, card, aggregation)
    try:
        projection = learn(channels)
    except InvalidBatch:
        if requested:
            raise
        # The same number of bits, without a projection.
        return _create(store_uri, card.stored_as("int4"), aggregation)
    named = card.stored_as(card.feature_encoding, projection_sha256=projection_sha256(projection))
    return _create(store_uri, named, aggregation, projection)


def _create(
    store_uri: str, card: Card, aggregation: str | None, projection: NDArray[np.float32] | None = None
) -> Store:
    chosen = chosen_aggregation(aggregation, card, FeatureCodec(card, projection=projection))
    artifacts = [chosen.to_bytes()] if chosen is not None else []
    return Store.create(store_uri, with_aggregation(card, chosen), projection=projection, artifacts=artifacts)
