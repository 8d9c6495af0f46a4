"""Model cards built from a network or from its description. Imports no torch."""

from __future__ import annotations

import dataclasses
from typing import Protocol

from models.errors import BadImageSize
from storage.card import Card, Preprocessing

__all__ = ["Describes", "make_card", "resized_card"]


class Describes(Protocol):
    """The properties that a card records: of networks, and of `models.networks.descriptions`."""

    @property
    def name(self) -> str:
        """Return the architecture name for the card."""

    @property
    def descriptor_dim(self) -> int:
        """Return D."""

    @property
    def feature_dim(self) -> int:
        """Return C of one local feature."""

    @property
    def min_similarity(self) -> float | None:
        """Return the lowest similarity of mutual neighbours that are counted; None: all are."""

    def grid(self, height: int, width: int) -> tuple[int, int]:
        """Return rows and columns of local features for an input size in pixels."""

    def default_preprocessing(self) -> Preprocessing:
        """Return the default preprocessing."""


def make_card(network: Describes, *, weights_sha256: str, preprocessing: Preprocessing | None = None) -> Card:
    """Return the card of a network.

    Args:
        network: The network, or its description.
        weights_sha256: See `models.checkpoints.tensors.weights_digest`.
        preprocessing: How photos are preprocessed. Default: the network's own.

    Raises:
        ValueError: the network does not take the preprocessing's input size.
    """
    used = preprocessing or network.default_preprocessing()
    rows, columns = network.grid(used.height, used.width)
    return Card(
        model=network.name,
        weights_sha256=weights_sha256,
        preprocessing=used,
        descriptor_dim=network.descriptor_dim,
        grid_height=rows,
        grid_width=columns,
        feature_dim=network.feature_dim,
        min_similarity=network.min_similarity,
        code_bits=getattr(network, "code_bits", None),
    )


def resized_card(card: Card, network: Describes, image_size: tuple[int, int] | None) -> Card:
    """Return the card for another input size (height, width) in pixels; None: the card itself.

    Raises:
        BadImageSize: the network does not take this input size.
    """
    if image_size is None:
        return card
    height, width = image_size
    try:
        rows, columns = network.grid(height, width)
    except ValueError as error:
        raise BadImageSize(str(error)) from error
    preprocessing = dataclasses.replace(card.preprocessing, height=height, width=width)
    return dataclasses.replace(card, preprocessing=preprocessing, grid_height=rows, grid_width=columns)
