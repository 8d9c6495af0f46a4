"""Stores of every feature encoding keep the promises of a store."""

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
from storage.card import FEATURE_ENCODINGS, Card, FeatureEncoding
from storage.care.compaction import rows_by_shard
from storage.care.repair import repair_store
from storage.care.verify import verify_store
from storage.errors import CardMismatch, CorruptStore, InvalidBatch
from storage.features.cache import FeatureCache
from storage.features.encodings import open_codec, projected_channels
from storage.features.projection import fit_projection, projection_path, projection_sha256
from storage.features.reader import FeatureReader
from storage.features.shards import shard_path
from storage.layout import FEATURES_FOLDER
from storage.position import Position
from storage.records import ImageRecord
from storage.store import Store
from tests.support.encoded_features import ENCODED_IDS, make_encoded_store
from tests.support.paths import GOLDEN
from tests.support.store_samples import contents, features_of, make_card, make_old_store, make_rows


@pytest.mark.parametrize("encoding", FEATURE_ENCODINGS)
def test_store_of_each_encoding_returns_decoded_features(tmp_path: Path, encoding: FeatureEncoding) -> None:
    store = make_encoded_store(tmp_path / "s", encoding, ENCODED_IDS)
    assert Store.open(tmp_path / "s").card == store.card
    features, ok = Store.open(tmp_path / "s").fetch(store.get(ENCODED_IDS))
    expected = store.codec.decode(
        FeatureEncoder(store.codec).encode(np.stack([features_of(name) for name in ENCODED_IDS]))
    )
    assert ok.all()
    np.testing.assert_array_equal(features, expected)
    assert store.verify().ok
    assert store.info()["card"]["feature_encoding"] == encoding
    cache = FeatureCache(FeatureReader(tmp_path / "s", store.card), max_bytes=5 * store.codec.row_bytes)
    hits = 0
    for seed in range(20):
        sample = np.random.default_rng(seed).choice(len(ENCODED_IDS), 4, replace=False)
        fetched = cache.fetch(store.get([ENCODED_IDS[i] for i in sample]))
        np.testing.assert_array_equal(fetched.features, expected[sample], err_msg=f"seed {seed}")
        hits += fetched.hits
    assert hits > 0
    assert len(cache) == 5


@pytest.mark.parametrize("encoding", FEATURE_ENCODINGS)
def test_store_of_each_encoding_survives_delete_and_compact_bit_for_bit(
    tmp_path: Path, encoding: FeatureEncoding
) -> None:
    store = make_encoded_store(tmp_path / "s", encoding, ENCODED_IDS)
    deleted = [name for i, name in enumerate(ENCODED_IDS) if i % 4]
    remaining = {name: value for name, value in contents(store).items() if name not in deleted}
    with store.lease():
        assert store.delete(deleted) == len(deleted)
        report = store.compact(keep_versions_s=0.0)
    assert report.shards_rewritten == 3
    assert contents(store) == remaining
    assert store.verify().ok


@pytest.mark.parametrize("encoding", FEATURE_ENCODINGS)
def test_store_of_each_encoding_detects_and_repairs_damaged_features(
    tmp_path: Path, encoding: FeatureEncoding
) -> None:
    store = make_encoded_store(tmp_path / "s", encoding, ENCODED_IDS)
    whole = contents(store)
    [record] = store.get([ENCODED_IDS[5]])
    path = shard_path(tmp_path / "s", record.shard)
    data = bytearray(path.read_bytes())
    [row] = FeatureEncoder(store.codec).encode(features_of(ENCODED_IDS[5])[None])
    at = bytes(data).index(row.tobytes())
    data[at + len(row) // 2] ^= 4
    path.write_bytes(data)
    features, ok = store.fetch(store.get(ENCODED_IDS[4:8]))
    assert ok.tolist() == [True, False, True, True]
    assert not features[1].any()
    assert not verify_store(tmp_path / "s").ok
    assert sorted(repair_store(tmp_path / "s").removed) == sorted(ENCODED_IDS[4:8])
    assert verify_store(tmp_path / "s").ok
    again = Store.open(tmp_path / "s")
    with again.lease():
        again.commit(make_rows(again, ENCODED_IDS[4:8]))
    assert contents(again) == whole


def test_store_of_another_encoding_is_refused_and_named(tmp_path: Path) -> None:
    for encoding in FEATURE_ENCODINGS:
        store = make_encoded_store(tmp_path / encoding, encoding, ENCODED_IDS[:4])
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


def test_card_without_an_encoding_is_float16_and_stays_unchanged(tmp_path: Path) -> None:
    """A store as it was written before there were encodings: neither field in card.json, version 1."""
    store = make_old_store(tmp_path / "s", ENCODED_IDS)
    values: dict[str, Any] = json.loads((tmp_path / "s" / "card.json").read_text())
    assert values["format_version"] == 1
    assert not {"feature_encoding", "projection_sha256"} & set(values)
    old = Store.open(tmp_path / "s")
    features, ok = old.fetch(old.get(ENCODED_IDS))
    assert ok.all()
    assert features.tobytes() == np.stack([features_of(name) for name in ENCODED_IDS]).tobytes()
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


@pytest.mark.parametrize("damage", ["gone", "flipped", "short"])
def test_store_with_a_damaged_projection_does_not_open(tmp_path: Path, damage: str) -> None:
    store = make_encoded_store(tmp_path / "s", "int4-pca64", ENCODED_IDS)
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


def test_store_interrupted_during_creation_accepts_a_new_projection(tmp_path: Path) -> None:
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
        store.commit(make_rows(store, ENCODED_IDS))
    assert Store.open(tmp_path / "s").card.projection_sha256 == card.projection_sha256
    with pytest.raises(InvalidBatch, match="not the one named on the card"):
        Store.create(tmp_path / "t", card, projection=projection[::-1])
    with pytest.raises(InvalidBatch, match="projection"):
        Store.create(tmp_path / "u", card)


def test_shards_of_an_encoded_store_hold_one_row_per_image(tmp_path: Path) -> None:
    store = make_encoded_store(tmp_path / "s", "int2", ENCODED_IDS)
    assert sorted(len(rows) for rows in rows_by_shard(store.snapshot.table).values()) == [4, 4, 4]
    assert len(list((tmp_path / "s" / FEATURES_FOLDER).iterdir())) == 3
