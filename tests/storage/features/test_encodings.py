"""Encodings of local features: what comes back, what may not, and that a store of each keeps its promises."""

from __future__ import annotations

import dataclasses
import json
import os
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from models.feature_encoder import FeatureEncoder
from models.matching.mutual import mutual_nn_count
from serving.counting import count_matches
from serving.lines import line_points
from storage.card import FEATURE_ENCODINGS, Card, FeatureEncoding
from storage.care.compaction import rows_by_shard
from storage.care.repair import repair_store
from storage.care.verify import verify_store
from storage.errors import CardMismatch, CorruptStore, InvalidBatch
from storage.features.cache import FeatureCache
from storage.features.encodings import FeatureCodec, default_encoding, open_codec, projected_channels
from storage.features.projection import fit_projection, projection_path, projection_sha256
from storage.features.reader import FeatureReader
from storage.features.shards import FEATURES_FOLDER, shard_path
from storage.position import Position
from storage.records import ImageRecord
from storage.store import Store
from tests.support.paths import GOLDEN
from tests.support.store_samples import contents, features_of, make_card, make_rows

IDS = [f"image-{i}" for i in range(12)]
# Largest relative error of decoded features (root mean square) that a correct encoding of noise stays under.
WORST = {"float16": 1e-3, "int8": 0.02, "int4": 0.13, "int2": 0.42}


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
    sample = np.stack([features_of(name) for name in IDS])
    projection = None if projected is None else fit_projection(sample, projected)
    digest = None if projection is None else projection_sha256(projection)
    card = make_card().stored_as(encoding, projection_sha256=digest)
    store = Store.create(folder, card, projection=projection)
    with store.lease():
        for start in range(0, len(ids or ()), 4):
            store.commit(make_rows(store, (ids or [])[start : start + 4]))
    return store


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
        here, there, similarity = line_points(query, decoded[0], card, codec=codec)
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
def test_default_encoding_is_small_only_where_that_was_measured(
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


@pytest.mark.parametrize("encoding", FEATURE_ENCODINGS)
def test_store_of_each_encoding_answers_with_what_its_codec_decodes(
    tmp_path: Path, encoding: FeatureEncoding
) -> None:
    store = make_encoded_store(tmp_path / "s", encoding, IDS)
    assert Store.open(tmp_path / "s").card == store.card
    features, ok = Store.open(tmp_path / "s").fetch(store.get(IDS))
    expected = store.codec.decode(
        FeatureEncoder(store.codec).encode(np.stack([features_of(name) for name in IDS]))
    )
    assert ok.all()
    np.testing.assert_array_equal(features, expected)
    assert store.verify().ok
    assert store.info()["card"]["feature_encoding"] == encoding
    cache = FeatureCache(FeatureReader(tmp_path / "s", store.card), max_bytes=5 * store.codec.row_bytes)
    hits = 0
    for seed in range(20):
        sample = np.random.default_rng(seed).choice(len(IDS), 4, replace=False)
        fetched = cache.fetch(store.get([IDS[i] for i in sample]))
        np.testing.assert_array_equal(fetched.features, expected[sample], err_msg=f"seed {seed}")
        hits += fetched.hits
    assert hits > 0
    assert len(cache) == 5


@pytest.mark.parametrize("encoding", FEATURE_ENCODINGS)
def test_store_of_each_encoding_survives_delete_and_compact_bit_for_bit(
    tmp_path: Path, encoding: FeatureEncoding
) -> None:
    store = make_encoded_store(tmp_path / "s", encoding, IDS)
    deleted = [name for i, name in enumerate(IDS) if i % 4]
    remaining = {name: value for name, value in contents(store).items() if name not in deleted}
    with store.lease():
        assert store.delete(deleted) == len(deleted)
        report = store.compact(keep_versions_s=0.0)
    assert report.shards_rewritten == 3
    assert contents(store) == remaining
    assert store.verify().ok


@pytest.mark.parametrize("encoding", FEATURE_ENCODINGS)
def test_store_of_each_encoding_finds_and_repairs_damaged_features(
    tmp_path: Path, encoding: FeatureEncoding
) -> None:
    store = make_encoded_store(tmp_path / "s", encoding, IDS)
    whole = contents(store)
    [record] = store.get([IDS[5]])
    path = shard_path(tmp_path / "s", record.shard)
    data = bytearray(path.read_bytes())
    [row] = FeatureEncoder(store.codec).encode(features_of(IDS[5])[None])
    at = bytes(data).index(row.tobytes())
    data[at + len(row) // 2] ^= 4
    path.write_bytes(data)
    features, ok = store.fetch(store.get(IDS[4:8]))
    assert ok.tolist() == [True, False, True, True]
    assert not features[1].any()
    assert not verify_store(tmp_path / "s").ok
    assert sorted(repair_store(tmp_path / "s").removed) == sorted(IDS[4:8])
    assert verify_store(tmp_path / "s").ok
    again = Store.open(tmp_path / "s")
    with again.lease():
        again.commit(make_rows(again, IDS[4:8]))
    assert contents(again) == whole


def test_store_of_another_encoding_is_refused_and_named(tmp_path: Path) -> None:
    for encoding in FEATURE_ENCODINGS:
        store = make_encoded_store(tmp_path / encoding, encoding, IDS[:4])
        for other in FEATURE_ENCODINGS:
            if other != encoding and projected_channels(other, 4) is None:
                with pytest.raises(CardMismatch, match=r"feature_encoding.*--features"):
                    Store.create(tmp_path / encoding, make_card().stored_as(other))
                with pytest.raises(CardMismatch, match="feature_encoding"):
                    Store.open(tmp_path / encoding, card=make_card().stored_as(other))
        store.card.require_model(make_card())
        with pytest.raises(CardMismatch, match="weights_sha256"):
            store.card.require_model(dataclasses.replace(make_card(), weights_sha256="1" * 64))
        assert verify_store(tmp_path / encoding).ok


def test_store_without_the_field_is_float16_and_its_card_stays_as_it_was(tmp_path: Path) -> None:
    """A store as it was written before there were encodings: neither field in card.json, version 1."""
    store = make_encoded_store(tmp_path / "s", "float16", IDS)
    values: dict[str, Any] = json.loads((tmp_path / "s" / "card.json").read_text())
    assert values["format_version"] == 1
    assert not {"feature_encoding", "projection_sha256"} & set(values)
    old = Store.open(tmp_path / "s")
    features, ok = old.fetch(old.get(IDS))
    assert ok.all()
    assert features.tobytes() == np.stack([features_of(name) for name in IDS]).tobytes()
    with pytest.raises(CardMismatch, match="feature_encoding"):
        Store.create(tmp_path / "s", store.card.stored_as("int4"))


def test_features_written_before_there_were_encodings_are_read_bit_for_bit(tmp_path: Path) -> None:
    shutil.copytree(GOLDEN / "store_v1", tmp_path / "old")
    text = (tmp_path / "old" / "card.json").read_text()
    card = Card.from_json(text)
    assert card == make_card()
    assert card.to_json() == text
    [path] = (tmp_path / "old" / FEATURES_FOLDER).glob("*.parquet")
    ids = [f"image-{i}" for i in range(3)]
    records = [ImageRecord(k, "", "", 1, 1, Position(), None, None, path.stem, i) for i, k in enumerate(ids)]
    features, ok = FeatureReader(tmp_path / "old", card).fetch(records)
    assert ok.all()
    assert features.dtype == np.float16
    assert features.tobytes() == np.stack([features_of(name) for name in ids]).tobytes()


def test_card_of_an_encoding_asks_older_programs_to_upgrade() -> None:
    for encoding in FEATURE_ENCODINGS:
        values = json.loads(make_card().stored_as(encoding).to_json())
        assert values["format_version"] == (1 if encoding == "float16" else 2)
        assert Card.from_json(json.dumps(values)).feature_encoding == encoding


def test_card_of_an_unknown_encoding_is_refused() -> None:
    values = json.loads(make_card().stored_as("int4").to_json()) | {"feature_encoding": "int3"}
    with pytest.raises(CorruptStore, match="int3"):
        Card.from_json(json.dumps(values))
    with pytest.raises(InvalidBatch, match="int3"):
        make_card().stored_as("int3")  # type: ignore[arg-type]


@pytest.mark.parametrize("damage", ["gone", "flipped", "short"])
def test_store_with_a_damaged_projection_is_named_and_never_answers(tmp_path: Path, damage: str) -> None:
    store = make_encoded_store(tmp_path / "s", "int4-pca64", IDS)
    assert store.card.projection_sha256 is not None
    path = projection_path(tmp_path / "s", store.card.projection_sha256)
    data = bytearray(path.read_bytes())
    if damage == "gone":
        os.unlink(path)
    else:
        data[7] ^= 1
        path.write_bytes(data if damage == "flipped" else data[:-4])
    with pytest.raises(CorruptStore, match="projection"):
        Store.open(tmp_path / "s")
    with pytest.raises(CorruptStore, match="projection"):
        open_codec(tmp_path / "s", store.card)
    report = verify_store(tmp_path / "s")
    assert not report.ok
    assert any("projection" in problem for problem in report.problems)


def test_store_interrupted_while_made_takes_a_newly_learned_projection(tmp_path: Path) -> None:
    make_encoded_store(tmp_path / "s", "int4-pca64")
    os.unlink(tmp_path / "s" / "COMMITTED")
    for name in os.listdir(tmp_path / "s" / "records.lance"):
        path = tmp_path / "s" / "records.lance" / name
        for file in path.iterdir():
            file.unlink()
        path.rmdir()
    (tmp_path / "s" / "records.lance").rmdir()
    projection = fit_projection(np.stack([features_of(f"other-{i}") for i in range(9)]), 4)
    card = make_card().stored_as("int4-pca64", projection_sha256=projection_sha256(projection))
    store = Store.create(tmp_path / "s", card, projection=projection)
    with store.lease():
        store.commit(make_rows(store, IDS))
    assert Store.open(tmp_path / "s").card.projection_sha256 == card.projection_sha256
    with pytest.raises(InvalidBatch, match="not the one named on the card"):
        Store.create(tmp_path / "t", card, projection=projection[::-1])
    with pytest.raises(InvalidBatch, match="projection"):
        Store.create(tmp_path / "u", card)


def test_shards_of_an_encoded_store_hold_one_row_an_image(tmp_path: Path) -> None:
    store = make_encoded_store(tmp_path / "s", "int2", IDS)
    assert sorted(len(rows) for rows in rows_by_shard(store.snapshot.table).values()) == [4, 4, 4]
    assert len(list((tmp_path / "s" / FEATURES_FOLDER).iterdir())) == 3
