"""Feature encodings: error of decoded features, size of rows, invalid input, projections and cards."""

from __future__ import annotations

import dataclasses
import json

import numpy as np
import pytest

from models.feature_encoder import FeatureEncoder
from models.matching.mutual import mutual_nn_count
from serving.counting import count_matches
from serving.lines import line_points
from storage.card import FEATURE_ENCODINGS, Card, FeatureEncoding
from storage.errors import CorruptStore, InvalidBatch
from storage.features.encodings import FeatureCodec, default_encoding, projected_channels
from storage.features.projection import fit_projection
from tests.support.encoded_features import images, make_codec
from tests.support.store_samples import make_card

# Largest relative error of decoded features (root mean square) that a correct encoding of noise stays under.
WORST = {"float16": 1e-3, "int8": 0.02, "int4": 0.13, "int2": 0.42}


@pytest.mark.parametrize("encoding", WORST)
@pytest.mark.parametrize("channels", [48, 13])
def test_codec_decoded_features_are_near_what_was_encoded(encoding: FeatureEncoding, channels: int) -> None:
    for seed in range(5):
        features = images(3, channels=channels, seed=seed)
        _, codec = make_codec(encoding, features)
        rows = FeatureEncoder(codec).encode(features)
        decoded = codec.decode(rows).astype(np.float64)
        exact = features.astype(np.float64)
        assert rows.shape == (3, codec.row_bytes), f"seed {seed}"
        error = np.sqrt(np.mean((decoded - exact) ** 2) / np.mean(exact**2))
        assert error < WORST[encoding], f"seed {seed}"
        # Coarse levels must not lower similarities as a whole: a floor would cut off pairs.
        np.testing.assert_allclose((decoded * exact).sum(), (exact**2).sum(), rtol=0.002, err_msg=f"{seed}")


@pytest.mark.parametrize(
    ("encoding", "row_bytes"),
    [
        ("float16", 952_576),
        ("int8", 476_292),
        ("int8-pca32", 119_076),
        ("int4", 238_148),
        ("int4-pca64", 119_076),
        ("int2", 119_076),
        ("binary", 59_536),
    ],
)
def test_codec_row_bytes_at_the_large_grid_are_as_documented(
    encoding: FeatureEncoding, row_bytes: int
) -> None:
    card = dataclasses.replace(make_card(), grid_height=61, grid_width=61, feature_dim=128)
    width = projected_channels(encoding, 128)
    projection = None if width is None else np.eye(128, width, dtype=np.float32)
    assert FeatureCodec(card.stored_as(encoding), projection=projection).row_bytes == row_bytes


def test_codec_float16_bytes_are_the_features_themselves() -> None:
    features = images(2)
    _, codec = make_codec("float16", features)
    rows = FeatureEncoder(codec).encode(features)
    assert rows.tobytes() == features.tobytes()
    assert np.shares_memory(codec.decode(rows), rows)


@pytest.mark.parametrize("encoding", FEATURE_ENCODINGS)
def test_codec_counts_of_matching_stay_near_the_exact_ones(encoding: FeatureEncoding) -> None:
    """A photo's own image, shifted by noise, keeps most of its pairs; a foreign image stays behind it."""
    for seed in range(3):
        stored = images(6, channels=64, seed=seed)
        card, codec = make_codec(encoding, stored)
        query = stored[0] + 0.05 * np.random.default_rng(seed).standard_normal(stored[0].shape)
        query = (query / np.linalg.norm(query, axis=-1, keepdims=True)).astype(np.float32)
        exact = mutual_nn_count(query, stored.astype(np.float32)).tolist()
        decoded = codec.decode(FeatureEncoder(codec).encode(stored))
        counts = count_matches(query, decoded, np.array([True] * 5 + [False]), card, codec=codec)
        assert counts[5] is None, f"seed {seed}"
        known = [count for count in counts if count is not None]
        assert known[0] == max(known), f"seed {seed}: {counts}"
        assert known[0] >= 0.6 * exact[0], f"seed {seed}: {counts} for {exact}"
        here, there, similarity, _ = line_points(query, decoded[0], card, codec=codec)
        assert len(here) == len(there) == known[0], f"seed {seed}"
        assert 0.5 < np.median(similarity) <= 1.05, f"seed {seed}"


