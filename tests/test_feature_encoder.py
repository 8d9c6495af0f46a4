"""Encoding on the device: the same bytes as the store's codec makes, but for rounding."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from models.extractor import Extractor
from models.feature_encoder import FeatureEncoder
from models.weights import load_extractor
from storage.card import FEATURE_ENCODINGS, FeatureEncoding
from storage.encodings import FeatureCodec
from tests.test_encodings import images, make_codec


@pytest.mark.parametrize("encoding", FEATURE_ENCODINGS)
@pytest.mark.parametrize(("grid", "channels"), [(9, 48), (3, 13), (5, 70)])
def test_encoder_makes_what_the_codec_makes(encoding: FeatureEncoding, grid: int, channels: int) -> None:
    features = images(4, grid=grid, channels=channels).astype(np.float32)
    features[3] = 0
    _, codec = make_codec(encoding, features)
    found = FeatureEncoder(codec)(torch.from_numpy(features)).numpy()
    expected = codec.encode(features)
    assert found.dtype == np.uint8
    assert found.shape == expected.shape == (4, codec.row_bytes)
    # A level at the edge of its interval may fall to either side.
    assert np.mean(found != expected) < 0.01
    decoded, exact = codec.decode(found), codec.decode(expected)
    if codec.binary:
        assert np.array_equal(decoded, exact)
    else:
        difference = np.linalg.norm((decoded - exact).astype(np.float64).reshape(4, -1), axis=1)
        assert (difference <= 0.01 * np.linalg.norm(exact.reshape(4, -1), axis=1) + 1e-6).all()
        assert not decoded[3].any()


@pytest.mark.parametrize("encoding", ["float16", "binary"])
def test_encoder_without_rounding_is_bit_equal(encoding: FeatureEncoding) -> None:
    features = images(3).astype(np.float32)
    _, codec = make_codec(encoding, features)
    assert np.array_equal(FeatureEncoder(codec)(torch.from_numpy(features)), codec.encode(features))


@pytest.fixture(scope="module")
def extractor() -> Extractor:
    return load_extractor("efficientnet-lite0", device="cpu")


def test_extract_encoded_is_the_encoded_extract_prepared(extractor: Extractor) -> None:
    pre = extractor.card.preprocessing
    generator = np.random.default_rng(0)
    # More than go through the network at once.
    photos = generator.integers(0, 256, (11, pre.height, pre.width, 3), dtype=np.uint8)
    codec = FeatureCodec(extractor.card.stored_as("int8"))
    descriptors, rows = extractor.extract_encoded(photos, FeatureEncoder(codec))
    exact_descriptors, features = extractor.extract_prepared(photos)
    assert np.array_equal(descriptors, exact_descriptors)
    assert rows.shape == (11, codec.row_bytes)
    assert np.abs(codec.decode(rows) - features).max() < 0.01
    with pytest.raises(ValueError, match="prepared image"):
        extractor.extract_encoded(photos[:, :100], FeatureEncoder(codec))
