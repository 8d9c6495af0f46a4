"""Stores written by earlier releases open, are searched, fetched from and verified."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest

from storage.card import FeatureEncoding
from storage.store import Store
from tests.support.paths import GOLDEN
from tests.support.store_samples import descriptor_of, make_rows


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
    assert store.verify().ok
