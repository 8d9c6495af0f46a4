"""Search by codes: exact Hamming order, inverted lists that reach their recall, stores that hold codes."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from numpy.typing import NDArray

from storage.errors import InvalidBatch
from storage.search import snapshot
from storage.search.code_index import CodeIndex
from storage.search.disk_rows import DiskRows
from storage.search.living_searcher import LivingSearcher
from storage.search.memory_rows import MemoryRows
from storage.store import Store
from storage.table.schema import row_schema
from tests.support.row_filters import Tagged
from tests.support.store_samples import make_card

BITS = 64


def random_codes(count: int, bits: int = BITS, seed: int = 0) -> NDArray[np.uint8]:
    return np.random.default_rng(seed).integers(0, 256, (count, bits // 8), dtype=np.uint8)


def distances(codes: NDArray[np.uint8], query: NDArray[np.uint8]) -> NDArray[np.int64]:
    return np.unpackbits(codes ^ query, axis=1).sum(axis=1).astype(np.int64)


@pytest.mark.parametrize("rows", [1, 7, 20_000])
def test_exact_search_is_by_distance_then_row(rows: int) -> None:
    codes = random_codes(rows)
    codes[rows // 2 :] = codes[: rows - rows // 2]  # ties
    index = CodeIndex(np.array_split(codes, 3), rows, bits=BITS)
    queries = random_codes(5, seed=1)
    found = index.search(queries, 10)
    for query, ids in zip(queries, found, strict=True):
        expected = np.lexsort((np.arange(rows), distances(codes, query)))[:10]
        near = distances(codes, query)
        assert near[ids[ids >= 0]].tolist() == near[expected].tolist()
        assert (ids >= 0).sum() == min(rows, 10)
        assert len({*ids[ids >= 0].tolist()}) == min(rows, 10)


def test_inverted_lists_reach_their_recall() -> None:
    rng = np.random.default_rng(0)
    places = random_codes(600, 128)
    flips = rng.random((12_000, 128)) < 0.08
    codes = places[rng.integers(600, size=12_000)] ^ np.packbits(flips, axis=1)
    index = CodeIndex([codes], len(codes), bits=128, inverted=True, target=0.95)
    assert index.lists > 0
    assert index.probes < index.lists
    queries = codes[::60] ^ np.packbits(rng.random((200, 128)) < 0.04, axis=1)
    found = index.search(queries, 20)
    near = []
    for query, ids in zip(queries, found, strict=True):
        all_distances = distances(codes, query)
        near.append((all_distances[ids] <= np.sort(all_distances)[19]).mean())
    assert np.mean(near) >= 0.9


def code_store(folder: Path, count: int = 40) -> tuple[Store, NDArray[np.float32], NDArray[np.uint8]]:
    card = dataclasses.replace(make_card(), code_bits=BITS).stored_as("none")
    store = Store.create(str(folder), card)
    rng = np.random.default_rng(0)
    vectors = rng.standard_normal((count, card.descriptor_dim)).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    codes = random_codes(count)
    with store.lease():
        store.commit(rows_of(card, vectors, codes))
    return store, vectors, codes


def rows_of(card: object, vectors: NDArray[np.float32], codes: NDArray[np.uint8] | None) -> pa.Table:
    schema = row_schema(card, optional=("code",) if codes is not None else ())  # type: ignore[arg-type]
    values = {
        "image_id": [f"image-{i:03}" for i in range(len(vectors))],
        "uri": ["u"] * len(vectors),
        "sha256": ["0" * 64] * len(vectors),
        "width": [1] * len(vectors),
        "height": [1] * len(vectors),
        "descriptor": list(vectors.astype(np.float16)),
        "shard": [""] * len(vectors),
        "row": [0] * len(vectors),
    }
    if codes is not None:
        values["code"] = [code.tobytes() for code in codes]
    columns = [pa.array(values.get(field.name, [None] * len(vectors)), field.type) for field in schema]
    return pa.Table.from_arrays(columns, schema=schema)


def test_store_orders_the_nearest_codes_by_their_descriptors(tmp_path: Path) -> None:
    store, vectors, codes = code_store(tmp_path / "store", 400)
    query = vectors[7:8]
    hits = store.search(query, k=5, method="codes", codes=codes[9:10])[0]
    nearest = np.argsort(distances(codes, codes[9]), kind="stable")[:100]
    by_float = sorted(nearest, key=lambda i: -float(vectors[i].astype(np.float16) @ query[0]))
    assert [hit.record.image_id for hit in hits] == [f"image-{i:03}" for i in by_float[:5]]
    assert store.verify().ok
    with store.lease():
        store.compact()
    assert [
        hit.record.image_id for hit in store.search(query, k=5, method="codes", codes=codes[9:10])[0]
    ] == [f"image-{i:03}" for i in by_float[:5]]


def rows_of_searcher(store: Store) -> type:
    searcher = store.snapshot._searcher("codes")
    assert isinstance(searcher, LivingSearcher)
    return type(searcher._rows)


def test_codes_with_rows_on_disk_give_the_same_hits(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store, vectors, codes = code_store(tmp_path / "store", 300)
    here = store.search(vectors[:4], k=8, method="codes", codes=codes[:4])
    assert rows_of_searcher(store) is MemoryRows
    monkeypatch.setattr(snapshot, "_IN_MEMORY_BYTES", 0)
    again = Store.open(store.uri)
    there = again.search(vectors[:4], k=8, method="codes", codes=codes[:4])
    assert rows_of_searcher(again) is DiskRows
    within = Tagged("5")  # the key has it: 57 of 300
    asked = {"k": 90, "method": "codes", "codes": codes[:4], "within": within}
    left = [store.search(vectors[:4], **asked), again.search(vectors[:4], **asked)]  # type: ignore[arg-type]
    assert left[0] == left[1]
    assert all(len(hits) == 57 and all("5" in hit.record.image_id for hit in hits) for hits in left[0])
    assert again.considered(within, method="codes") == store.considered(within, method="codes") == 57
    assert [[hit.record.image_id for hit in hits] for hits in here] == [
        [hit.record.image_id for hit in hits] for hits in there
    ]


def test_stores_with_codes_take_rows_with_codes_alone(tmp_path: Path) -> None:
    store, vectors, codes = code_store(tmp_path / "store")
    with store.lease():
        with pytest.raises(InvalidBatch, match="column code"):
            store.commit(rows_of(store.card, vectors, None))
        named = rows_of(store.card, vectors, codes)
        named = named.set_column(
            named.schema.get_field_index("shard"), named.schema.field("shard"), pa.array(["x"] * len(named))
        )
        with pytest.raises(InvalidBatch, match="leave shard empty"):
            store.commit(named)
    for given in (None, codes[:1, :4], codes[:1].astype(np.int64)):
        with pytest.raises(InvalidBatch, match="codes of shape"):
            store.search(vectors[:1], k=1, method="codes", codes=given)  # type: ignore[arg-type]


def test_stores_without_codes_cannot_be_searched_by_them(tmp_path: Path) -> None:
    store = Store.create(str(tmp_path / "plain"), make_card().stored_as("none"))
    query = np.zeros((1, store.card.descriptor_dim), np.float32)
    query[0, 0] = 1
    with pytest.raises(InvalidBatch):
        store.search(query, k=1, method="codes", codes=random_codes(1))


def test_features_of_a_store_without_any_are_not_read(tmp_path: Path) -> None:
    store, _, _ = code_store(tmp_path / "store", 3)
    records = store.get(["image-000", "image-001"])
    features, ok = store.fetch(records)
    assert (len(features), ok.tolist()) == (2, [False, False])


@pytest.mark.parametrize("inverted", [False, True])
@pytest.mark.parametrize("bits", [64, 24])
def test_search_among_some_rows_equals_a_search_of_them_alone(inverted: bool, bits: int) -> None:
    codes = random_codes(9000, bits)
    index = CodeIndex([codes], len(codes), bits=bits, inverted=inverted)
    queries = random_codes(4, bits, seed=1)
    for step in (3, 1000, 10_000):
        allowed = np.arange(len(codes)) % step == 1
        found = index.search(queries, 30, allowed)
        for query, ids in zip(queries, found, strict=True):
            near = distances(codes, query)
            assert allowed[ids[ids >= 0]].all()
            assert near[ids[ids >= 0]].tolist() == np.sort(near[allowed])[:30].tolist()
