"""The card of a network, made from what the network or its description says of itself. Imports no torch."""

from __future__ import annotations

import dataclasses
from typing import Protocol

from models.errors import BadImageSize
from storage.card import Card, Preprocessing

__all__ = ["Describes", "make_card", "resized_card"]


class Describes(Protocol):
    """What a card needs to know of a network: the networks have it, and `models.networks.descriptions`."""

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
        """Return the similarity from which mutual neighbours count; None: all count."""

    def grid(self, height: int, width: int) -> tuple[int, int]:
        """Return rows and columns of local features for an input size in pixels."""

    def default_preprocessing(self) -> Preprocessing:
        """Return how pixels become input by default."""


def make_card(network: Describes, *, weights_sha256: str, preprocessing: Preprocessing | None = None) -> Card:
    """Describe what a network makes.

    Args:
        network: The network, or its description.
        weights_sha256: See `models.checkpoints.tensors.weights_digest`.
        preprocessing: How pixels become input. Default: the network's own.

    Raises:
        ValueError: the network does not take the preprocessing's input size.
    """
    chosen = preprocessing or network.default_preprocessing()
    rows, columns = network.grid(chosen.height, chosen.width)
    return Card(
        model=network.name,
        weights_sha256=weights_sha256,
        preprocessing=chosen,
        descriptor_dim=network.descriptor_dim,
        grid_height=rows,
        grid_width=columns,
        feature_dim=network.feature_dim,
        min_similarity=network.min_similarity,
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
