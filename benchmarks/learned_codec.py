"""Codecs whose projection is learned from the features at hand."""

from __future__ import annotations

import numpy as np

from storage.card import Card, FeatureEncoding
from storage.features.encodings import FeatureCodec, projected_channels
from storage.features.projection import fit_projection

__all__ = ["learn_codec"]

SAMPLE_IMAGES = 64


def learn_codec(card: Card, encoding: FeatureEncoding, features: np.ndarray) -> FeatureCodec:
    """Return a codec; its projection, if the encoding has one, is learned from (N, ..., C) features."""
    channels = projected_channels(encoding, card.feature_dim)
    if channels is None:
        return FeatureCodec(card.stored_as(encoding), projection=None)
    at = np.unique(np.linspace(0, len(features) - 1, SAMPLE_IMAGES).astype(int))
    return FeatureCodec(card.stored_as(encoding), projection=fit_projection(features[at], channels))
