"""Features read from a bucket: in few round trips, checked, kept on local disk."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from storage.features.bucket_reader import BucketFeatureReader
from storage.features.disk_cache import DiskCache
from storage.objects.bucket_path import BucketPath
from storage.objects.location import open_location
from storage.records import ImageRecord
from storage.store import Store
from tests.support.fault_proxy import FaultProxy
from tests.support.store_samples import features_of, make_store

IDS = [f"id{i:03d}" for i in range(30)]


@pytest.fixture
def store(bucket_uri: str) -> Store:
    return make_store(bucket_uri, IDS, batch=1)


def reader_of(store: Store, faulty: FaultProxy, cache: Path, gib: str = "1") -> BucketFeatureReader:
    address = store.uri.partition("?")[0]
    options = {"endpoint": faulty.url, "cache_dir": str(cache), "cache_gib": gib, "timeout_s": "2"}
    location = open_location(address, options)
    assert isinstance(location, BucketPath)
    return BucketFeatureReader(location, store.card)


def check(features: np.ndarray, records: list[ImageRecord]) -> None:
    for at, record in enumerate(records):
        np.testing.assert_array_equal(features[at], features_of(record.image_id))


def test_rows_cost_two_requests_each_at_first_and_none_later(
    store: Store, faulty: FaultProxy, tmp_path: Path
) -> None:
    records = store.get(IDS)
    reader = reader_of(store, faulty, tmp_path)
    features, ok = reader.fetch(records)
    assert ok.all()
    check(features, records)
    assert len(faulty.seen) == 2 * len(IDS)  # the end of each shard, then the row, both in parallel
    faulty.seen.clear()
    for again in (reader, reader_of(store, faulty, tmp_path)):  # the second knows only the disk
        features, ok = again.fetch(records)
        assert ok.all()
        check(features, records)
    assert faulty.seen == []


def test_without_a_cache_row_tables_are_still_known(store: Store, faulty: FaultProxy, tmp_path: Path) -> None:
    reader = reader_of(store, faulty, tmp_path / "none", gib="0")
    records = store.get(IDS[:5])
    reader.fetch(records)
    faulty.seen.clear()
    assert reader.fetch(records)[1].all()
    assert len(faulty.seen) == 5
    assert not (tmp_path / "none").exists()


def test_damaged_entries_of_the_cache_are_read_again(
    store: Store, faulty: FaultProxy, tmp_path: Path
) -> None:
    records = store.get(IDS[:5])
    reader_of(store, faulty, tmp_path).fetch(records)
    for path in tmp_path.rglob("*"):
        if path.is_file():
            data = bytearray(path.read_bytes())
            data[-1] ^= 1
            path.write_bytes(data)
    features, ok = reader_of(store, faulty, tmp_path).fetch(records)
    assert ok.all()
    check(features, records)


def test_a_byte_that_flips_on_the_way_is_noticed_and_read_once_more(
    store: Store, faulty: FaultProxy, tmp_path: Path
) -> None:
    records = store.get(IDS[:6])
    reader = reader_of(store, faulty, tmp_path, gib="0")
    reader.fetch(records)
    faulty.fail("flipped byte", method="GET", times=1)
    features, ok = reader.fetch(records)
    assert ok.all()
    check(features, records)
    faulty.fail("flipped byte", method="GET")
    features, ok = reader.fetch(records)
    assert not ok.any()
    assert not features.any()


def test_rows_that_are_missing_or_of_others_are_not_ok(
    store: Store, faulty: FaultProxy, tmp_path: Path
) -> None:
    first, second, third = store.get(IDS[:3])
    reader = reader_of(store, faulty, tmp_path)
    wrong = [
        replace(first, image_id="other"),
        replace(second, row=7),
        replace(third, shard=f"{'0' * 32}-{'0' * 8}"),
        replace(third, shard="../card.json"),
    ]
    features, ok = reader.fetch([first, *wrong])
    assert ok.tolist() == [True, False, False, False, False]
    assert not features[1:].any()
    assert reader.fetch([])[0].shape[0] == 0


def test_a_full_cache_forgets_the_least_recently_used(tmp_path: Path) -> None:
    cache = DiskCache(tmp_path, max_bytes=1000)
    for i in range(40):
        cache.put(f"row {i}", bytes([i]) * 50)
        cache.get("row 0")
    size = sum(path.stat().st_size for path in tmp_path.rglob("*") if path.is_file())
    assert size <= 1100
    assert cache.get("row 39") == bytes([39]) * 50
    assert cache.get("row 5") is None
    cache.put("large", b"x" * 500)
    assert cache.get("large") is None


def test_a_cache_that_cannot_be_written_is_empty(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    cache = DiskCache(tmp_path / "file" / "cache")
    cache.put("a", b"1")
    assert cache.get("a") is None
