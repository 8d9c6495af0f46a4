"""Partitions of an index: together they equal the whole, and they follow commits."""

from __future__ import annotations

import shutil
import weakref
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest

from storage.errors import CardMismatch, StoreError, StoreNotFound
from storage.search import loading
from storage.search.hits import merge_hits
from storage.search.index_partition import IndexPartition, VersionNotLoaded
from storage.search.methods import SearchMethod
from storage.search.partition import Partition
from storage.search.snapshot import Snapshot
from storage.store import Store
from storage.table.fragments import Fragments
from storage.table.open_table import Table
from tests.support.store_samples import descriptor_of, make_card, make_rows, make_store

IDS = [f"photo-{number:03d}" for number in range(120)]
QUERIES = np.stack([descriptor_of(f"query-{number}", 7) for number in range(100)])


def grow(store: Store, ids: list[str], generation: int = 0) -> None:
    with store.lease():
        store.commit(make_rows(store, ids, generation))


@pytest.fixture(scope="module")
def twins(tmp_path_factory: pytest.TempPathFactory) -> Store:
    """A store, for reading only, with equal descriptors under several keys: their order is by key."""
    store = make_store(tmp_path_factory.mktemp("twins") / "s", IDS, batch=60)
    with store.lease():
        rows = make_rows(store, [f"twin-{number}" for number in range(9)])
        first = rows["descriptor"].combine_chunks().take([0] * 9)
        place = rows.schema.get_field_index("descriptor")
        store.commit(rows.set_column(place, rows.schema.field(place), first))
    return store


@pytest.mark.parametrize("parts", [1, 3, pytest.param(7, marks=pytest.mark.long)])
def test_parts_together_equal_the_whole(twins: Store, parts: int) -> None:
    pieces = [IndexPartition(twins.uri, partition=Partition(number, parts)) for number in range(parts)]
    assert sum(len(piece.search(QUERIES[:1], k=1000)[0].hits) for piece in pieces) == len(IDS) + 9
    for k, queries in ((1, QUERIES), (10, QUERIES), (100, QUERIES[:25]), (500, QUERIES[:25])):
        results = [piece.search(queries, k=k) for piece in pieces]
        together = [merge_hits([answers[i] for answers in results], k=k) for i in range(len(queries))]
        assert [answer.hits for answer in together] == twins.search(queries, k=k), f"k {k}"
        assert {(answer.version, answer.rows) for answer in together} == {(twins.version, len(IDS) + 9)}


@pytest.mark.parametrize("method", ["exact", "ivf"])
def test_memory_is_given_back_once_nothing_holds_what_was_read(
    twins: Store, method: SearchMethod, monkeypatch: pytest.MonkeyPatch
) -> None:
    read: list[weakref.ref[Fragments]] = []
    held: list[list[Fragments | None]] = []

    def opened(table: Table) -> Fragments:
        fragments = Fragments(table)
        read.append(weakref.ref(fragments))
        return fragments

    monkeypatch.setattr(loading, "Fragments", opened)
    monkeypatch.setattr(loading, "return_free_memory", lambda: held.append([each() for each in read]))
    IndexPartition(twins.uri, method=method)
    assert held == [[None]]


def test_part_beyond_the_memory_budget_searches_on_disk(tmp_path: Path) -> None:
    store = make_store(tmp_path / "s", IDS)
    small = [
        IndexPartition(store.uri, partition=Partition(number, 2), memory_bytes=10) for number in range(2)
    ]
    results = [piece.search(QUERIES[:20], k=10) for piece in small]
    assert [len(answers[0].hits) for answers in results] == [10, 0]  # one index covers the whole table
    expected = store.search(QUERIES[:20], k=10)
    for i, hits in enumerate(expected):
        ids = [hit.record.image_id for hit in merge_hits([answers[i] for answers in results], k=10).hits]
        assert ids == [hit.record.image_id for hit in hits], f"query {i}"


