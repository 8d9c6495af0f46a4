"""A store in a bucket does what one in a folder does: every operation, on a real server."""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from storage.care.copying import copy_store
from storage.care.repair import repair_store
from storage.care.verify import verify_store
from storage.commit.version_tags import NoSuchVersion
from storage.errors import CardMismatch, CorruptStore, InvalidBatch, StoreNotFound
from storage.objects.location import objects_of, open_location
from storage.objects.protocol import ObjectStore
from storage.store import Store
from tests.support.store_samples import contents, descriptor_of, make_card, make_rows, rows_of

IDS = [f"id{i:02d}" for i in range(25)]


@pytest.fixture
def store_uri(bucket_uri: str, tmp_path: Path) -> str:
    return f"{bucket_uri}&cache_dir={tmp_path / 'cache'}"


@pytest.fixture
def store(store_uri: str) -> Store:
    store = Store.create(store_uri, make_card())
    with store.lease():
        for start in range(0, len(IDS), 10):
            store.commit(make_rows(store, IDS[start : start + 10]))
    return store


def objects_at(store: Store) -> ObjectStore:
    return objects_of(open_location(store.uri))


def test_rows_and_features_are_those_of_a_folder(store: Store, tmp_path: Path) -> None:
    local = Store.create(tmp_path / "local", make_card())
    with local.lease():
        local.commit(make_rows(local, IDS))
    again = Store.open(store.uri)
    assert again.version == store.version
    assert again.count == len(IDS)
    assert contents(again) == contents(local)
    queries = np.stack([descriptor_of(key) for key in IDS[:5]])
    for method in ("exact", "lance"):
        hits = again.search(queries, k=3, method=method)  # type: ignore[arg-type]
        expected = local.search(queries, k=3)
        assert [[hit.record.image_id for hit in each] for each in hits] == [
            [hit.record.image_id for hit in each] for each in expected
        ]
    report = again.verify()
    assert report.ok, report
    assert report.rows == len(IDS)
    info = again.info()
    assert (info["rows"], info["shards"], info["leftovers"]) == (25, 3, "none")
    assert info["bytes"] > 10_000


def test_rows_are_replaced_amended_and_deleted(store: Store) -> None:
    with store.lease():
        store.commit(make_rows(store, ["id03", "new"], 1))
        store.amend(pa.table({"image_id": ["id04"], "lat": [12.5], "lon": [1.0]}))
        assert store.delete(["id05", "absent"]) == 1
        with pytest.raises(InvalidBatch, match="does not exist"):
            store.commit(rows_of(store.card, ["x"], shard=f"{'0' * 32}-{'0' * 8}"))
    again = Store.open(store.uri)
    assert again.count == len(IDS)
    [replaced, amended] = again.get(["id03", "id04"])
    assert replaced.uri.endswith("g=1")
    assert amended.lat == 12.5
    assert again.get(["id05"]) == []
    assert again.verify().ok


def test_a_store_is_created_once(store: Store, store_uri: str, bucket_uri: str) -> None:
    assert Store.create(store_uri, make_card()).count == len(IDS)
    with pytest.raises(CardMismatch):
        Store.create(store_uri, make_card(model="other"))
    with pytest.raises(StoreNotFound):
        Store.open(bucket_uri.replace("?", "/elsewhere?"))


def test_descriptors_are_replaced_as_one_version(store: Store) -> None:
    words = b"words of a lesson"
    digest = hashlib.sha256(words).hexdigest()
    card = store.card.stored_as("float16", aggregation_sha256=digest, descriptor_dim=24)
    with store.lease():
        keys = store.rows_to_describe(card)
        vectors = np.stack([descriptor_of(key, 7, dim=24) for key in keys])
        store.replace_descriptors(card, [(keys, vectors)], artifacts=[words])
    again = Store.open(store.uri)
    assert again.card == card
    assert again.artifact(digest) == words
    hits = again.search(descriptor_of("id07", 7, dim=24)[None], k=1)
    assert hits[0][0].record.image_id == "id07"
    assert again.verify().ok


def test_compaction_keeps_rows_and_frees_what_is_unused(store: Store) -> None:
    before = contents(store)
    with store.lease():
        store.delete(IDS[:18])
        preview = store.preview_compaction(min_age_s=0.0)
        report = store.compact(keep_versions_s=0.0, min_age_s=0.0)
    assert preview.leftover_files == 1
    assert report.versions_removed > 2
    assert report.files_removed
    again = Store.open(store.uri)
    assert contents(again) == {key: before[key] for key in IDS[18:]}
    assert again.verify().ok
    names = [each.name for each in objects_at(store).list()]
    assert sum(name.startswith("ledger/") for name in names) < 4


