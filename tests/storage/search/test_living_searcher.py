"""Search that follows a store through random histories, against search of the same version loaded afresh."""

from __future__ import annotations

import dataclasses
import hashlib
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from storage.search import approximate, code_index, snapshot
from storage.search.index_partition import IndexPartition
from storage.search.living_searcher import LivingSearcher
from storage.search.methods import SearchMethod
from storage.search.partition import Partition
from storage.store import Store
from storage.table.open_table import Table
from tests.support.row_filters import Between, Tagged
from tests.support.search_samples import seeded_queries
from tests.support.store_samples import DIM, make_card, make_rows, make_store, rows_of

QUERIES = seeded_queries(1, 6, DIM)


def searcher_of(store: Store, method: SearchMethod) -> LivingSearcher:
    searcher = store.snapshot._searcher(method)
    assert isinstance(searcher, LivingSearcher)
    return searcher


def change(store: Store, random: np.random.Generator, step: int) -> str:
    """Change a store in one of the ways in which stores change; return in which."""
    ids = store.metadata()["image_id"].to_pylist()
    kinds = ["add", "add", "again", "amend", "delete", "compact", "nothing"]
    kind = str(random.choice(kinds)) if len(ids) > 5 else "add"
    with store.lease():
        if kind == "add":
            store.commit(make_rows(store, [f"new-{step}-{i}" for i in range(int(random.integers(1, 30)))]))
        elif kind == "again":  # the same photos, changed
            store.commit(make_rows(store, random.choice(ids, 4, replace=False).tolist(), generation=step))
        elif kind == "amend":
            some = random.choice(ids, 3, replace=False).tolist()
            lat = pa.array(random.uniform(0, 40, 3))
            store.amend(pa.table({"image_id": some, "lat": lat, "lon": lat}))
        elif kind == "delete":
            store.delete(random.choice(ids, int(random.integers(1, 5)), replace=False).tolist())
        elif kind == "compact":
            store.compact(keep_versions_s=3600)
    return kind


