"""Features read from a bucket: in few round trips, checked, kept on local disk."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from benchmarks.slow_bucket import slow_bucket
from storage.features.bucket_reader import BucketFeatureReader
from storage.features.disk_cache import DiskCache
from storage.features.reader import FeatureReader
from storage.features.shards import write_shard
from storage.objects.bucket_path import BucketPath
from storage.objects.location import open_location
from storage.position import Position
from storage.records import ImageRecord
from storage.store import Store
from tests.support.fault_proxy import FaultProxy
from tests.support.object_servers import ENVIRONMENT
from tests.support.store_samples import features_of, make_card, make_store

IDS = [f"id{i:03d}" for i in range(30)]


@pytest.fixture(scope="module")
def store(moto_url: str) -> Iterator[Store]:
    """Only read by the tests, since each of its 30 commits takes a while."""
    with pytest.MonkeyPatch.context() as environment:
        for name, value in ENVIRONMENT.items():
            environment.setenv(name, value)
        yield make_store(f"s3://placeray/{uuid.uuid4().hex}?endpoint={moto_url}", IDS, batch=1)


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


@pytest.mark.parametrize(("shards", "rows", "trips"), [(100, 1, 4), (3, 600, 3), (1, 5_000, 4)])
def test_a_hundred_candidates_take_at_most_six_round_trips_and_none_again(
    shards: int, rows: int, trips: int, tmp_path: Path
) -> None:
    """The second kind of shard has a footer beyond what is read first, and the third a row table too."""
    card = make_card()
    ids = [[f"{shard}-{row}" for row in range(rows)] for shard in range(shards)]
    width = FeatureReader(tmp_path, card).codec.row_bytes
    features = np.random.default_rng(0).integers(0, 256, (shards, rows, width), dtype=np.uint8)
    (tmp_path / "city/features").mkdir(parents=True)
    names = [write_shard(str(tmp_path / "city"), *each) for each in zip(ids, features, strict=True)]
    assert [(tmp_path / "city/features" / f"{name}.parquet").exists() for name in names] == [True] * shards
    chosen = [divmod(number * (shards * rows // 100), rows) for number in range(100)]
    records = [
        ImageRecord(ids[s][row], "", "", 1, 1, Position(), None, None, names[s], row) for s, row in chosen
    ]
    with slow_bucket(tmp_path, None) as bucket:
        options = {"endpoint": bucket.url, "skip_signature": "true", "cache_dir": str(tmp_path / "cache")}
        location = open_location("s3://bucket/city", options)
        assert isinstance(location, BucketPath)
        reader = BucketFeatureReader(location, card)
        for expected in (trips, 0):
            found, ok = reader.fetch_encoded(records)
            assert ok.all()
            np.testing.assert_array_equal(found, [features[s][row] for s, row in chosen])
            assert bucket.steps == expected <= 6
            bucket.forget()
        found, ok = BucketFeatureReader(location, card).fetch_encoded(records)  # another process
        assert ok.all()
        assert bucket.requests == 0


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
