"""Search: every method against twenty lines of numpy."""

from __future__ import annotations

import itertools
import sys
from pathlib import Path
from typing import Any

import faiss
import lancedb
import numpy as np
import pyarrow as pa
import pytest
from lancedb.index import HnswSq

from storage.errors import InvalidBatch
from storage.search.approximate import TARGET_RECALL
from storage.search.lance_searcher import LanceSearcher
from storage.search.memory_searcher import MemorySearcher
from storage.search.methods import SearchMethod
from storage.search.partition import read_partition
from storage.store import Store
from storage.table.checksums import add_checksums
from storage.table.lance_table import LanceTable
from storage.table.schema import descriptor_matrix, row_schema
from tests.support.store_samples import descriptor_of, make_card, make_rows, make_store, rows_of

ROWS, DIM = 1500, 32
IDS = [f"id{i:05d}" for i in range(ROWS)]
# Share of the exact k nearest that each approximate method finds at least, on the seeded data below.
MIN_RECALL: dict[SearchMethod, float] = {"ivf": TARGET_RECALL, "lance": 0.95}


def exact_search(rows: pa.Table, queries: np.ndarray, k: int) -> list[list[tuple[str, float]]]:
    """The plain formulation: cosine with every stored row, sorted, equal ones by key."""
    keys = rows["image_id"].to_pylist()
    stored = descriptor_matrix(rows).astype(np.float64)
    stored /= np.linalg.norm(stored, axis=1, keepdims=True)
    answers = []
    for query in queries.astype(np.float64):
        scores = (stored * (query / np.linalg.norm(query))).sum(axis=1)
        order = sorted(range(len(keys)), key=lambda i: (-round(scores[i], 12), keys[i]))
        answers.append([(keys[i], float(scores[i])) for i in order[:k]])
    return answers


def seeded_queries(seed: int, count: int, dim: int = DIM) -> np.ndarray:
    queries = np.random.default_rng(seed).standard_normal((count, dim)).astype(np.float32)
    return np.asarray(queries / np.linalg.norm(queries, axis=1, keepdims=True))


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
    for found, expected in zip(answers, exact_search(rows, queries, k), strict=True):
        assert [c.record.image_id for c in found] == [key for key, _ in expected], f"seed {seed}"
        assert np.abs([c.similarity - s for c, (_, s) in zip(found, expected, strict=True)]).max() < 1e-5


@pytest.mark.parametrize("approximate", [False, True])
def test_search_in_memory_does_not_depend_on_how_many_commits_there_were(approximate: bool) -> None:
    rows = rows_of(make_card(dim=DIM), IDS[:600])
    pieces = pa.concat_tables([rows.slice(start, 25) for start in range(0, 600, 25)])
    queries = seeded_queries(3, 4)
    whole, many = (MemorySearcher(part, approximate=approximate) for part in (rows, pieces))
    assert many.search(queries, k=9) == whole.search(queries, k=9)
    assert {column.num_chunks for column in many._rows.columns} == {1}  # many would slow each answer down


