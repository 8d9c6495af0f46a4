"""Search in memory: ties, chunks, GPUs, and FAISS missing."""

from __future__ import annotations

import sys
from typing import Any

import faiss
import numpy as np
import pyarrow as pa
import pytest

from storage.search.living_searcher import LivingSearcher
from storage.search.loading import searcher_of_rows
from storage.search.memory_rows import MemoryRows
from storage.table.schema import row_schema
from tests.support.search_samples import SEARCH_DIM as DIM
from tests.support.search_samples import seeded_queries
from tests.support.store_samples import descriptor_of, make_card, rows_of

IDS = [f"id{i:05d}" for i in range(600)]


@pytest.mark.parametrize("approximate", [False, True])
def test_search_in_memory_does_not_depend_on_how_many_commits_there_were(approximate: bool) -> None:
    rows = rows_of(make_card(dim=DIM), IDS[:600])
    pieces = pa.concat_tables([rows.slice(start, 25) for start in range(0, 600, 25)])
    queries = seeded_queries(3, 4)
    whole, many = (searcher(part, approximate=approximate) for part in (rows, pieces))
    assert many.search(queries, k=9) == whole.search(queries, k=9)
    assert isinstance(many._rows, MemoryRows)
    assert {column.num_chunks for column in many._rows._segments[0].rows.columns} == {
        1
    }  # many would slow each answer down


def searcher(rows: pa.Table, *, approximate: bool = False) -> LivingSearcher:
    card = make_card(dim=rows.schema.field("descriptor").type.list_size)
    return searcher_of_rows(rows, card, "ivf" if approximate else "exact")


class WithGpu:
    """FAISS as built for GPUs, with a GPU that is the CPU: its limits are the real one's."""

    StandardGpuResources = object

    def __init__(self, error: str | None = None) -> None:
        self.IndexFlatIP, self.requested_k, self.error = faiss.IndexFlatIP, [], error
        self.clone_index, self.rev_swig_ptr = faiss.clone_index, faiss.rev_swig_ptr

    def get_num_gpus(self) -> int:
        return 1

    def index_cpu_to_all_gpus(self, index: Any) -> WithGpu:
        if self.error:
            raise RuntimeError(self.error)
        self.index = index
        return self

    def search(self, queries: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
        self.requested_k.append(k)
        if k > 2048:
            raise RuntimeError("GPU index only supports min/max-K selection up to 2048")
        scores, ids = self.index.search(queries, k)
        return scores, ids


def test_search_exact_on_a_gpu_equals_the_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    alike = np.repeat(seeded_queries(1, 3), [2500, 30, 1], axis=0)
    keys = [f"id{i:05d}" for i in range(len(alike))]
    rows = rows_of(make_card(dim=DIM), keys)
    flat = pa.FixedSizeListArray.from_arrays(pa.array(alike.astype(np.float16).reshape(-1)), DIM)
    rows = rows.set_column(rows.schema.get_field_index("descriptor"), "descriptor", flat)
    queries = seeded_queries(1, 2)
    expected = {k: searcher(rows).search(queries, k=k) for k in (1, 20, 2400)}
    gpu = WithGpu()
    for module in ("faiss_module", "descriptor_blocks"):
        monkeypatch.setattr(f"storage.search.{module}.import_faiss", lambda: gpu)
    on_gpu = searcher(rows)
    for k, answers in expected.items():
        assert on_gpu.search(queries, k=k) == answers
    # Wider as long as scores are equal, by the GPU as far as that goes.
    assert gpu.requested_k == [9, 36, 144, 576, 28, 112, 448, 1792]
    assert [c.record.image_id for c in expected[20][0]] == keys[:20]


def test_search_exact_falls_back_to_the_cpu_when_the_gpu_is_too_small(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    rows = rows_of(make_card(dim=DIM), IDS[:50])
    queries = seeded_queries(2, 3)
    expected = searcher(rows).search(queries, k=5)
    small = WithGpu("Error in cudaMalloc\nFaiss assertion 'out of memory' failed")
    for module in ("faiss_module", "descriptor_blocks"):
        monkeypatch.setattr(f"storage.search.{module}.import_faiss", lambda: small)
    with pytest.warns(RuntimeWarning, match=r"stays on the CPU.*out of memory"):
        on_cpu = searcher(rows)
    assert on_cpu.search(queries, k=5) == expected


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
        hits = searcher(rows).search(descriptor_of("one")[None], k=k)[0]
        assert [c.record.image_id for c in hits] == sorted(ids)[:k], f"seed {seed}, k {k}"
        assert len({c.similarity for c in hits}) == 1


@pytest.mark.parametrize("approximate", [False, True])
def test_searcher_without_rows_returns_nothing(approximate: bool) -> None:
    empty = searcher(row_schema(make_card()).empty_table(), approximate=approximate)
    assert empty.search(seeded_queries(0, 2, 16), k=3) == [[], []]


def test_searcher_without_faiss_names_the_extras(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "faiss", None)
    with pytest.raises(ImportError, match=r"placeray\[cpu\].*placeray\[gpu\]"):
        searcher(rows_of(make_card(), IDS[:3]))
