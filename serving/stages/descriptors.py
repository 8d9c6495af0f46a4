"""Descriptors of photos for the versions of a store that a service may be searching."""

from __future__ import annotations

import contextlib

import numpy as np
from numpy.typing import NDArray

from models.aggregation.describer import Describer
from serving.stages.messages import Descriptor
from storage.card import Card
from storage.commit.current_card import current_card
from storage.errors import StoreError
from storage.objects.location import open_location
from storage.store import Store

__all__ = ["DescriptorMaker"]


class DescriptorMaker:
    """Makes descriptors by the newest card of a store, and by the one before.

    The card is read before each batch, so that descriptors are never of an older aggregation than the index,
    whose partitions take seconds to load a version.

    Args:
        store_uri: The store's folder.
        at: A tag, of the version that is searched.
    """

    def __init__(self, store_uri: str, at: str | None = None) -> None:
        store = Store.open(store_uri, at=at)
        self._at = at
        self._folder = open_location(store_uri)
        self._describer = Describer(store.artifact, store.codec)
        self._cards: tuple[Card, ...] = (store.card,)
        self._describer.aggregation(store.card)

    def make(
        self,
        descriptors: NDArray[np.float32],
        features: NDArray[np.float32],
        codes: NDArray[np.uint8] | None = None,
    ) -> list[Descriptor]:
        """Return the descriptors of photos.

        Args:
            descriptors: (B, D) float32, the model's own.
            features: (B, H, W, C) float32, the model's, unit L2 norm per cell.
            codes: (B, code_bits / 8) uint8, or None.
        """
        self._follow()
        made = {
            card.aggregation_sha256: self._describer.describe(card, descriptors, features)
            for card in self._cards
        }
        return [
            Descriptor(
                {digest: values[at] for digest, values in made.items()}, None if codes is None else codes[at]
            )
            for at in range(len(descriptors))
        ]

    def _follow(self) -> None:
        # What cannot be read is for the index to report; until then the known cards are used.
        with contextlib.suppress(StoreError):
            newest = current_card(self._folder, self._at)
            if newest.aggregation_sha256 != self._cards[0].aggregation_sha256:
                self._cards[0].require_same_features(newest)
                self._describer.aggregation(newest)
                self._cards = (newest, self._cards[0])
