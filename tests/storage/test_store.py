"""The store: creating, opening, reading and refreshing, one promise per test."""

from __future__ import annotations

import json
import os
import threading
from pathlib import Path

import numpy as np
import pytest

from storage.care.repair import repair_store
from storage.care.verify import verify_store
from storage.errors import (
    CardMismatch,
    StoreError,
    StoreNotFound,
)
from storage.store import Store
from storage.table.lance_table import LanceTable
from tests.support.store_samples import descriptor_of, make_card, make_rows, make_store

IDS = [f"id{i:02d}" for i in range(30)]


def test_create_makes_an_empty_store_that_opens(tmp_path: Path) -> None:
    store = Store.create(tmp_path / "a/b", make_card())
    opened = Store.open(str(tmp_path / "a/b"), card=make_card())
    assert (opened.count, opened.version, opened.card) == (0, store.version, make_card().upgraded())
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


def test_open_an_address_that_is_neither_a_folder_nor_a_bucket_says_so() -> None:
    with pytest.raises(StoreError, match="s3://bucket/prefix"):
        Store.open("ftp://host/store")


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
    assert reader.known() == reader.metadata()
    assert reader.get(IDS[20:21]) == []
    assert reader.refresh()
    assert not reader.refresh()
    assert (reader.count, reader.version) == (30, version)
    assert reader.search(query, k=1)[0][0].record.image_id == IDS[20]


def test_metadata_has_every_column_but_descriptor_and_checksum(tmp_path: Path) -> None:
    store = make_store(tmp_path, IDS)
    stored = LanceTable.open(tmp_path).take([]).schema.names
    assert set(store.metadata().column_names) == set(stored) - {"descriptor", "code", "crc32"}


def test_get_keeps_the_requested_order(tmp_path: Path) -> None:
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