@pytest.fixture
def read_rows(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many rows with descriptors were read from the table, by scan."""
    counts: list[int] = []
    scan = snapshot.load_searcher

    def noted(table: Table, *rest: Any, **options: Any) -> LivingSearcher:
        counts.append(table.count())
        return scan(table, *rest, **options)

    monkeypatch.setattr(snapshot, "load_searcher", noted)
    return counts


@pytest.mark.parametrize("on_disk", [False, True])
@pytest.mark.parametrize("seed", [0, *(pytest.param(seed, marks=pytest.mark.slow) for seed in (1, 2, 3))])
def test_exact_search_that_follows_equals_a_fresh_index(
    tmp_path: Path, seed: int, on_disk: bool, monkeypatch: pytest.MonkeyPatch, read_rows: list[int]
) -> None:
    if on_disk:
        monkeypatch.setattr(snapshot, "_RECORDS_IN_MEMORY", 0)
    store = make_store(tmp_path / "s", [f"id{i:03d}" for i in range(40)])
    reader, random = Store.open(store.uri), np.random.default_rng(seed)
    reader.search(QUERIES, k=1)
    history = []
    for step in range(9):
        history.append(change(store, random, step))
        if random.random() < 0.3:
            continue  # several versions at once
        reader.refresh()
        fresh = Store.open(store.uri)
        for k in (5, 500):
            assert reader.search(QUERIES, k=k) == fresh.search(QUERIES, k=k), f"seed {seed}: {history}"
        for within in (Between(5, 20), Tagged("new")):
            assert reader.search(QUERIES, k=9, within=within) == fresh.search(QUERIES, k=9, within=within)
            assert reader.considered(within) == fresh.considered(within), f"seed {seed}: {history}"
    read_rows.clear()
    reader.refresh()
    reader.search(QUERIES, k=3)
    assert read_rows == [], "following never loads a version as a whole"


def test_a_compaction_changes_nothing_in_memory(tmp_path: Path, read_rows: list[int]) -> None:
    store = make_store(tmp_path / "s", [f"id{i:03d}" for i in range(60)])
    with store.lease():
        store.delete(["id003", "id050"])
    reader = Store.open(store.uri)
    expected, before = reader.search(QUERIES, k=9), searcher_of(reader, "exact")
    version = reader.version
    store.compact(keep_versions_s=3600)
    assert reader.refresh()
    assert reader.version > version
    assert reader.search(QUERIES, k=9) == expected
    after = searcher_of(reader, "exact")
    assert after._index is before._index
    assert after._rows is before._rows
    assert read_rows == [58]


@pytest.mark.parametrize("total", [1, 3])
def test_partitions_that_follow_hold_their_own_rows(tmp_path: Path, total: int) -> None:
    store = make_store(tmp_path / "s", [f"id{i:03d}" for i in range(40)])
    parts = [IndexPartition(store.uri, partition=Partition(number, total)) for number in range(total)]
    random = np.random.default_rng(5)
    for step in range(8):
        change(store, random, step)
        for part in parts:
            part.refresh()
        hits = [hit for part in parts for hit in part.search(QUERIES[:1], k=500)[0].hits]
        hits.sort(key=lambda hit: (-hit.similarity, hit.record.image_id))
        assert hits == store.search(QUERIES[:1], k=500)[0]


def test_the_version_before_still_answers_as_it_was(tmp_path: Path) -> None:
    store = make_store(tmp_path / "s", [f"id{i:03d}" for i in range(40)])
    part = IndexPartition(store.uri)
    old, expected = part.snapshot.version, part.search(QUERIES, k=50)[0].hits
    with store.lease():
        store.delete(["id001"])
        store.commit(make_rows(store, ["id002", "brand-new"], generation=3))
    assert part.refresh()
    assert part.search(QUERIES, k=50, version=old)[0].hits == expected
    ids = {hit.record.image_id for hit in part.search(QUERIES, k=50)[0].hits}
    assert "brand-new" in ids
    assert "id001" not in ids


def test_a_relearned_version_is_loaded_as_a_whole(tmp_path: Path, read_rows: list[int]) -> None:
    store = make_store(tmp_path / "s", [f"id{i:03d}" for i in range(20)])
    reader = Store.open(store.uri)
    reader.search(QUERIES, k=3)
    card = make_card().stored_as("float16", aggregation_sha256="1" * 64, descriptor_dim=DIM)
    words = b"words"
    card = dataclasses.replace(card, aggregation_sha256=hashlib.sha256(words).hexdigest())
    ids = store.metadata()["image_id"].to_pylist()
    with store.lease():
        store.replace_descriptors(card, [(ids, seeded_queries(9, len(ids), DIM))], artifacts=[words])
    assert reader.refresh()
    assert reader.search(QUERIES, k=3) == Store.open(store.uri).search(QUERIES, k=3)
    assert read_rows == [20, 20, 20]


def test_damaged_rows_are_left_out_while_they_are_there(tmp_path: Path) -> None:
    store = make_store(tmp_path / "s", [f"id{i:03d}" for i in range(20)])
    reader = Store.open(store.uri)
    reader.search(QUERIES, k=3)
    with store.lease():
        rows = make_rows(store, ["bad", "good"])
        writer = store._leased()
        from storage.table.checks import check_rows
        from storage.table.checksums import add_checksums

        stored = add_checksums(check_rows(rows, store.card), store.card)
        at = stored.schema.get_field_index("crc32")
        sums = [1, stored["crc32"][1].as_py()]
        stored = stored.set_column(at, stored.schema.field(at), pa.array(sums, pa.uint32()))
        writer.change(lambda: writer.table.append(stored))
        store._advance()
    reader.refresh()
    found = {hit.record.image_id for hit in reader.search(QUERIES[:1], k=50)[0]}
    assert "good" in found
    assert "bad" not in found
    assert reader.degraded
    with store.lease():
        store.delete(["bad"])
    reader.refresh()
    assert len(reader.search(QUERIES[:1], k=50)[0]) == 21
    assert not reader.degraded


def recall(found: list[Any], exact: list[Any]) -> float:
    shares = [
        len({hit.record.image_id for hit in a} & {hit.record.image_id for hit in b}) / max(1, len(b))
        for a, b in zip(found, exact, strict=True)
    ]
    return float(np.mean(shares))


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(2))
def test_approximate_search_that_follows_finds_99_of_the_exact_100(
    tmp_path: Path, seed: int, monkeypatch: pytest.MonkeyPatch, read_rows: list[int]
) -> None:
    monkeypatch.setattr(approximate, "_MIN_ROWS", 500)
    monkeypatch.setattr(approximate, "_MIN_UNCODED", 100)
    monkeypatch.setattr(approximate, "_COMPARED_ROWS", 50)  # filters go through the codes
    store = make_store(tmp_path / "s", ["owner"], dim=32)
    shard = store.get(["owner"])[0].shard
    random, queries = np.random.default_rng(seed), seeded_queries(seed, 40, 32)

    gone: list[str] = []

    def grow(first: int, count: int) -> None:
        with store.lease():
            store.commit(rows_of(store.card, [f"r{i:05d}" for i in range(first, first + count)], shard=shard))

    def some(count: int) -> list[str]:
        ids: list[str] = random.choice(
            store.metadata()["image_id"].to_pylist(), count, replace=False
        ).tolist()
        return ids

    def change(kind: str, step: int) -> None:
        if kind == "grow":
            grow(1200 + 150 * step, 150)
            return
        with store.lease():
            if kind == "delete":
                left = some(30)
                store.delete(left)
                gone.extend(left)
            elif kind == "amend":
                lat = pa.array(random.uniform(0, 40, 20))
                store.amend(pa.table({"image_id": some(20), "lat": lat, "lon": lat}))
            elif kind == "again":  # other pictures of the same photos
                store.commit(rows_of(store.card, some(20), step + 1, shard=shard))
            elif kind == "return" and gone:  # as they were, or as other pictures
                back = random.choice(gone, min(20, len(gone)), replace=False).tolist()
                store.commit(rows_of(store.card, back, int(random.integers(2)) * step, shard=shard))
                gone[:] = [image_id for image_id in gone if image_id not in back]
            elif kind == "compact" and step % 4 == 0:
                store.compact(keep_versions_s=3600)

    grow(0, 1200)
    reader = Store.open(store.uri)
    reader.search(queries, k=1, method="ivf")
    lists = set()
    for step in range(9):
        for kind in random.permutation(["grow", "delete", "amend", "again", "return", "compact"]):
            change(str(kind), step)
            if random.random() < 0.2:
                reader.refresh()  # else several versions at once
        reader.refresh()
        found = reader.search(queries, k=100, method="ivf")
        assert recall(found, store.search(queries, k=100)) >= 0.99, f"seed {seed}, step {step}"
        within = Between(0, 30)
        left = reader.search(queries, k=100, method="ivf", within=within)
        assert recall(left, store.search(queries, k=100, within=within)) >= 0.99, f"seed {seed}, step {step}"
        if step % 2:
            assert searcher_of(reader, "ivf").settle(60)
            assert recall(reader.search(queries, k=100, method="ivf"), store.search(queries, k=100)) >= 0.99
        lists.add(id(searcher_of(reader, "ivf")._index._coded))  # type: ignore[attr-defined]
    assert len(lists) > 2, "codes were made aside for further rows"
    assert len(read_rows) == 2, "once by each search method"


def distance(code: bytes, query: np.ndarray) -> int:
    return int(np.bitwise_count(np.frombuffer(code, np.uint8) ^ query).sum())


def test_codes_that_follow_equal_fresh_ones(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    card = dataclasses.replace(make_card(), code_bits=64).stored_as("none")
    store, random = Store.create(tmp_path / "s", card), np.random.default_rng(0)
    code_of = {}

    def grow(first: int, count: int) -> None:
        ids = [f"r{i:05d}" for i in range(first, first + count)]
        code_of.update({key: random.integers(0, 256, 8, dtype=np.uint8).tobytes() for key in ids})
        rows = rows_of(card, ids, shard="").set_column(14, "row", pa.array([0] * count, pa.int32()))
        codes = pa.array([code_of[key] for key in ids], pa.binary(8))
        with store.lease():
            store.commit(rows.append_column("code", codes))

    grow(0, 300)
    for on_disk, lists in ((False, False), (True, False), (False, True)):
        monkeypatch.setattr(snapshot, "_IN_MEMORY_BYTES", 0 if on_disk else 1 << 30)
        monkeypatch.setattr(code_index, "EXACT_CODES", 100 if lists else 1_000_000)
        reader = Store.open(store.uri)
        asked: dict[str, Any] = {"k": 100 if lists else 300, "method": "codes"}
        asked["codes"] = random.integers(0, 256, (len(QUERIES), 8), dtype=np.uint8)
        reader.search(QUERIES, **asked)
        for step in range(4):
            grow(store.count * 2, 40)
            with store.lease():
                store.delete([f"r{i:05d}" for i in range(step * 5, step * 5 + 3)])
            reader.refresh()
            found, fresh = reader.search(QUERIES, **asked), Store.open(store.uri).search(QUERIES, **asked)
            asked_within = asked | {"within": Between(0, 20)}
            left = reader.search(QUERIES, **asked_within)
            assert left == Store.open(store.uri).search(QUERIES, **asked_within)
            if not lists:
                assert found == fresh
                continue
            stored, near = store.metadata()["image_id"].to_pylist(), []
            for query, hits in zip(asked["codes"], reader.search(QUERIES, **asked), strict=True):
                apart = {key: distance(code_of[key], query) for key in stored}
                last = sorted(apart.values())[99]
                near.append(np.mean([apart[hit.record.image_id] <= last for hit in hits]))
            assert np.mean(near) >= 0.99
            assert searcher_of(reader, "codes").settle(60)