@pytest.mark.parametrize("encoding", FEATURE_ENCODINGS)
def test_codec_zeros_encode_and_decode_to_finite_numbers(encoding: FeatureEncoding) -> None:
    card, codec = make_codec(encoding, images(2))
    zeros = np.zeros((1, 9, 9, 48), np.float16)
    decoded = codec.decode(FeatureEncoder(codec).encode(zeros))
    assert not decoded.any()
    unread = codec.decode(np.zeros((2, codec.row_bytes), np.uint8))
    assert not unread.any()
    counts = count_matches(zeros[0].astype(np.float32), unread, np.array([True, False]), card, codec=codec)
    assert counts[1] is None


@pytest.mark.parametrize("encoding", FEATURE_ENCODINGS)
@pytest.mark.parametrize("bad", ["nan", "grid", "channels", "integers"])
def test_codec_encode_bad_features_raise(encoding: FeatureEncoding, bad: str) -> None:
    features: np.ndarray = images(2)
    _, codec = make_codec(encoding, features)
    broken = {
        "nan": np.where(features > 0.3, np.nan, features).astype(np.float16),
        "grid": features[:, :-1],
        "channels": features[..., :-1],
        "integers": features.astype(np.int8),
    }[bad]
    with pytest.raises(InvalidBatch):
        FeatureEncoder(codec).encode(broken)


@pytest.mark.parametrize(
    ("side", "channels", "encoding"),
    [
        (14, 112, "float16"),  # the default model
        (16, 1024, "float16"),  # an untrained SelaVPR
        (61, 128, "int4-pca64"),  # a trained one
        (61, 1024, "float16"),
        (45, 128, "float16"),
    ],
)
def test_default_encoding_is_compact_only_for_large_grids(
    side: int, channels: int, encoding: FeatureEncoding
) -> None:
    card = dataclasses.replace(make_card(), grid_height=side, grid_width=side, feature_dim=channels)
    assert default_encoding(card) == encoding


def test_codec_projection_that_does_not_fit_is_refused() -> None:
    card = make_card()
    with pytest.raises(InvalidBatch, match="projection"):
        FeatureCodec(card.stored_as("int4-pca64"))
    with pytest.raises(InvalidBatch, match="projection"):
        FeatureCodec(card.stored_as("int4"), projection=np.eye(4, dtype=np.float32))


def test_fit_projection_keeps_inner_products_of_what_lies_in_a_subspace() -> None:
    for seed in range(3):
        random = np.random.default_rng(seed)
        cells = random.standard_normal((500, 6)) @ random.standard_normal((6, 40))
        projection = fit_projection(cells, 6)
        np.testing.assert_allclose(projection.T @ projection, np.eye(6), atol=1e-5)
        shown = cells @ projection
        np.testing.assert_allclose(shown @ shown.T, cells @ cells.T, atol=2e-3, err_msg=f"seed {seed}")
        assert np.array_equal(projection, fit_projection(cells, 6))


def test_fit_projection_of_too_little_raises() -> None:
    with pytest.raises(InvalidBatch, match="more images"):
        fit_projection(np.ones((3, 8)), 4)
    with pytest.raises(InvalidBatch, match="more images"):
        fit_projection(np.ones((30, 8)), 9)


def test_card_of_an_encoding_asks_older_programs_to_upgrade() -> None:
    for encoding in FEATURE_ENCODINGS:
        values = json.loads(make_card().stored_as(encoding).to_json())
        assert values["format_version"] == 3
        assert Card.from_json(json.dumps(values)).feature_encoding == encoding


def test_card_of_an_unknown_encoding_is_refused() -> None:
    values = json.loads(make_card().stored_as("int4").to_json()) | {"feature_encoding": "int3"}
    with pytest.raises(CorruptStore, match="int3"):
        Card.from_json(json.dumps(values))
    with pytest.raises(InvalidBatch, match="int3"):
        make_card().stored_as("int3")  # type: ignore[arg-type]