class WithGpu:
    """FAISS as built for GPUs, with a GPU that is the CPU: its limits are the real one's."""

    StandardGpuResources = object

    def __init__(self, error: str | None = None) -> None:
        self.IndexFlatIP, self.asked, self.error = faiss.IndexFlatIP, [], error

    def get_num_gpus(self) -> int:
        return 1

    def index_cpu_to_all_gpus(self, index: Any) -> WithGpu:
        if self.error:
            raise RuntimeError(self.error)
        self.index = index
        return self

    def search(self, queries: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
        self.asked.append(k)
        if k > 2048:
            raise RuntimeError("GPU index only supports min/max-K selection up to 2048")
        scores, ids = self.index.search(queries, k)
        return scores, ids


def test_search_exact_on_a_gpu_answers_as_without(monkeypatch: pytest.MonkeyPatch) -> None:
    alike = np.repeat(seeded_queries(1, 3), [2500, 30, 1], axis=0)
    keys = [f"id{i:05d}" for i in range(len(alike))]
    rows = rows_of(make_card(dim=DIM), keys)
    flat = pa.FixedSizeListArray.from_arrays(pa.array(alike.astype(np.float16).reshape(-1)), DIM)
    rows = rows.set_column(rows.schema.get_field_index("descriptor"), "descriptor", flat)
    queries = seeded_queries(1, 2)
    expected = {k: MemorySearcher(rows).search(queries, k=k) for k in (1, 20, 2400)}
    gpu = WithGpu()
    for module in ("faiss_module", "flat"):
        monkeypatch.setattr(f"storage.search.{module}.import_faiss", lambda: gpu)
    searcher = MemorySearcher(rows)
    for k, answers in expected.items():
        assert searcher.search(queries, k=k) == answers
    # Wider as long as scores are equal, by the GPU as far as that goes.
    assert gpu.asked == [9, 36, 144, 576, 28, 112, 448, 1792]
    assert [c.record.image_id for c in expected[20][0]] == keys[:20]


def test_search_exact_goes_on_without_a_gpu_that_is_too_small(monkeypatch: pytest.MonkeyPatch) -> None:
    rows = rows_of(make_card(dim=DIM), IDS[:50])
    queries = seeded_queries(2, 3)
    expected = MemorySearcher(rows).search(queries, k=5)
    small = WithGpu("Error in cudaMalloc\nFaiss assertion 'out of memory' failed")
    for module in ("faiss_module", "flat"):
        monkeypatch.setattr(f"storage.search.{module}.import_faiss", lambda: small)
    with pytest.warns(RuntimeWarning, match=r"stays on the CPU.*out of memory"):
        searcher = MemorySearcher(rows)
    assert searcher.search(queries, k=5) == expected


@pytest.mark.parametrize("indexed", [False, True])
@pytest.mark.parametrize("method", ["ivf", "lance"])
def test_search_approximate_reaches_its_stated_recall(
    big: tuple[Store, pa.Table], method: SearchMethod, indexed: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    shared, rows = big
    monkeypatch.setattr("storage.search.snapshot._LANCE_INDEX_ROWS", 0 if indexed else 10**9)
    store = Store.open(shared.uri)
    version = store.version
    queries, k = seeded_queries(99, 40), 20
    answers = store.search(queries, k=k, method=method)
    hits = 0
    for found, expected in zip(answers, exact_search(rows, queries, k), strict=True):
        assert len(found) == k
        assert [-c.similarity for c in found] == sorted(-c.similarity for c in found)
        truth = dict(expected)
        hits += sum(c.record.image_id in truth for c in found)
        for c in found:
            assert abs(c.similarity - truth.get(c.record.image_id, c.similarity)) < 1e-5
    assert hits / (len(queries) * k) >= MIN_RECALL[method]
    assert store.version == version, "building an index must not move the view"
    if method == "lance":
        newest = Store.open(shared.uri)
        assert LanceTable.open(Path(shared.uri), version=newest.version).has_index == indexed
        assert newest.count == ROWS


@pytest.mark.parametrize(("dim", "former"), [(32, False), (12, False), (32, True)])
def test_search_through_each_index_of_lancedb_reaches_the_recall(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, dim: int, former: bool
) -> None:
    """12 dimensions cannot have the usual index; `former` is what stores got before."""
    monkeypatch.setattr("storage.search.snapshot._LANCE_INDEX_ROWS", 0)
    if former:
        monkeypatch.setattr("storage.table.lance_table.IvfRq", lambda **_: HnswSq(distance_type="cosine"))
    store = make_store(tmp_path, IDS[:600], batch=600, dim=dim)
    queries, k = seeded_queries(5, 20, dim), 20
    store.search(queries, k=k, method="lance")  # builds the index
    [index] = lancedb.connect(tmp_path).open_table("records").list_indices()
    assert index.index_type.upper().replace("_", "") == ("IVFHNSWSQ" if former or dim % 8 else "IVFRQ")

    def recall() -> float:
        newest = Store.open(tmp_path)
        table = LanceTable.open(tmp_path, version=newest.version)
        assert table.has_index
        exact = exact_search(pa.concat_tables(table.scan()), queries, k)
        answers = newest.search(queries, k=k, method="lance")
        found = [{c.record.image_id for c in answer} for answer in answers]
        pairs = zip(found, exact, strict=True)
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
    asked = IDS[::97]
    answers = store.search(np.stack([descriptor_of(i, dim=DIM) for i in asked]), k=1, method=method)
    assert [found[0].record.image_id for found in answers] == asked
    assert min(found[0].similarity for found in answers) > 0.999


def same_descriptor(card_rows: pa.Table, vector: np.ndarray) -> pa.Table:
    flat = np.tile(vector.astype(np.float16), len(card_rows))
    column = pa.FixedSizeListArray.from_arrays(pa.array(flat), len(vector))
    at = card_rows.schema.get_field_index("descriptor")
    return card_rows.set_column(at, card_rows.schema.field(at), column)


@pytest.mark.parametrize("seed", range(3))
def test_search_equal_descriptors_come_in_order_of_image_id(seed: int) -> None:
    card = make_card()
    order = np.random.default_rng(seed).permutation(200)
    ids = [f"id{i:03d}" for i in order]
    rows = same_descriptor(rows_of(card, ids), descriptor_of("one"))
    rows = pa.concat_tables([rows_of(card, ["zz-best", "aa-other"]), rows])
    for k in (1, 5, 150):
        found = MemorySearcher(rows).search(descriptor_of("one")[None], k=k)[0]
        assert [c.record.image_id for c in found] == sorted(ids)[:k], f"seed {seed}, k {k}"
        assert len({c.similarity for c in found}) == 1


def test_searcher_of_parts_together_answer_like_the_whole(big: tuple[Store, pa.Table]) -> None:
    _, rows = big
    queries = seeded_queries(3, 4)
    parts = [MemorySearcher(rows.slice(start, 400)) for start in range(0, ROWS, 400)]
    assert sum(part.count for part in parts) == ROWS
    together = [
        list(itertools.chain(*found)) for found in zip(*(p.search(queries, k=9) for p in parts), strict=True)
    ]
    best = [sorted(f, key=lambda c: (-c.similarity, c.record.image_id))[:9] for f in together]
    assert best == MemorySearcher(rows).search(queries, k=9)


@pytest.mark.parametrize("approximate", [False, True])
def test_searcher_without_rows_answers_with_nothing(approximate: bool) -> None:
    empty = MemorySearcher(row_schema(make_card()).empty_table(), approximate=approximate)
    assert empty.search(seeded_queries(0, 2, 16), k=3) == [[], []]


def test_index_searcher_without_rows_answers_with_nothing(tmp_path: Path) -> None:
    store = make_store(tmp_path)
    for method in ("exact", "ivf", "lance"):
        assert store.search(seeded_queries(0, 2, 16), k=3, method=method) == [[], []]  # type: ignore[arg-type]


def test_search_without_queries_returns_no_answers(big: tuple[Store, pa.Table]) -> None:
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


def test_search_damaged_rows_are_left_out_and_said_so(tmp_path: Path) -> None:
    card = make_card()
    stored = add_checksums(rows_of(card, IDS[:50]))
    at = stored.schema.get_field_index("width")
    widths = stored["width"].to_pylist()
    widths[7] += 1
    table = LanceTable.create(tmp_path, card)
    table.append(stored.set_column(at, stored.schema.field(at), pa.array(widths, pa.int32())))
    rows, left_out = read_partition(table)
    assert (len(rows), left_out) == (49, 1)
    searcher = LanceSearcher(table)
    found = searcher.search(descriptor_of(IDS[7])[None], k=50)[0]
    assert searcher.degraded
    assert sorted(c.record.image_id for c in found) == IDS[:7] + IDS[8:50]


def test_searcher_without_faiss_names_the_extras(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "faiss", None)
    with pytest.raises(ImportError, match=r"placeray\[cpu\].*placeray\[gpu\]"):
        MemorySearcher(rows_of(make_card(), IDS[:3]))
