"""Makes a store's descriptors from a model's output, by the card of each version."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from models.aggregation.aggregation import Aggregation
from models.aggregation.rejected import AggregationRejected
from models.aggregation.stored import describe_rows
from storage.card import Card
from storage.errors import CorruptStore
from storage.features.encodings import FeatureCodec

if TYPE_CHECKING:
    from models.feature_encoder import FeatureEncoder  # loads torch

__all__ = ["Describer", "open_aggregation"]

_KEPT = 2


def open_aggregation(read_artifact: Callable[[str], bytes], card: Card) -> Aggregation | None:
    """Return the aggregation that a card names; None where descriptors are the model's own.

    Raises:
        CorruptStore: the artifact is missing or damaged, or not one for these features.
    """
    if card.aggregation_sha256 is None:
        return None
    try:
        return Aggregation.from_bytes(read_artifact(card.aggregation_sha256))
    except AggregationRejected as error:
        raise CorruptStore(
            f"the store's aggregation cannot be used ({error}): restore the store from a backup, or run "
            "placeray relearn"
        ) from error


class Describer:
    """Makes descriptors by the aggregation of a card; the last two are kept. Safe to share between threads.

    Args:
        read_artifact: Returns the contents of an artifact by its digest, such as `Store.artifact`.
        codec: Of the store. It is the same for all versions.
    """

    def __init__(self, read_artifact: Callable[[str], bytes], codec: FeatureCodec) -> None:
        self._read_artifact = read_artifact
        self._codec = codec
        self._encoder: FeatureEncoder | None = None
        self._lock = threading.Lock()
        self._kept: dict[str | None, Aggregation | None] = {}

    def rows(self, features: NDArray[np.float32]) -> NDArray[np.uint8]:
        """Encode features as the store keeps them.

        Args:
            features: (B, H, W, C) float32.

        Returns:
            (B, row_bytes) uint8.
        """
        if self._codec.encoding == "float16" and self._codec.whitening is None:
            halves = np.ascontiguousarray(features, np.float16)
            return halves.reshape(len(halves), -1).view(np.uint8)
        if self._encoder is None:
            from models.feature_encoder import FeatureEncoder

            self._encoder = FeatureEncoder(self._codec)
        return self._encoder.encode(features)

    def describe(
        self,
        card: Card,
        descriptors: NDArray[np.float32],
        features: NDArray[np.float32],
    ) -> NDArray[np.float32]:
        """Return the descriptors of photos for a version of the store.

        Args:
            card: Of that version.
            descriptors: (B, D) float32, the model's own.
            features: (B, H, W, C) float32, the model's, unit L2 norm per cell.

        Returns:
            (B, 512) float32 of the card's aggregation, or the model's own.

        Raises:
            CorruptStore: the aggregation cannot be read.
        """
        if card.aggregation_sha256 is None or not len(features):
            return descriptors
        return self.describe_rows(card, descriptors, self.rows(features))

    def describe_rows(
        self, card: Card, descriptors: NDArray[np.float32], rows: NDArray[np.uint8]
    ) -> NDArray[np.float32]:
        """Do the same for features that are encoded as the store keeps them, (B, row_bytes) uint8."""
        aggregation = self.aggregation(card)
        return descriptors if aggregation is None else describe_rows(aggregation, self._codec, rows)

    def aggregation(self, card: Card) -> Aggregation | None:
        """Return the aggregation of a card, read on first use.

        Raises:
            CorruptStore: it cannot be read.
        """
        digest = card.aggregation_sha256
        with self._lock:
            if digest not in self._kept:
                self._kept[digest] = open_aggregation(self._read_artifact, card)
                while len(self._kept) > _KEPT:
                    del self._kept[next(iter(self._kept))]
            return self._kept[digest]
