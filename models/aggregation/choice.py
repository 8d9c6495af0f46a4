"""Which aggregation a store gets: learned, the model's own (GeM), or that of a file."""

from __future__ import annotations

import dataclasses
from pathlib import Path

from models.aggregation.aggregation import DESCRIPTOR_DIM, Aggregation
from models.aggregation.file import MAX_BYTES
from models.aggregation.rejected import AggregationRejected
from models.aggregation.start import starting_aggregation
from models.custom.reference import TIMM
from models.names import DEFAULT_MODEL, SELAVPR_MODELS
from models.networks.descriptions import LOCAL_CHANNELS
from storage.card import NO_FEATURES, Card
from storage.errors import InvalidBatch
from storage.features.encodings import FeatureCodec

__all__ = [
    "GEM",
    "LEARNED",
    "chosen_aggregation",
    "default_aggregation",
    "read_aggregation",
    "with_aggregation",
]

LEARNED, GEM = "learned", "gem"


def default_aggregation(card: Card) -> str:
    """Return `learned` for a model without a trained global head, `gem` for one that has learned its own.

    Trained are SelaVPR models with the head of local features, and adapted ones, unless validation chose
    otherwise. The embedded default and backbones by name were never trained to tell places apart, nor were
    timm's.
    """
    if card.aggregation is not None:
        return card.aggregation
    untrained = card.model in SELAVPR_MODELS and card.feature_dim != LOCAL_CHANNELS
    untrained = untrained or (card.model.startswith(TIMM) and card.feature_dim > 0)
    return LEARNED if untrained or card.model == DEFAULT_MODEL else GEM


def aggregation_kind(card: Card) -> str:
    """Return `learned` or `gem` for the card of a store."""
    return GEM if card.aggregation_sha256 is None else LEARNED


def read_aggregation(path: str | Path) -> Aggregation:
    """Read the file of an aggregation, which a store then keeps until `placeray relearn`.

    Raises:
        AggregationRejected: it cannot be read, or is not one.
    """
    try:
        with open(path, "rb") as file:
            return dataclasses.replace(Aggregation.from_bytes(file.read(MAX_BYTES + 1)), automatic=False)
    except OSError as error:
        raise AggregationRejected(
            "unreadable", f"{path} cannot be read ({error.strerror}): give learned, gem, or a file"
        ) from error


def chosen_aggregation(chosen: str | None, card: Card, codec: FeatureCodec) -> Aggregation | None:
    """Return the aggregation that a new store begins with; None where descriptors are the model's own.

    Args:
        chosen: `learned`, `gem` or a path; None: the default of the model.
        card: Of the model.
        codec: Of the store.

    Raises:
        AggregationRejected: the file cannot be read, or is of features of another width.
    """
    if codec.encoding == NO_FEATURES:
        if chosen not in (None, GEM):
            raise AggregationRejected(
                "no_features",
                "descriptors are learned from local features, which the store would not keep: leave "
                "--aggregation out, or choose another encoding with --features",
            )
        return None
    chosen = chosen or default_aggregation(card)
    if chosen == GEM:
        return None
    if chosen == LEARNED:
        return starting_aggregation(codec.channels)
    aggregation = read_aggregation(chosen)
    if aggregation.words.shape[1] != codec.channels:
        raise AggregationRejected(
            "wrong_width",
            f"{chosen} is for features of {aggregation.words.shape[1]} channels, the store keeps "
            f"{codec.channels}: use the file of a store of the same model and encoding",
        )
    return aggregation


def with_aggregation(card: Card, aggregation: Aggregation | None) -> Card:
    """Return a store's card with an aggregation in place of its own.

    Raises:
        InvalidBatch: None for a card that has one: the width of the model's own descriptors is not known.
    """
    if aggregation is None:
        if card.aggregation_sha256 is not None:
            raise InvalidBatch("the card has an aggregation: take the card of the model")
        return card
    return card.stored_as(
        card.feature_encoding,
        projection_sha256=card.projection_sha256,
        aggregation_sha256=aggregation.sha256,
        local_whitening_sha256=card.local_whitening_sha256,
        descriptor_dim=DESCRIPTOR_DIM,
    )
