"""The store's promises, one by one."""

from __future__ import annotations

import dataclasses
import errno
import json
import os
import shutil
import threading
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from storage.care.repair import repair_store
from storage.care.verify import verify_store
from storage.commit.lease import Lease
from storage.commit.ledger import manifests, read_sums
from storage.commit.writer import Writer
from storage.errors import (
    CardMismatch,
    CorruptStore,
    InvalidBatch,
    OutOfSpace,
    StoreError,
    StoreLocked,
    StoreNotFound,
)
from storage.features.shards import FEATURES_FOLDER, shard_path
from storage.records import ImageRecord
from storage.store import Store
from storage.table.lance_table import LanceTable, manifest_name
from tests.support.store_samples import contents, descriptor_of, make_card, make_rows, make_store, rows_of

IDS = [f"id{i:02d}" for i in range(30)]


def head(folder: Path) -> Path:
    return folder / "records.lance/_versions" / manifest_name(manifests(folder)[-1])


def flip(path: Path, seed: int) -> None:
    data = bytearray(path.read_bytes())
    rng = np.random.default_rng(seed)
    data[rng.integers(len(data))] ^= 1 << int(rng.integers(8))
    path.write_bytes(data)


def amended(record: ImageRecord, *, captured_at: datetime | None, **position: Any) -> ImageRecord:
    moved = dataclasses.replace(record.position, **position)
    return dataclasses.replace(record, position=moved, captured_at=captured_at)


def test_create_makes_an_empty_store_that_opens(tmp_path: Path) -> None:
    store = Store.create(tmp_path / "a/b", make_card())
    opened = Store.open(str(tmp_path / "a/b"), card=make_card())
    assert (opened.count, opened.version, opened.card) == (0, store.version, make_card())
    assert opened.uri == os.fspath(tmp_path / "a/b")
    assert opened.metadata().num_rows == 0
    assert opened.verify().ok


def test_create_again_keeps_the_rows_and_refuses_another_card(tmp_path: Path) -> None:
    make_store(tmp_path, IDS)
    assert Store.create(tmp_path, make_card()).count == len(IDS)
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(CardMismatch, match="model"):
        Store.create(tmp_path, make_card(model="other"))
    with pytest.raises(CardMismatch, match="descriptor_dim"):
        Store.open(tmp_path, card=make_card(dim=8))
    assert sorted(tmp_path.rglob("*")) == before


def test_open_without_a_store_says_how_to_make_one(tmp_path: Path) -> None:
    for folder in (tmp_path, tmp_path / "missing"):
        with pytest.raises(StoreNotFound, match="placeray index"):
            Store.open(folder)
        with pytest.raises(StoreNotFound):
            verify_store(folder)
    assert not list(tmp_path.iterdir())


def test_open_object_store_uri_says_local_folders_only(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="local folders"):
        Store.open("s3://bucket/store")
    make_store(tmp_path, IDS)
    assert Store.open(tmp_path.as_uri()).count == len(IDS)


def test_open_newer_format_says_upgrade(tmp_path: Path) -> None:
    make_store(tmp_path)
    values = json.loads((tmp_path / "card.json").read_text())
    (tmp_path / "card.json").write_text(json.dumps(values | {"format_version": 99}))
    for use in (Store.open, verify_store, repair_store, lambda uri: Store.create(uri, make_card())):
        with pytest.raises(CardMismatch, match="upgrade"):
            use(tmp_path)


def test_commit_is_seen_by_readers_only_after_refresh(tmp_path: Path) -> None:
    store = make_store(tmp_path, IDS[:10])
    reader = Store.open(tmp_path)
    with store.lease():
        version = store.commit(make_rows(store, IDS[10:]))
    assert store.version == version > reader.version
    assert (store.count, reader.count) == (30, 10)
    query = descriptor_of(IDS[20])[None]
    assert reader.search(query, k=1)[0][0].record.image_id != IDS[20]
    assert reader.metadata().num_rows == 10
    assert reader.get(IDS[20:21]) == []
    assert reader.refresh()
    assert not reader.refresh()
    assert (reader.count, reader.version) == (30, version)
    assert reader.search(query, k=1)[0][0].record.image_id == IDS[20]