@pytest.mark.parametrize(
    ("rows", "gb", "method"),
    [(50_000, 0.1, "lance"), (50_000, 0.11, "exact"), (5_250_000, 6.0, "lance"), (5_250_000, 6.1, "ivf")],
)
def test_what_is_searched_in_memory_fits_the_budget(twins: Store, rows: int, gb: float, method: str) -> None:
    """Exact: 2,048 bytes of float32 for 512 dimensions; approximate: 1,024 + 128 of code + 8 of number."""
    part = IndexPartition(twins.uri, memory_bytes=int(gb * 1e9))
    version = cast(Snapshot, SimpleNamespace(count=rows, card=make_card(dim=512)))
    assert part.method_for(version) == method


def test_part_beyond_exact_rows_searches_approximately(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = make_store(tmp_path / "s", IDS)
    methods: list[str] = []
    search = Snapshot.search

    def noted(view: Snapshot, *args: Any, method: SearchMethod, **options: Any) -> Any:
        methods.append(method)
        return search(view, *args, method=method, **options)

    monkeypatch.setattr(Snapshot, "search", noted)
    for limit, parts in ((len(IDS), 1), (len(IDS) - 1, 1), (len(IDS) // 2 + 1, 2)):
        monkeypatch.setattr("storage.search.index_partition.EXACT_ROWS", limit)
        piece = IndexPartition(store.uri, partition=Partition(0, parts))
        assert piece.search(QUERIES[:2], k=5)[0].hits
    assert methods == ["exact", "ivf", "exact"]


def test_follow_moves_on_and_keeps_the_previous_version_for_a_while(tmp_path: Path) -> None:
    now = [0.0]
    store = make_store(tmp_path / "s", IDS[:20])
    part = IndexPartition(store.uri, keep_s=10.0, clock=lambda: now[0])
    old = part.snapshot.version
    assert not part.refresh()
    grow(store, ["new"])
    query = descriptor_of("new")[None]
    assert part.search(query, k=1)[0].hits[0].record.image_id != "new"

    assert part.refresh()
    assert part.loaded_versions == (old, store.version)
    assert part.search(query, k=1)[0].hits[0].record.image_id == "new"
    before = part.search(query, k=100, version=old)[0]
    assert before.version == old
    assert (before.rows, len(before.hits)) == (20, 20)

    now[0] = 10.5
    assert not part.refresh()
    assert part.loaded_versions == (store.version,)
    with pytest.raises(VersionNotLoaded, match="request one of"):
        part.search(query, k=1, version=old)


def test_follow_of_a_missing_or_replaced_store_raises(tmp_path: Path) -> None:
    store = make_store(tmp_path / "s", IDS[:20])
    part = IndexPartition(store.uri)
    expected = part.search(QUERIES[:3], k=5)
    shutil.move(tmp_path / "s", tmp_path / "away")
    with pytest.raises(StoreNotFound):
        part.refresh()
    shutil.move(tmp_path / "away", tmp_path / "s")
    assert not part.refresh()
    assert part.search(QUERIES[:3], k=5) == expected
    shutil.rmtree(tmp_path / "s" / "features")
    with pytest.raises(StoreError, match="features"):
        part.refresh()
    shutil.rmtree(tmp_path / "s")
    Store.create(tmp_path / "s", make_card(model="other"))
    with pytest.raises(CardMismatch):
        part.refresh()


def test_follow_of_a_recreated_store_drops_the_old_one(tmp_path: Path) -> None:
    make_store(tmp_path / "s", IDS[:20])
    part = IndexPartition(str(tmp_path / "s"))
    shutil.rmtree(tmp_path / "s")
    anew = make_store(tmp_path / "s", IDS[50:70])  # the same number of commits: the same version number
    assert anew.version == part.snapshot.version
    assert part.refresh()
    assert part.loaded_versions == (anew.version,)
    hits = {hit.record.image_id for hit in part.search(QUERIES[:1], k=100)[0].hits}
    assert hits == set(IDS[50:70])
