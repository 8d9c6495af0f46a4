"""Damage is reported by verify, never returned by a search, and repaired."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from storage.care.repair import repair_store
from storage.care.verify import verify_store
from storage.commit.ledger import read_sums
from storage.errors import (
    CorruptStore,
)
from storage.features.shards import shard_path
from storage.layout import FEATURES_FOLDER
from storage.store import Store
from tests.support.store_samples import (
    contents,
    copied_store,
    descriptor_of,
    head_manifest,
    make_card,
    make_rows,
)

IDS = [f"id{i:02d}" for i in range(30)]


def flip(path: Path, seed: int) -> None:
    data = bytearray(path.read_bytes())
    rng = np.random.default_rng(seed)
    data[rng.integers(len(data))] ^= 1 << int(rng.integers(8))
    path.write_bytes(data)


@pytest.mark.parametrize("kind", ["empty", "half", "short", "deleted", "flipped", "foreign", "committed"])
def test_open_damaged_head_refuses_and_repair_restores(tmp_path: Path, kind: str) -> None:
    copied_store(tmp_path, IDS)
    path, acked = head_manifest(tmp_path), Store.open(tmp_path).version
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
    store = copied_store(tmp_path, IDS)
    before = (tmp_path / "COMMITTED").read_bytes()
    with store.lease():
        store.commit(make_rows(store, ["late"]))
    (tmp_path / "COMMITTED").write_bytes(before)
    data = head_manifest(tmp_path).read_bytes()
    head_manifest(tmp_path).write_bytes(
        data[: {"empty": 0, "half": len(data) // 2, "short": len(data) - 1}[size]]
    )
    with pytest.raises(CorruptStore):
        Store.open(tmp_path)
    repair_store(tmp_path)
    store = Store.open(tmp_path)
    assert sorted(store.metadata()["image_id"].to_pylist()) == IDS
    with store.lease():
        store.commit(make_rows(store, ["late"]))
    assert store.count == 31


@pytest.mark.integration
@pytest.mark.parametrize("seeds", [range(3), pytest.param(range(3, 56), marks=pytest.mark.fault)])
def test_bit_flips_in_the_table_are_detected_and_never_returned(tmp_path: Path, seeds: range) -> None:
    copied_store(tmp_path / "good", IDS)
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
@pytest.mark.parametrize("seeds", [range(3), pytest.param(range(3, 56), marks=pytest.mark.fault)])
def test_bit_flips_in_shards_are_detected_and_never_returned(tmp_path: Path, seeds: range) -> None:
    copied_store(tmp_path / "good", IDS)
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
    store = copied_store(tmp_path, IDS)
    removed = store.get(IDS[10:20])
    shard_path(tmp_path, removed[0].shard).unlink()
    _, ok = store.fetch(store.get(IDS))
    assert ok.tolist() == [True] * 10 + [False] * 10 + [True] * 10
    report = store.verify()
    assert report.missing_shards == [removed[0].shard]
    assert store.repair().removed == IDS[10:20]
    assert (store.count, store.verify().ok) == (20, True)


def test_verify_does_not_treat_leftovers_as_damage(tmp_path: Path) -> None:
    store = copied_store(tmp_path, IDS)
    orphan = make_rows(store, ["never committed"])["shard"][0].as_py()
    (tmp_path / FEATURES_FOLDER / ".abc.tmp").write_bytes(b"half")
    report = store.verify()
    assert report.ok
    assert (report.orphan_shards, report.temp_files, report.rows) == ([orphan], [".abc.tmp"], 30)


def test_verify_reports_duplicate_keys_and_repair_keeps_the_latest(tmp_path: Path) -> None:
    store = copied_store(tmp_path, IDS)
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

    return add_checksums(rows, make_card())