def test_commit_is_one_version_and_one_row_a_key(tmp_path: Path) -> None:
    store = make_store(tmp_path, IDS)
    with store.lease():
        for generation, ids in enumerate([IDS, IDS[5:15], [*IDS[:3], "new1", "new2"], ["new2", "new3"]], 1):
            before = store.version
            assert store.commit(make_rows(store, ids, generation)) == before + 1
    known = store.metadata()
    assert sorted(known["image_id"].to_pylist()) == sorted([*IDS, "new1", "new2", "new3"])
    uris = dict(zip(known["image_id"].to_pylist(), known["uri"].to_pylist(), strict=True))
    generations = {key: int(uri.rsplit("=", 1)[1]) for key, uri in uris.items()}
    assert [generations[key] for key in ("id00", "id05", "id20", "new2")] == [3, 2, 1, 4]
    assert store.verify().ok


def test_commit_after_delete_brings_a_row_back_once(tmp_path: Path) -> None:
    store = make_store(tmp_path, IDS)
    with store.lease():
        assert store.delete([*IDS[:4], "never there"]) == 4
        assert store.delete(IDS[:4]) == 0
        store.commit(make_rows(store, IDS[:2], 1))
    assert store.count == len(IDS) - 2
    assert [r.image_id for r in store.get(IDS[:6])] == [*IDS[:2], *IDS[4:6]]


def test_commit_empty_batch_makes_no_version(tmp_path: Path) -> None:
    store = make_store(tmp_path, IDS)
    with store.lease():
        assert store.commit(make_rows(store, ["x"]).slice(0, 0)) == store.version


@pytest.mark.parametrize("kind", ["nan", "norm", "width", "twice", "shard"])
def test_commit_invalid_batch_writes_nothing(tmp_path: Path, kind: str) -> None:
    store = make_store(tmp_path, IDS[:5])
    rows = make_rows(store, IDS[:3], 1)
    if kind in ("nan", "norm"):
        vectors = np.ones((3, 16), np.float16) * (np.nan if kind == "nan" else 1)
        column = pa.FixedSizeListArray.from_arrays(pa.array(vectors.reshape(-1)), 16)
        at = rows.schema.get_field_index("descriptor")
        rows = rows.set_column(at, rows.schema.field(at), column)
    elif kind == "width":
        rows = rows_of(make_card(dim=8), IDS[:3])
    elif kind == "twice":
        rows = pa.concat_tables([rows, rows])
    else:
        rows = rows_of(store.card, IDS[:3], shard="missing")
    files = sorted((tmp_path / "records.lance").rglob("*"))
    with store.lease(), pytest.raises(InvalidBatch):
        store.commit(rows)
    assert sorted((tmp_path / "records.lance").rglob("*")) == files
    assert (store.count, Store.open(tmp_path).count) == (5, 5)


def test_amend_replaces_metadata_and_nothing_else(tmp_path: Path) -> None:
    store = make_store(tmp_path, IDS)
    before = {r.image_id: r for r in store.get(IDS)}
    moment = datetime(2024, 5, 6, 7, 8, 9, 123456, tzinfo=UTC)
    rows = pa.table(
        {
            "image_id": [IDS[9], IDS[3]],
            "lat": [1.5, None],
            "utm_zone": ["1N", None],
            "captured_at": pa.array([moment, None], pa.timestamp("us", tz="UTC")),
        }
    )
    with store.lease():
        version = store.version
        assert store.amend(rows) == version + 1
    after = {r.image_id: r for r in store.get(IDS)}
    before[IDS[9]] = amended(before[IDS[9]], captured_at=moment, lat=1.5, utm_zone="1N")
    before[IDS[3]] = amended(before[IDS[3]], captured_at=None, lat=None, utm_zone=None)
    assert after == before
    assert store.verify().ok
    assert store.search(descriptor_of(IDS[9])[None], k=1)[0][0].record == before[IDS[9]]


