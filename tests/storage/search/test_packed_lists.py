"""Inverted lists at their exact size, against FAISS's own."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from storage.search.approximate import ApproximateIndex
from storage.search.coded_rows import CodedRows
from storage.search.faiss_module import import_faiss
from storage.search.packed_lists import PackedLists

DIM, LISTS, ROWS = 24, 8, 900


def vectors(seed: int, count: int = ROWS) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal((count, DIM), dtype=np.float32)


@pytest.fixture(scope="module")
def empty() -> Any:
    """An index of FAISS without rows."""
    faiss = import_faiss()
    trained = faiss.IndexIVFPQFastScan(faiss.IndexFlatL2(DIM), DIM, LISTS, DIM // 2, 4)
    trained.cp.min_points_per_centroid = 1
    trained.train(vectors(0))
    return faiss.clone_index(trained)


def packed(
    empty: Any, rows: np.ndarray, start: int, former: PackedLists | None, *, block: int
) -> PackedLists:
    """Lists of the rows from `start` on, with their numbers among all."""
    faiss = import_faiss()
    chosen = empty.quantizer.assign(rows[start:], 1)[:, 0]
    order = np.argsort(chosen, kind="stable") + start
    packer = faiss.downcast_InvertedLists(empty.invlists).packer
    lists = PackedLists(packer, order, np.bincount(chosen, minlength=LISTS), former)
    lists.fill(lambda some: empty.pq.compute_codes(rows[some]), block=block)
    return lists


def held(lists: Any, number: int, packer: Any) -> tuple[np.ndarray, np.ndarray]:
    """Numbers and codes of a list, unpacked by FAISS."""
    faiss = import_faiss()
    size = lists.list_size(number)
    blocks = -(-size // packer.nvec)
    codes = faiss.rev_swig_ptr(lists.get_codes(number), blocks * packer.block_size)
    codes = codes.reshape(blocks, -1)
    unpacked = [packer.unpack_1(codes, place) for place in range(size)]
    return faiss.rev_swig_ptr(lists.get_ids(number), size).copy(), np.array(unpacked)


@pytest.mark.parametrize("block", [1, 37, 64, 5000])
def test_lists_hold_what_faiss_puts_into_its_own(empty: Any, block: int) -> None:
    faiss, rows = import_faiss(), vectors(1)
    own = faiss.clone_index(empty)
    own.add(rows)
    expected = faiss.downcast_InvertedLists(own.invlists)
    made = packed(empty, rows, 0, None, block=block)
    assert made.sizes.sum() == ROWS
    for number in range(LISTS):
        found, wanted = (held(lists, number, expected.packer) for lists in (made.faiss_lists, expected))
        assert np.array_equal(found[0], wanted[0]), f"list {number}"
        assert np.array_equal(found[1], wanted[1]), f"list {number}"


def test_lists_that_grow_hold_the_same_and_leave_the_former_as_they_were(empty: Any) -> None:
    packer = import_faiss().downcast_InvertedLists(empty.invlists).packer
    rows = vectors(2)
    former = packed(empty, rows[:500], 0, None, block=100)
    before = [held(former.faiss_lists, number, packer) for number in range(LISTS)]
    grown = packed(empty, rows, 500, former, block=100)
    at_once = packed(empty, rows, 0, None, block=100)
    for number in range(LISTS):
        for one, two in zip(
            held(grown.faiss_lists, number, packer), held(at_once.faiss_lists, number, packer), strict=True
        ):
            assert np.array_equal(one, two)
        for one, two in zip(held(former.faiss_lists, number, packer), before[number], strict=True):
            assert np.array_equal(one, two)


def test_memory_is_that_of_the_rows_and_a_block_per_list(empty: Any) -> None:
    made = packed(empty, vectors(3), 0, None, block=64)
    row = DIM // 4 + 8
    assert ROWS * row <= made.nbytes < ROWS * row + LISTS * (32 * DIM // 4 + 32)


def test_memory_is_returned_with_the_lists(empty: Any) -> None:
    rows = np.zeros(100_000, np.int64)
    packer = import_faiss().downcast_InvertedLists(empty.invlists).packer

    def mapped() -> int:
        return int(Path("/proc/self/statm").read_text().split()[0]) * 4096

    further = np.zeros(LISTS, np.int64)
    further[0] = len(rows)
    before = mapped()
    for _ in range(200):
        PackedLists(packer, rows, further)
    assert mapped() - before < 50 * 100_000 * (DIM // 4 + 8)


def test_codes_of_an_index_take_no_more_than_their_rows() -> None:
    rows = np.random.default_rng(4).standard_normal((5000, 32)).astype(np.float16)
    rows /= np.linalg.norm(rows.astype(np.float32), axis=1, keepdims=True).astype(np.float16)
    index = ApproximateIndex(rows)
    coded, code = index._coded, index.components // 4
    assert isinstance(coded, CodedRows)
    assert coded.count == 5000
    assert coded._packed.nbytes <= 5000 * (code + 8) + index.lists * (31 * code + 32)


def test_no_thread_reads_lists_ahead(empty: Any) -> None:
    assert packed(empty, vectors(2), 0, None, block=64).faiss_lists.prefetch_nthread == 0
