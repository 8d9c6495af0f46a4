"""The reader of a store's local features, wherever they lie."""

from __future__ import annotations

from pathlib import Path
from typing import TypeAlias

from storage.card import Card
from storage.features.bucket_reader import BucketFeatureReader
from storage.features.reader import FeatureReader
from storage.objects.files import Location

__all__ = ["AnyFeatureReader", "open_features"]

AnyFeatureReader: TypeAlias = FeatureReader | BucketFeatureReader


def open_features(location: Location, card: Card) -> AnyFeatureReader:
    """Return a reader of the local features of the store at `location`.

    Raises:
        CorruptStore: the projection named on the card cannot be read.
    """
    if isinstance(location, Path):
        return FeatureReader(location, card)
    return BucketFeatureReader(location, card)