@pytest.mark.parametrize(
    "columns",
    [
        {"image_id": ["id00"], "sha256": ["x"]},
        {"image_id": ["absent"], "lat": [1.0]},
        {"image_id": ["id00", "id00"], "lat": [1.0, 2.0]},
        {"image_id": ["id00"], "lat": [99.0]},
        {"image_id": ["id00"], "uri": [None]},
        {"lat": [1.0]},
    ],
)
def test_amend_invalid_rows_write_nothing(tmp_path: Path, columns: dict[str, list[object]]) -> None:
    store = make_store(tmp_path, IDS[:5])
    with store.lease(), pytest.raises(InvalidBatch):
        store.amend(pa.table(columns))
    assert store.version == Store.open(tmp_path).version == 2


def test_known_has_every_column_but_descriptor_and_checksum(tmp_path: Path) -> None:
    store = make_store(tmp_path, IDS)
    stored = LanceTable.open(tmp_path).take([]).schema.names
    assert set(store.metadata().column_names) == set(stored) - {"descriptor", "crc32"}


def test_get_keeps_the_asked_order(tmp_path: Path) -> None:
    store = make_store(tmp_path, IDS)
    requested = ["id07", "absent", "id01", "id22"]
    assert [r.image_id for r in store.get(requested)] == ["id07", "id01", "id22"]
    assert store.get([]) == []


def test_info_counts_what_is_there(tmp_path: Path) -> None:
    info = make_store(tmp_path, IDS).info()
    assert (info["rows"], info["shards"], info["model"], info["version"]) == (30, 3, "tiny", 4)
    assert info["bytes"] > 30 * (32 + 64)
    assert info["card"]["descriptor_dim"] == 16
    json.dumps(info)


def test_write_without_the_lease_is_refused(tmp_path: Path) -> None:
    store = make_store(tmp_path, IDS)
    rows = make_rows(store, ["x"])
    for write in (lambda: store.commit(rows), lambda: store.delete(["id00"]), lambda: store.amend(rows)):
        with pytest.raises(StoreLocked, match=r"store\.lease\(\)"):
            write()


def test_lease_second_writer_is_refused_at_once_and_readers_are_not(tmp_path: Path) -> None:
    store = make_store(tmp_path, IDS)
    with store.lease():
        began = time.monotonic()
        with pytest.raises(StoreLocked, match=str(os.getpid())), Store.open(tmp_path).lease():
            pass
        assert time.monotonic() - began < 2.0
        assert Store.open(tmp_path).count == len(IDS)
        with pytest.raises(StoreLocked):
            repair_store(tmp_path)
    with Store.open(tmp_path).lease():
        pass


def test_commit_after_losing_the_lease_writes_nothing(tmp_path: Path) -> None:
    store = make_store(tmp_path, IDS)
    with store.lease():
        rows = make_rows(store, ["x"])
        (tmp_path / "LEASE").write_text(json.dumps({"token": "another", "host": "h", "beat": time.time()}))
        with pytest.raises(StoreLocked, match="taken over"):
            store.commit(rows)
    assert LanceTable.open(tmp_path).count() == len(IDS)


