"""Every search method of a store against exact search in numpy."""

from __future__ import annotations

from pathlib import Path

import lancedb
import numpy as np
import pyarrow as pa
import pytest
from lancedb.index import HnswSq

from storage.errors import InvalidBatch
from storage.search.approximate import TARGET_RECALL
from storage.search.methods import SearchMethod
from storage.store import Store
from storage.table.lance_table import LanceTable
from tests.support.search_samples import SEARCH_DIM as DIM
from tests.support.search_samples import exact_search, seeded_queries
from tests.support.store_samples import descriptor_of, make_rows, make_store, rows_of

ROWS = 1500
IDS = [f"id{i:05d}" for i in range(ROWS)]
# Share of the exact k nearest that each approximate method finds at least, on the seeded data below.
MIN_RECALL: dict[SearchMethod, float] = {"ivf": TARGET_RECALL, "lance": 0.95}


@pytest.fixture(scope="module")
def big(tmp_path_factory: pytest.TempPathFactory) -> tuple[Store, pa.Table]:
    folder = tmp_path_factory.mktemp("search")
    store = make_store(folder, ["shard-owner"], dim=DIM)
    shard = store.get(["shard-owner"])[0].shard
    with store.lease():
        store.delete(["shard-owner"])
        for start in range(0, ROWS, 500):
            store.commit(rows_of(store.card, IDS[start : start + 500], shard=shard))
    return store, pa.concat_tables(LanceTable.open(folder, version=store.version).scan())


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("k", [1, 10, ROWS + 5])
def test_search_exact_agrees_with_numpy(big: tuple[Store, pa.Table], seed: int, k: int) -> None:
    store, rows = big
    queries = seeded_queries(seed, 7)
    answers = store.search(queries, k=k)
    for answer, expected in zip(answers, exact_search(rows, queries, k), strict=True):
        assert [c.record.image_id for c in answer] == [key for key, _ in expected], f"seed {seed}"
        assert np.abs([c.similarity - s for c, (_, s) in zip(answer, expected, strict=True)]).max() < 1e-5


@pytest.mark.parametrize(("method", "indexed"), [("ivf", False), ("lance", False), ("lance", True)])
def test_search_approximate_reaches_its_stated_recall(
    big: tuple[Store, pa.Table],
    method: SearchMethod,
    indexed: bool,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    shared, rows = big
    caplog.set_level("WARNING")
    monkeypatch.setattr("storage.search.snapshot.LANCE_INDEX_ROWS", 0)
    if indexed:
        Store.open(shared.uri).build_index(min_rows=0)
    store = Store.open(shared.uri)
    version = store.version
    queries, k = seeded_queries(99, 40), 20
    answers = store.search(queries, k=k, method=method)
    hits = 0
    for answer, expected in zip(answers, exact_search(rows, queries, k), strict=True):
        assert len(answer) == k
        assert [-c.similarity for c in answer] == sorted(-c.similarity for c in answer)
        truth = dict(expected)
        hits += sum(c.record.image_id in truth for c in answer)
        for c in answer:
            assert abs(c.similarity - truth.get(c.record.image_id, c.similarity)) < 1e-5
    assert hits / (len(queries) * k) >= MIN_RECALL[method]
    assert Store.open(shared.uri).version == version, "a reader writes nothing"
    if method == "lance":
        assert LanceTable.open(Path(shared.uri), version=version).has_index == indexed
        assert ("placeray build-index" in caplog.text) != indexed
        assert store.count == ROWS


@pytest.mark.parametrize(("dim", "former"), [(32, False), (12, False), (32, True)])
def test_search_through_each_index_of_lancedb_reaches_the_recall(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, dim: int, former: bool
) -> None:
    """12 dimensions cannot have the usual index; `former` is what stores got before."""
    if former:
        monkeypatch.setattr("storage.table.lance_table.IvfRq", lambda **_: HnswSq(distance_type="cosine"))
    store = make_store(tmp_path, IDS[:600], batch=600, dim=dim)
    queries, k = seeded_queries(5, 20, dim), 20
    store.build_index(min_rows=0)
    [index] = lancedb.connect(tmp_path).open_table("records").list_indices()
    assert index.index_type.upper().replace("_", "") == ("IVFHNSWSQ" if former or dim % 8 else "IVFRQ")

    def recall() -> float:
        newest = Store.open(tmp_path)
        table = LanceTable.open(tmp_path, version=newest.version)
        assert table.has_index
        exact = exact_search(pa.concat_tables(table.scan()), queries, k)
        answers = newest.search(queries, k=k, method="lance")
        id_sets = [{c.record.image_id for c in answer} for answer in answers]
        pairs = zip(id_sets, exact, strict=True)
        return sum(len(ids & {key for key, _ in best}) for ids, best in pairs) / (len(queries) * k)

    assert recall() >= MIN_RECALL["lance"]
    newest = Store.open(tmp_path)
    with newest.lease():
        newest.commit(make_rows(newest, IDS[600:900]))
        newest.delete(IDS[:300:2])
        assert recall() >= MIN_RECALL["lance"]
        newest.compact(keep_versions_s=0.0)
    assert recall() >= MIN_RECALL["lance"]


@pytest.mark.parametrize("method", ["exact", "ivf", "lance"])
def test_search_finds_each_row_by_its_own_descriptor(
    big: tuple[Store, pa.Table], method: SearchMethod
) -> None:
    store, _ = big
    query_ids = IDS[::97]
    answers = store.search(np.stack([descriptor_of(i, dim=DIM) for i in query_ids]), k=1, method=method)
    assert [hits[0].record.image_id for hits in answers] == query_ids
    assert min(hits[0].similarity for hits in answers) > 0.999


def test_search_in_an_empty_store_returns_no_candidates(tmp_path: Path) -> None:
    store = make_store(tmp_path)
    for method in ("exact", "ivf", "lance"):
        assert store.search(seeded_queries(0, 2, 16), k=3, method=method) == [[], []]  # type: ignore[arg-type]


def test_search_without_queries_returns_nothing(big: tuple[Store, pa.Table]) -> None:
    assert big[0].search(np.empty((0, DIM), np.float32), k=3) == []


@pytest.mark.parametrize("method", ["exact", "ivf", "lance"])
def test_search_bad_descriptor_raises(big: tuple[Store, pa.Table], method: SearchMethod) -> None:
    good = seeded_queries(0, 2)
    nan = good.copy()
    nan[1, 3] = np.nan
    for bad in (good[:, :-1], nan, good * 0, good[0]):
        with pytest.raises(InvalidBatch):
            big[0].search(bad, k=3, method=method)
    with pytest.raises(InvalidBatch):
        big[0].search(good, k=0, method=method)
