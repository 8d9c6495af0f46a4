"""Whitening of local features: stored and queried features go through the same map, in every encoding."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest

from models.feature_encoder import FeatureEncoder
from storage.artifacts import write_artifact
from storage.card import FEATURE_ENCODINGS, Card, FeatureEncoding
from storage.errors import CorruptStore, InvalidBatch
from storage.features.encodings import FeatureCodec, open_codec, projected_channels
from storage.features.projection import fit_projection, projection_sha256
from storage.features.whitening import (
    parse_whitening,
    read_whitening,
    whiten,
    whitening_bytes,
    whitening_sha256,
)
from storage.store import Store
from tests.support.encoded_features import images
from tests.support.store_samples import make_card

CHANNELS = 48
MAP = np.asarray(np.random.default_rng(3).standard_normal((CHANNELS, CHANNELS)), np.float32)
SAMPLE = images(3, channels=CHANNELS).astype(np.float32)


def card_of(encoding: FeatureEncoding, projection: np.ndarray | None) -> Card:
    card = dataclasses.replace(make_card(), grid_height=9, grid_width=9, feature_dim=CHANNELS)
    digest = None if projection is None else projection_sha256(projection)
    return card.stored_as(encoding, projection_sha256=digest, local_whitening_sha256=whitening_sha256(MAP))


def projection_of(encoding: FeatureEncoding) -> np.ndarray | None:
    channels = projected_channels(encoding, CHANNELS)
    return None if channels is None else fit_projection(whiten(SAMPLE, MAP), channels)


def test_whitened_cells_have_unit_norm_and_empty_ones_stay_empty() -> None:
    features = SAMPLE.copy()
    features[0, 0, 0] = 0
    whitened = whiten(features, MAP)
    norms = np.linalg.norm(whitened, axis=-1)
    assert whitened.dtype == np.float32
    assert norms[0, 0, 0] == 0
    np.testing.assert_allclose(np.delete(norms.reshape(-1), 0), 1, atol=1e-5)
    np.testing.assert_allclose(whiten(SAMPLE, np.eye(CHANNELS, dtype=np.float32)), SAMPLE, atol=2e-3)


@pytest.mark.parametrize("encoding", FEATURE_ENCODINGS)
def test_a_whitened_store_decodes_what_a_query_is_compared_as(
    tmp_path: Path, encoding: FeatureEncoding
) -> None:
    projection = projection_of(encoding)
    card = card_of(encoding, projection)
    store = Store.create(tmp_path / "s", card, projection=projection, artifacts=[whitening_bytes(MAP)])
    np.testing.assert_array_equal(store.codec.whitening, MAP)
    stored = store.codec.decode(FeatureEncoder(store.codec).encode(SAMPLE))
    query = store.codec.query(SAMPLE)
    plain = FeatureCodec(dataclasses.replace(card, local_whitening_sha256=None), projection=projection)
    if encoding == "binary":
        assert np.unpackbits(stored ^ query).mean() < 1e-3
        assert np.unpackbits(stored ^ plain.query(SAMPLE)).mean() > 0.2
        return
    error = {"float16": 2e-3, "int8": 2e-2, "int8-pca32": 2e-2}.get(encoding, 0.35)
    bits = int(encoding[3]) if encoding != "float16" else 16
    error = 0.8 if bits == 2 else error
    assert np.linalg.norm(stored - query, axis=-1).max() < error
    assert np.linalg.norm(stored - plain.query(SAMPLE), axis=-1).mean() > error


def test_a_card_without_a_whitening_takes_none_and_one_with_it_needs_it(tmp_path: Path) -> None:
    card = card_of("float16", None)
    for bad in (None, MAP[:4], MAP.reshape(-1)):
        with pytest.raises(InvalidBatch, match="whitening of shape"):
            FeatureCodec(card, whitening=bad)
    with pytest.raises(InvalidBatch, match="whitening of shape None"):
        FeatureCodec(dataclasses.replace(card, local_whitening_sha256=None), whitening=MAP)
    with pytest.raises(InvalidBatch, match="not given"):
        Store.create(tmp_path / "a", card)
    with pytest.raises(CorruptStore, match="missing"):
        open_codec(tmp_path, card)


@pytest.mark.parametrize(
    "data",
    [b"", b"x", whitening_bytes(MAP)[:-4], whitening_bytes(MAP * np.nan), whitening_bytes(MAP * np.inf)],
)
def test_contents_that_are_no_whitening_are_refused(tmp_path: Path, data: bytes) -> None:
    with pytest.raises(InvalidBatch, match="48 x 48"):
        parse_whitening(data, CHANNELS)
    digest = write_artifact(tmp_path, data)
    with pytest.raises(CorruptStore, match="not a whitening"):
        read_whitening(tmp_path, digest, CHANNELS)
    card = dataclasses.replace(card_of("float16", None), local_whitening_sha256=digest)
    with pytest.raises(InvalidBatch, match="48 x 48"):
        Store.create(tmp_path / "s", card, artifacts=[data])
