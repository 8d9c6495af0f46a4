"""Writing: commits, amendments and deletions are atomic, durable and need the lease."""

from __future__ import annotations

import dataclasses
import errno
import json
import os
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from storage.care.repair import repair_store
from storage.commit.lease import Lease
from storage.commit.writer import Writer
from storage.errors import (
    CorruptStore,
    InvalidBatch,
    OutOfSpace,
    StoreLocked,
)
from storage.records import ImageRecord
from storage.store import Store
from storage.table.lance_table import LanceTable
from tests.support.store_samples import (
    contents,
    descriptor_of,
    head_manifest,
    make_card,
    make_rows,
    make_store,
    rows_of,
)

IDS = [f"id{i:02d}" for i in range(30)]


def amended(record: ImageRecord, *, captured_at: datetime | None, **position: Any) -> ImageRecord:
    moved = dataclasses.replace(record.position, **position)
    return dataclasses.replace(record, position=moved, captured_at=captured_at)


def test_commit_makes_one_version_and_one_row_per_key(tmp_path: Path) -> None:
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


def test_full_disk_while_committing_loses_nothing_and_can_be_retried(
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


def test_a_new_writer_replaces_existing_keys(tmp_path: Path) -> None:
    make_store(tmp_path, IDS)
    store = Store.open(tmp_path)
    with store.lease():
        store.commit(make_rows(store, IDS, 1))
    assert (store.count, len(contents(store))) == (30, 30)


def test_unacknowledged_head_is_hidden_from_readers_and_adopted_by_the_next_writer(tmp_path: Path) -> None:
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


def test_writer_class_refuses_a_head_older_than_acknowledged(tmp_path: Path) -> None:
    make_store(tmp_path, IDS)
    head_manifest(tmp_path).unlink()
    with Lease(tmp_path) as lease, pytest.raises(CorruptStore):
        Writer(tmp_path, lease)
