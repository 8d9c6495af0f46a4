"""Encoding on the device gives the bytes of the storage format, up to rounding."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from models.extractor import Extractor
from models.feature_encoder import FeatureEncoder
from models.weights import load_extractor
from storage.card import FEATURE_ENCODINGS, FeatureEncoding
from storage.features.encodings import FeatureCodec
from tests.support.encoded_features import images, make_codec


def plainly(values: np.ndarray, encoding: str) -> np.ndarray:
    """Encode (N,) float64 values of one image as the table of the encodings says, one value at a time."""
    if encoding == "float16":
        return values.astype("<f2").view(np.uint8)
    kind = encoding.partition("-")[0]
    if kind == "int8":
        step = np.abs(values).max() / 127
        payload = np.rint(values / step).astype(np.int8).view(np.uint8)
    else:
        bits = int(kind[3:])
        wide = {4: 0.3352, 2: 0.9957}[bits] * np.sqrt(np.mean(values**2))
        levels = np.clip(np.floor(values / wide) + 2 ** (bits - 1), 0, 2**bits - 1)
        step = np.sum(values**2) / np.sum(values * (levels - (2**bits - 1) / 2))
        payload = np.zeros(-(-len(values) * bits // 8), np.uint8)
        for at in range(len(payload) * 8 // bits):
            level = int(levels[at]) if at < len(levels) else 2 ** (bits - 1)
            payload[at * bits // 8] |= level << (at * bits % 8)
    return np.concatenate([np.array([step], "<f4").view(np.uint8), payload])


@pytest.mark.parametrize("encoding", FEATURE_ENCODINGS)
@pytest.mark.parametrize(("grid", "channels"), [(9, 48), (3, 13), (5, 70)])
def test_encoder_output_matches_the_format(encoding: FeatureEncoding, grid: int, channels: int) -> None:
    features = images(3, grid=grid, channels=channels).astype(np.float32)
    _, codec = make_codec(encoding, features)
    encoded = FeatureEncoder(codec)(torch.from_numpy(features)).numpy()
    assert encoded.dtype == np.uint8
    assert encoded.shape == (3, codec.row_bytes)
    if codec.binary:
        assert np.array_equal(encoded, np.packbits(features > 0, axis=-1).reshape(3, -1))
        return
    projected = features if codec.projection is None else features @ codec.projection
    expected = np.stack([plainly(image.reshape(-1).astype(np.float64), encoding) for image in projected])
    if encoding == "float16":
        assert np.array_equal(encoded, expected)
        return
    # A level at the edge of its interval may fall to either side.
    assert np.mean(encoded[:, 4:] != expected[:, 4:]) < 0.01
    steps, exact_steps = (np.ascontiguousarray(rows[:, :4]).view("<f4") for rows in (encoded, expected))
    np.testing.assert_allclose(steps, exact_steps, rtol=1e-3)
    decoded, exact = codec.decode(encoded), codec.decode(expected)
    difference = np.linalg.norm((decoded - exact).astype(np.float64).reshape(3, -1), axis=1)
    assert (difference <= 0.01 * np.linalg.norm(exact.reshape(3, -1), axis=1)).all()


@pytest.mark.parametrize("encoding", FEATURE_ENCODINGS)
def test_encoder_an_image_of_zeros_leaves_its_neighbours_alone(encoding: FeatureEncoding) -> None:
    features = images(3).astype(np.float32)
    _, codec = make_codec(encoding, features)
    encoder = FeatureEncoder(codec)
    mixed = features.copy()
    mixed[1] = 0
    rows = encoder.encode(mixed)
    assert not codec.decode(rows)[1].any()
    assert np.array_equal(rows[::2], encoder.encode(features)[::2])
    assert codec.decode(rows)[::2].any()


@pytest.mark.parametrize("encoding", FEATURE_ENCODINGS)
def test_encode_of_arrays_in_either_precision_is_the_same(encoding: FeatureEncoding) -> None:
    half = images(2)
    _, codec = make_codec(encoding, half)
    encoder = FeatureEncoder(codec)
    wide = encoder.encode(half.astype(np.float32))
    assert np.array_equal(encoder.encode(half), wide)
    assert np.array_equal(encoder(torch.from_numpy(half.astype(np.float32))), wide)
    assert len(encoder.encode(half[:0])) == 0


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