def test_damage_is_reported_and_repaired(store: Store) -> None:
    objects = objects_at(store)
    before = contents(store)
    bad, missing = store.get(["id02", "id12"])
    shard = f"features/{bad.shard}.parquet"
    data = bytearray(objects.get(shard, 1 << 30).data)
    data[len(data) // 2] ^= 1
    objects.put(shard, bytes(data))
    objects.delete([f"features/{missing.shard}.parquet"])
    report = verify_store(store.uri)
    assert not report.ok
    assert report.corrupt_shards == [bad.shard]
    assert report.missing_shards == [missing.shard]
    repaired = repair_store(store.uri)
    assert repaired.removed == IDS[:20]
    again = Store.open(store.uri)
    assert contents(again) == {key: before[key] for key in IDS[20:]}
    assert verify_store(store.uri).ok
    with again.lease():
        again.commit(make_rows(again, IDS[:20]))
    assert contents(Store.open(store.uri)) == before


def test_a_damaged_data_file_loses_no_row_that_can_be_read(store: Store) -> None:
    objects = objects_at(store)
    name = next(each.name for each in objects.list("records.lance/data"))
    data = bytearray(objects.get(name, 1 << 30).data)
    data[40] ^= 0xFF  # among the values
    objects.put(name, bytes(data))
    report = verify_store(store.uri)
    assert report.damaged_files == [name]
    repaired = repair_store(store.uri)
    assert verify_store(store.uri).ok
    again = Store.open(store.uri)
    assert again.count >= len(IDS) - 10
    assert again.count + len(repaired.removed) + repaired.removed_unnamed == len(IDS)


def test_damaged_objects_are_never_used(store: Store) -> None:
    objects = objects_at(store)
    objects.put("COMMITTED", b"not JSON")
    with pytest.raises(CorruptStore, match="COMMITTED cannot be read"):
        Store.open(store.uri)
    objects.delete(["COMMITTED"])
    with pytest.raises(CorruptStore, match="COMMITTED is missing"):
        Store.open(store.uri)
    objects.put("card.json", b"{}")
    with pytest.raises(CorruptStore):
        Store.open(store.uri)


def test_search_follows_by_what_differs_and_versions_cannot_be_gone_back_to(store: Store) -> None:
    reader = Store.open(store.uri)
    queries = np.stack([descriptor_of(key) for key in IDS[:4]])
    reader.search(queries, k=1)
    with store.lease():
        store.delete(IDS[:2])
        store.commit(make_rows(store, [IDS[5], "new"], generation=2))
        store.compact(keep_versions_s=3600)
    assert reader.refresh()
    assert reader.search(queries, k=30) == Store.open(store.uri).search(queries, k=30)
    assert [each.rows for each in store.versions()][-1] == 24
    with store.lease():
        report = store.forget([IDS[7]])
    assert report.deleted == 1
    assert store.verify().ok
    for each in objects_at(store).list():
        assert IDS[7].encode() not in objects_at(store).get(each.name, 1 << 24)[0], each.name


def test_versions_are_tagged_kept_gone_back_to_and_copied(store: Store, tmp_path: Path) -> None:
    expected = contents(store)
    with store.lease():
        tagged = store.tag_version("june")
        store.tag_version("gone")
        store.remove_tag("gone")
        store.commit(make_rows(store, [*IDS[:5], "new"], 3))
        store.delete(IDS[10:12])
        store.compact(keep_versions_s=0.0, min_age_s=0.0)
    versions = store.versions()
    assert [each.tags for each in versions if each.tags] == [("june",)]
    assert (versions[0].change, versions[-1].change) == ("wrote 5 rows", "compacted")
    assert "@" in versions[-1].by
    at = Store.open(store.uri, at="june")
    assert (at.version, contents(at)) == (tagged, expected)
    with store.lease(), pytest.raises(NoSuchVersion, match="any more"):
        store.roll_back(str(tagged - 1))
    with store.lease():
        store.build_index(min_rows=0)
        newest = store.version
        assert store.roll_back("june") > newest
        assert store.version == store.tag_version("now")
    again = Store.open(store.uri)
    assert contents(again) == expected
    assert not again.has_index  # as in june
    queries = np.stack([descriptor_of(key) for key in IDS])
    nearest = again.search(queries, k=1, method="lance")
    assert [hits[0].record.image_id for hits in nearest] == IDS
    with again.lease():
        again.commit(make_rows(again, [IDS[0], "later"], 4))
        again.roll_back("now")
    copied = copy_store(store.uri, str(tmp_path / "copy"))
    assert copied.tags == ()
    with store.lease():
        store.tag_version("live")
    assert copy_store(store.uri, str(tmp_path / "other")).tags == ("live",)
    assert contents(Store.open(tmp_path / "other", at="live")) == expected
    assert again.verify().ok


def test_damaged_tags_are_named(store: Store) -> None:
    objects = objects_at(store)
    for data in (b"{", b'{"tags": [], "epoch": 1}', b'{"tags": {"a": "b"}, "epoch": 1}', b"{}"):
        objects.put("TAGS", data)
        with pytest.raises(CorruptStore, match="TAGS cannot be read"):
            Store.open(store.uri, at="june")
