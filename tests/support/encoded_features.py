"""Encoded features and stores of every encoding."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np

from storage.card import Card, FeatureEncoding
from storage.features.encodings import FeatureCodec, projected_channels
from storage.features.projection import fit_projection, projection_sha256
from storage.store import Store
from tests.support.store_samples import features_of, make_card, make_rows

ENCODED_IDS = [f"image-{i}" for i in range(12)]


def images(count: int, *, grid: int = 9, channels: int = 48, seed: int = 0) -> np.ndarray:
    """Return (count, grid, grid, channels) float16 of unit norm, neighbouring cells alike."""
    noise = np.random.default_rng(seed).standard_normal((count, grid + 2, grid + 2, channels))
    smooth = sum(noise[:, y : y + grid, x : x + grid] for y in range(3) for x in range(3))
    return np.asarray(smooth / np.linalg.norm(smooth, axis=-1, keepdims=True), np.float16)


def make_codec(encoding: FeatureEncoding, sample: np.ndarray) -> tuple[Card, FeatureCodec]:
    _, height, width, channels = sample.shape
    card = dataclasses.replace(make_card(), grid_height=height, grid_width=width, feature_dim=channels)
    projected = projected_channels(encoding, channels)
    projection = None if projected is None else fit_projection(sample, projected)
    digest = None if projection is None else projection_sha256(projection)
    return card.stored_as(encoding, projection_sha256=digest), FeatureCodec(
        card.stored_as(encoding), projection=projection
    )


def make_encoded_store(folder: Path, encoding: FeatureEncoding, ids: list[str] | None = None) -> Store:
    projected = projected_channels(encoding, make_card().feature_dim)
    sample = np.stack([features_of(name) for name in ENCODED_IDS])
    projection = None if projected is None else fit_projection(sample, projected)
    digest = None if projection is None else projection_sha256(projection)
    card = make_card().stored_as(encoding, projection_sha256=digest)
    store = Store.create(folder, card, projection=projection)
    with store.lease():
        for start in range(0, len(ids or ()), 4):
            store.commit(make_rows(store, (ids or [])[start : start + 4]))
    return store