def test_full_disk_while_committing_keeps_what_was_and_goes_on_later(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = make_store(tmp_path, IDS[:5])
    full = OSError(errno.ENOSPC, "No space left on device")

    def refuse(*args: object, **kwargs: object) -> None:
        raise full

    with store.lease():
        rows = make_rows(store, IDS[5:10])
        with monkeypatch.context() as patch:
            patch.setattr(LanceTable, "append", refuse)
            with pytest.raises(OutOfSpace, match="free some space"):
                store.commit(rows)
        with monkeypatch.context() as patch:  # full after LanceDB wrote, before it is acknowledged
            patch.setattr("storage.commit.ledger.os.fsync", refuse)
            with pytest.raises(OutOfSpace):
                store.commit(rows)
        assert Store.open(tmp_path).count == store.count == 5
        store.commit(rows)
        store.commit(make_rows(store, IDS[10:]))
    assert sorted(store.metadata()["image_id"].to_pylist()) == IDS
    assert store.verify().ok


def test_present_keys_are_known_to_a_writer_that_opens_later(tmp_path: Path) -> None:
    make_store(tmp_path, IDS)
    store = Store.open(tmp_path)
    with store.lease():
        store.commit(make_rows(store, IDS, 1))
    assert (store.count, len(contents(store))) == (30, 30)


def test_head_not_acknowledged_is_unseen_by_readers_and_taken_in_by_the_next_writer(tmp_path: Path) -> None:
    store = make_store(tmp_path, IDS[:10])
    before = (tmp_path / "COMMITTED").read_bytes()
    with store.lease():
        store.commit(make_rows(store, IDS[10:]))
    (tmp_path / "COMMITTED").write_bytes(before)
    reader = Store.open(tmp_path)
    assert reader.count == 10
    with reader.lease():
        assert reader.count == 30
    assert Store.open(tmp_path).count == 30


@pytest.mark.parametrize("kind", ["empty", "half", "short", "deleted", "flipped", "foreign", "committed"])
def test_open_damaged_head_refuses_and_repair_restores(tmp_path: Path, kind: str) -> None:
    make_store(tmp_path, IDS)
    path, acked = head(tmp_path), Store.open(tmp_path).version
    data = path.read_bytes()
    if kind == "deleted":
        path.unlink()
    elif kind == "foreign":
        (path.parent / "99.manifest").write_bytes(b"x")
    elif kind == "committed":
        (tmp_path / "COMMITTED").write_text("{")
    elif kind == "flipped":
        flip(path, 3)
    else:
        path.write_bytes(data[: {"empty": 0, "half": len(data) // 2, "short": len(data) - 1}[kind]])
    with pytest.raises(CorruptStore, match=f"placeray verify --store {tmp_path} --repair"):
        Store.open(tmp_path)
    assert not verify_store(tmp_path).ok
    report = repair_store(tmp_path)
    store = Store.open(tmp_path)
    assert verify_store(tmp_path).ok
    whole = kind in ("foreign", "committed")
    assert store.count == (30 if whole else 20)
    assert report.actions
    assert whole or f"went back to version {acked - 1} from {acked}" in " ".join(report.actions)
    assert (tmp_path / "quarantine").is_dir() == (kind != "deleted")
    with store.lease():
        store.commit(make_rows(store, IDS))
    assert len(contents(store)) == 30


@pytest.mark.parametrize("size", ["empty", "half", "short"])
def test_torn_head_never_acknowledged_is_repaired_without_loss(tmp_path: Path, size: str) -> None:
    store = make_store(tmp_path, IDS)
    before = (tmp_path / "COMMITTED").read_bytes()
    with store.lease():
        store.commit(make_rows(store, ["late"]))
    (tmp_path / "COMMITTED").write_bytes(before)
    data = head(tmp_path).read_bytes()
    head(tmp_path).write_bytes(data[: {"empty": 0, "half": len(data) // 2, "short": len(data) - 1}[size]])
    with pytest.raises(CorruptStore):
        Store.open(tmp_path)
    repair_store(tmp_path)
    store = Store.open(tmp_path)
    assert sorted(store.metadata()["image_id"].to_pylist()) == IDS
    with store.lease():
        store.commit(make_rows(store, ["late"]))
    assert store.count == 31


@pytest.mark.integration
@pytest.mark.parametrize("seeds", [range(6), pytest.param(range(6, 56), marks=pytest.mark.fault)])
def test_bit_flips_in_the_table_are_found_and_never_answered(tmp_path: Path, seeds: range) -> None:
    make_store(tmp_path / "good", IDS)
    truth = contents(Store.open(tmp_path / "good"))
    with Store.open(tmp_path / "good").lease():
        pass
    files = [name for name in sorted(read_sums(tmp_path / "good")) if "/data/" in name]
    queries = np.stack([descriptor_of(i) for i in IDS])
    for seed in seeds:
        folder = tmp_path / f"flip{seed}"
        shutil.copytree(tmp_path / "good", folder)
        flip(folder / files[seed % len(files)], seed)
        report = verify_store(folder)
        assert not report.ok, f"seed {seed}"
        store = Store.open(folder)
        for candidates in store.search(queries, k=30):
            for candidate in candidates:
                record = candidate.record
                assert truth[record.image_id][:2] == (record.uri, record.sha256), f"seed {seed}"
        assert store.degraded == bool(report.bad_rows), f"seed {seed}"
        assert len(store.search(queries[:1], k=30)[0]) == 30 - len(report.bad_rows), f"seed {seed}"
        repaired = repair_store(folder)
        store = Store.open(folder)
        assert store.verify().ok, f"seed {seed}: {store.verify()}"
        with store.lease():
            present = store.metadata()["image_id"].to_pylist()
            missing = [i for i in IDS if i not in present]
            assert len(missing) == len(repaired.removed) + repaired.removed_unnamed, f"seed {seed}"
            if missing:
                store.commit(make_rows(store, missing))
        assert contents(store) == truth, f"seed {seed}"
        shutil.rmtree(folder)


@pytest.mark.integration
@pytest.mark.parametrize("seeds", [range(6), pytest.param(range(6, 56), marks=pytest.mark.fault)])
def test_bit_flips_in_shards_are_found_and_never_answered(tmp_path: Path, seeds: range) -> None:
    make_store(tmp_path / "good", IDS)
    truth = contents(Store.open(tmp_path / "good"))
    shards = sorted(path.name for path in (tmp_path / "good" / FEATURES_FOLDER).iterdir())
    for seed in seeds:
        folder = tmp_path / f"flip{seed}"
        shutil.copytree(tmp_path / "good", folder)
        flip(folder / FEATURES_FOLDER / shards[seed % 3], seed)
        store = Store.open(folder)
        for image_id, values in contents(store).items():
            assert values[-1] in (None, truth[image_id][-1]), f"seed {seed}"
        report = store.verify()
        assert report.corrupt_shards == [shards[seed % 3].removesuffix(".parquet")], f"seed {seed}"
        repaired = store.repair()
        assert sorted(repaired.removed) == sorted(row.image_id or "" for row in report.bad_rows)
        assert len(repaired.removed) == 10
        with store.lease():
            store.commit(make_rows(store, repaired.removed))
        assert contents(store) == truth, f"seed {seed}"
        assert store.verify().ok, f"seed {seed}"
        shutil.rmtree(folder)


def test_missing_shard_is_reported_and_its_rows_are_removed(tmp_path: Path) -> None:
    store = make_store(tmp_path, IDS)
    removed = store.get(IDS[10:20])
    shard_path(tmp_path, removed[0].shard).unlink()
    _, ok = store.fetch(store.get(IDS))
    assert ok.tolist() == [True] * 10 + [False] * 10 + [True] * 10
    report = store.verify()
    assert report.missing_shards == [removed[0].shard]
    assert store.repair().removed == IDS[10:20]
    assert (store.count, store.verify().ok) == (20, True)


def test_verify_reports_leftovers_without_calling_them_damage(tmp_path: Path) -> None:
    store = make_store(tmp_path, IDS)
    orphan = make_rows(store, ["never committed"])["shard"][0].as_py()
    (tmp_path / FEATURES_FOLDER / ".abc.tmp").write_bytes(b"half")
    report = store.verify()
    assert report.ok
    assert (report.orphan_shards, report.temp_files, report.rows) == ([orphan], [".abc.tmp"], 30)


def test_verify_finds_keys_stored_twice_and_repair_keeps_the_latest(tmp_path: Path) -> None:
    store = make_store(tmp_path, IDS)
    with store.lease():
        writer = store._writer
        assert writer is not None
        writer.table.append(_stored(make_rows(store, IDS[:3], 1)))
        writer.change(lambda: None)
    report = verify_store(tmp_path)
    assert "3 keys are stored more than once" in " ".join(report.problems)
    store.repair()
    assert (store.count, store.verify().ok) == (30, True)
    assert store.get(IDS[:1])[0].uri.endswith("g=1")


def _stored(rows: pa.Table) -> pa.Table:
    from storage.table.checksums import add_checksums

    return add_checksums(rows)


def test_compact_keeps_rows_and_young_versions_and_drops_old_ones(tmp_path: Path) -> None:
    store = make_store(tmp_path, IDS, batch=2)
    truth, reader = contents(store), Store.open(tmp_path)
    report = store.compact()
    assert (report.versions_removed, report.version) == (0, store.version)
    assert contents(reader) == contents(store) == truth
    report = store.compact(keep_versions_s=0.0)
    assert report.versions_removed >= 15
    assert contents(store) == contents(Store.open(tmp_path)) == truth
    assert store.verify().ok
    with store.lease():
        store.commit(make_rows(store, ["x"]))
    assert Store.open(tmp_path).verify().ok


def test_compact_removes_only_old_files_that_no_kept_version_needs(tmp_path: Path) -> None:
    store = make_store(tmp_path, IDS)
    young = make_rows(store, ["young"])["shard"][0].as_py()
    orphan = make_rows(store, ["old"])["shard"][0].as_py()
    temporary = tmp_path / FEATURES_FOLDER / ".abc.tmp"
    temporary.write_bytes(b"half")
    with store.lease():
        store.delete(IDS[:10])  # its shard is still named by versions that readers may be pinned to
    long_ago = time.time() - 10**6
    for path in (tmp_path / FEATURES_FOLDER).iterdir():
        if path.name != f"{young}.parquet":
            os.utime(path, (long_ago, long_ago))
    report = store.compact()
    assert sorted(report.files_removed) == sorted([f"{orphan}.parquet", ".abc.tmp"])
    assert report.bytes_freed > 0
    assert (store.verify().orphan_shards[-1:], store.verify().ok) != ([], False)
    assert shard_path(tmp_path, young).exists()
    assert len(list((tmp_path / FEATURES_FOLDER).iterdir())) == 4
    assert len(contents(store)) == 20


def test_compact_rewrites_shards_more_than_half_dead(tmp_path: Path) -> None:
    store = make_store(tmp_path, IDS)
    with store.lease():
        store.delete([*IDS[:6], *IDS[10:15]])
    truth = contents(store)
    untouched = {r.shard for r in store.get(IDS[15:])}
    assert store.compact().shards_rewritten == 1
    assert contents(store) == truth
    assert untouched < {r.shard for r in store.get(IDS)}
    assert store.get(IDS[6:7])[0].row == 0
    assert store.verify().ok
    assert store.compact().shards_rewritten == 0


def test_readers_on_threads_each_get_whole_answers_while_a_writer_commits(tmp_path: Path) -> None:
    store = make_store(tmp_path, IDS[:10])
    reader = Store.open(tmp_path)
    queries = np.stack([descriptor_of(i) for i in IDS[:10]])
    wrong: list[object] = []
    stop = threading.Event()

    def ask() -> None:
        while not stop.is_set():
            answers = reader.search(queries, k=1)
            wrong.extend(a for a, i in zip(answers, IDS[:10], strict=True) if a[0].record.image_id != i)

    threads = [threading.Thread(target=ask) for _ in range(3)]
    for thread in threads:
        thread.start()
    with store.lease():
        for start in range(10, 30, 2):
            store.commit(make_rows(store, IDS[start : start + 2]))
            reader.refresh()
    stop.set()
    for thread in threads:
        thread.join()
    assert not wrong
    assert reader.count == 30


def test_writer_class_refuses_a_head_older_than_acknowledged(tmp_path: Path) -> None:
    make_store(tmp_path, IDS)
    head(tmp_path).unlink()
    with Lease(tmp_path) as lease, pytest.raises(CorruptStore):
        Writer(tmp_path, make_card(), lease)
