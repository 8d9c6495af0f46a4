"""Stores written by earlier releases open, are searched, fetched from and verified."""

from __future__ import annotations

import hashlib
import shutil
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from storage.card import Card, FeatureEncoding
from storage.card_files import read_card
from storage.commit.current_card import current_card
from storage.commit.ledger import manifests
from storage.features.whitening import whitening_bytes
from storage.search.snapshot import Snapshot
from storage.store import Store
from storage.table.lance_table import LanceTable
from tests.support.paths import GOLDEN
from tests.support.store_samples import RELEARNED, RELEARNED_DIM, descriptor_of, make_rows, sample_whitening


@pytest.mark.parametrize(
    ("name", "format_version", "encoding"),
    [("store_v1_float16", 1, "float16"), ("store_v2_int4_pca64", 2, "int4-pca64")],
)
def test_golden_store_is_read_as_it_was_written(
    tmp_path: Path, name: str, format_version: int, encoding: FeatureEncoding
) -> None:
    shutil.copytree(GOLDEN / name, tmp_path / "s")
    with np.load(GOLDEN / f"{name}.npz") as golden:
        expected = dict(golden)
    image_ids = expected["image_ids"].tolist()
    store = Store.open(tmp_path / "s")
    assert (store.card.format_version, store.card.feature_encoding) == (format_version, encoding)
    assert (store.version, store.count) == (3, 6)

    hits = store.search(np.stack([descriptor_of(image_id) for image_id in image_ids]), k=3)
    assert [[hit.record.image_id for hit in row] for row in hits] == expected["hits"].tolist()
    similarities = [[hit.similarity for hit in row] for row in hits]
    np.testing.assert_allclose(similarities, expected["similarities"], atol=1e-6)

    features, ok = store.fetch(store.get(image_ids))
    assert ok.all()
    assert features.dtype == expected["features"].dtype
    np.testing.assert_array_equal(features, expected["features"])
    assert store.verify().ok

    with store.lease():
        store.commit(make_rows(store, ["new", image_ids[0]], 1))
        assert store.count == 7
        assert store.card.format_version == format_version
        store.upgrade()
        store.amend(pa.table({"image_id": ["new"], "tags": ['["grown"]']}))
    assert (store.count, store.card.format_version) == (7, 3)
    assert [record.tags for record in store.get(["new", image_ids[1]])] == ['["grown"]', None]
    assert store.verify().ok


def test_golden_store_of_format_3_is_read_as_it_was_written(tmp_path: Path) -> None:
    shutil.copytree(GOLDEN / "store_v3_relearned", tmp_path / "s")
    with np.load(GOLDEN / "store_v3_relearned.npz") as golden:
        expected = dict(golden)
    image_ids = expected["image_ids"].tolist()
    store = Store.open(tmp_path / "s")
    assert (store.card.format_version, store.card.descriptor_dim) == (3, RELEARNED_DIM)
    assert (store.version, store.count) == (int(expected["version"]), 6)
    words, whitening = (store.artifact(digest) for digest in store.card.artifacts)
    assert (words, whitening) == (b"words, second lesson", whitening_bytes(sample_whitening()))
    np.testing.assert_array_equal(store.codec.whitening, sample_whitening())

    generations = [0, *[RELEARNED] * 5]
    queries = [descriptor_of(k, g, dim=RELEARNED_DIM) for k, g in zip(image_ids, generations, strict=True)]
    hits = store.search(np.stack(queries), k=3)
    assert [[hit.record.image_id for hit in row] for row in hits] == expected["hits"].tolist()
    similarities = [[hit.similarity for hit in row] for row in hits]
    np.testing.assert_allclose(similarities, expected["similarities"], atol=1e-6)
    features, ok = store.fetch(store.get(image_ids))
    assert ok.all()
    np.testing.assert_array_equal(features, expected["features"])
    sources = [record.source for record in store.get(image_ids)]
    assert sources == ["/photos/north"] * 5 + [None]
    assert store.get(image_ids)[1].tags == '["image-1", "d\u00e4mmerung"]'
    assert sorted(store.rows_of_source("/photos/north")) == image_ids[:5]
    assert store.verify().ok

    former = Snapshot(tmp_path / "s", *former_version(tmp_path / "s"))
    query = descriptor_of(image_ids[2], 0, dim=RELEARNED_DIM)[None]
    assert former.search(query, k=1)[0][0].record.image_id == image_ids[2]

    again = store.card.stored_as(
        "float16",
        aggregation_sha256=hashlib.sha256(b"third").hexdigest(),
        descriptor_dim=8,
        local_whitening_sha256=store.card.local_whitening_sha256,
    )
    with store.lease():
        store.commit(make_rows(store, ["new", image_ids[0]], 1))
        keys = store.rows_to_describe(again)
        vectors = np.stack([descriptor_of(key, 7, dim=8) for key in keys])
        store.replace_descriptors(again, [(keys, vectors)], artifacts=[b"third"])
    assert store.search(descriptor_of("new", 7, dim=8)[None], k=1)[0][0].record.image_id == "new"
    assert store.verify().ok


def former_version(folder: Path) -> tuple[Card, int, int]:
    """Return the card of the newest version of the first aggregation, its number, and its rows."""
    table = next(
        table
        for version in reversed(manifests(folder))
        if (table := LanceTable.open(folder, version=version)).card_sha256 != current_card(folder).sha256
        and not [name for name in table.schema.names if name.endswith("_next")]
    )
    return read_card(folder, table.card_sha256), table.version, table.count()
