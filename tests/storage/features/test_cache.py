"""The feature cache returns what the shards hold, within its size limit."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest

from storage.features.cache import FeatureCache
from storage.features.reader import FeatureReader
from storage.features.shards import shard_path
from storage.records import ImageRecord
from storage.store import Store
from tests.support.store_samples import CHANNELS, GRID, features_of, make_store

IDS = [f"photo-{number:02d}" for number in range(30)]
ROW_BYTES = GRID * GRID * CHANNELS * 2


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return make_store(tmp_path / "s", IDS)


def cache_of(store: Store, rows: float) -> FeatureCache:
    reader = FeatureReader(Path(store.uri), store.card)
    return FeatureCache(reader, max_bytes=int(rows * ROW_BYTES))


def records(store: Store, ids: list[str]) -> list[ImageRecord]:
    records = store.get(ids)
    assert [record.image_id for record in records] == ids
    return records


@pytest.mark.parametrize("rows", [0, 0.5, 1, 7, 100])
def test_cache_returns_stored_features_within_its_size_limit(store: Store, rows: float) -> None:
    cache = cache_of(store, rows)
    generator = np.random.default_rng(1)
    hits = 0
    for _ in range(40):
        ids = list(generator.choice(IDS, size=generator.integers(1, 12), replace=False))
        fetched = cache.fetch(records(store, ids))
        assert fetched.ok.all()
        expected = np.stack([features_of(image_id) for image_id in ids])
        np.testing.assert_array_equal(fetched.features, expected, err_msg=f"{rows} rows, {ids}")
        assert len(cache) <= int(rows)
        hits += fetched.hits
    assert (hits > 0) == (rows >= 1)
    if rows == 100:
        assert cache.fetch(records(store, IDS)).hits == len(IDS)


def test_cache_evicts_the_least_recently_used(store: Store) -> None:
    cache = cache_of(store, 3)
    for name in (IDS[0], IDS[1], IDS[2], IDS[0], IDS[3]):
        cache.fetch(records(store, [name]))
    assert [cache.fetch(records(store, [name])).hits for name in (IDS[0], IDS[2], IDS[3])] == [1, 1, 1]
    assert cache.fetch(records(store, [IDS[1]])).hits == 0


def test_cache_does_not_keep_unreadable_rows(store: Store) -> None:
    cache = cache_of(store, 100)
    good, bad = records(store, [IDS[0], IDS[15]])
    path = shard_path(Path(store.uri), bad.shard)
    os.rename(path, path.with_suffix(".away"))
    for _ in range(2):
        fetched = cache.fetch([good, bad])
        assert fetched.ok.tolist() == [True, False]
        assert not fetched.features[1].any()
    os.rename(path.with_suffix(".away"), path)
    fetched = cache.fetch([bad, good])
    assert fetched.ok.all()
    assert fetched.hits == 1
    np.testing.assert_array_equal(fetched.features[0], features_of(IDS[15]))
