"""Mutual nearest neighbours against golden numbers and against the plain formulation."""

from __future__ import annotations

import tracemalloc
from concurrent.futures import ThreadPoolExecutor
from unittest.mock import Mock

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from models.matching import blocks, cpu_products
from models.matching import cpu as matching_cpu
from models.matching.blocks import partners_by_blocks
from models.matching.cpu import partners_on_cpu
from models.matching.mutual import matched_pairs, mutual_nn_count, mutual_nn_mean_similarity
from models.runtime.onednn import lays_out
from models.runtime.threads import use_one_thread
from tests.support.paths import GOLDEN as GOLDEN_FOLDER

GOLDEN = np.load(GOLDEN_FOLDER / "mnn.npz")


def plain_pairs(query: NDArray[np.float32], candidate: NDArray[np.float32]) -> list[tuple[int, int]]:
    """The definition, with the whole similarity matrix; argmax takes the first of equals."""
    similarity = query.astype(np.float32) @ candidate.astype(np.float32).T
    forth, back = similarity.argmax(axis=1), similarity.argmax(axis=0)
    return [(i, int(j)) for i, j in enumerate(forth) if back[j] == i]


def unit(rng: np.random.Generator, *shape: int) -> NDArray[np.float32]:
    values = rng.standard_normal(shape).astype(np.float32)
    return np.asarray(values / np.linalg.norm(values, axis=-1, keepdims=True), dtype=np.float32)


def test_count_golden_maps_exact() -> None:
    counts = mutual_nn_count(GOLDEN["query"], GOLDEN["candidates"])
    assert counts.dtype == torch.int64
    assert counts.tolist() == GOLDEN["mutual_nn_count"].astype(int).tolist()


def test_mean_similarity_golden_maps_agree() -> None:
    means = mutual_nn_mean_similarity(GOLDEN["query"], GOLDEN["candidates"])
    assert means.dtype == torch.float32
    np.testing.assert_allclose(means.numpy(), GOLDEN["mutual_nn_mean_similarity"], atol=1e-6)


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize(
    ("rows", "columns", "width"), [(1, 1, 3), (7, 300, 5), (900, 1100, 16), (196, 196, 112)]
)
def test_count_random_features_equals_plain(seed: int, rows: int, columns: int, width: int) -> None:
    rng = np.random.default_rng(seed)
    query, candidates = unit(rng, rows, width), unit(rng, 6, columns, width)
    expected = [len(plain_pairs(query, candidate)) for candidate in candidates]
    assert mutual_nn_count(query, candidates).tolist() == expected, f"seed {seed}"


@settings(max_examples=150, deadline=None, derandomize=True)
@given(
    seed=st.integers(0, 10**6),
    rows=st.integers(1, 40),
    columns=st.integers(1, 40),
    width=st.integers(1, 3),
    levels=st.integers(1, 3),
    block=st.sampled_from([1, 7, 64, 1000, 1 << 20]),
    band=st.sampled_from([1, 2, 5, 16]),
    onednn_from=st.sampled_from([0, 1 << 20]),
)
def test_pairs_many_ties_first_index_wins(
    seed: int,
    rows: int,
    columns: int,
    width: int,
    levels: int,
    block: int,
    band: int,
    onednn_from: int,
) -> None:
    rng = np.random.default_rng(seed)
    query = rng.integers(-levels, levels + 1, (rows, width)).astype(np.float32)
    candidates = rng.integers(-levels, levels + 1, (3, columns, width)).astype(np.float32)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(matching_cpu, "_TILE", block)
        patch.setattr(matching_cpu, "_BAND", band)
        patch.setattr(cpu_products, "_ONEDNN_FROM", onednn_from)
        counts = mutual_nn_count(query, candidates).tolist()
        pairs = [matched_pairs(query, candidate)[0].tolist() for candidate in candidates]
    expected = [[list(pair) for pair in plain_pairs(query, candidate)] for candidate in candidates]
    assert pairs == expected, f"seed {seed}"
    assert counts == [len(pairs) for pairs in expected], f"seed {seed}"


@pytest.mark.parametrize("before", [0, 3])
@pytest.mark.parametrize("between", [0, 1, 14, 15, 16, 40])
def test_pairs_earlier_cell_with_the_same_value_prevents_a_pair(before: int, between: int) -> None:
    # To the second query cell two candidate cells are equally near, but the earlier one prefers the first.
    query = np.array([[1, 0], [0, 1]], np.float32)
    candidate = np.full((before + between + 2, 2), -1, np.float32)
    candidate[before], candidate[-1] = [2, 1], [0, 1]
    assert matched_pairs(query, candidate)[0].tolist() == [[0, before]]
    candidate[before, 1] = 0.9
    assert matched_pairs(query, candidate)[0].tolist() == [[0, before], [1, before + between + 1]]


def test_products_laid_out_for_onednn_equal_those_of_blas(monkeypatch: pytest.MonkeyPatch) -> None:
    if not lays_out(torch.float32):
        pytest.skip("this torch lays nothing out for oneDNN")
    rng = np.random.default_rng(0)
    query, candidates = torch.from_numpy(unit(rng, 700, 128)), unit(rng, 3, 650, 128)
    product = Mock(wraps=cpu_products.product)
    monkeypatch.setattr(cpu_products, "product", product)
    partner, best = partners_on_cpu(query, candidates)
    assert product.called
    monkeypatch.setattr(cpu_products, "lays_out", lambda _: False)
    product.reset_mock()
    plain_partner, plain_best = partners_on_cpu(query, candidates)
    assert not product.called
    assert torch.equal(partner, plain_partner)
    torch.testing.assert_close(best, plain_best, rtol=0, atol=1e-6)


@pytest.mark.parametrize("seed", range(20))
def test_partners_by_blocks_equal_partners_on_cpu(seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(seed)
    query = torch.from_numpy(rng.standard_normal((40, 4)).astype(np.float32))
    candidates = torch.from_numpy(rng.standard_normal((3, 50, 4)).astype(np.float32))
    if seed % 2:  # many ties
        query, candidates = torch.round(query), torch.round(candidates)
    monkeypatch.setattr(blocks, "_BLOCK", 40 * 20)
    partner, best = partners_by_blocks(query, candidates)
    expected_partner, expected_best = partners_on_cpu(query, candidates)
    assert torch.equal(partner, expected_partner), f"seed {seed}"
    torch.testing.assert_close(best, expected_best)
    assert (partner >= 0).any()


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_count_other_dtypes_equal_float32_of_same_values(dtype: torch.dtype) -> None:
    rng = np.random.default_rng(3)
    query = torch.from_numpy(unit(rng, 8, 9, 24)).to(dtype)
    candidates = torch.from_numpy(unit(rng, 4, 5, 7, 24)).to(dtype)
    expected = mutual_nn_count(query.float(), candidates.float())
    assert mutual_nn_count(query, candidates).tolist() == expected.tolist()
    assert 0 < int(expected.max()) <= 35


def test_count_readonly_float16_array_accepted() -> None:
    query = GOLDEN["query"].astype(np.float16)
    candidates = GOLDEN["candidates"].astype(np.float16)
    query.flags.writeable = candidates.flags.writeable = False
    counts = mutual_nn_count(query, candidates).numpy()
    np.testing.assert_allclose(counts, GOLDEN["mutual_nn_count"], atol=8)


def test_count_same_map_counts_every_cell() -> None:
    query = unit(np.random.default_rng(0), 30, 16)
    assert mutual_nn_count(query, query[None]).tolist() == [30]


def test_count_min_similarity_keeps_pairs_at_the_floor() -> None:
    query = np.eye(4, dtype=np.float32)
    candidate = query * np.array([[1.0], [0.6], [0.5], [0.4]], dtype=np.float32)
    assert mutual_nn_count(query, candidate[None], min_similarity=0.5).tolist() == [3]
    indices, similarity = matched_pairs(query, candidate, min_similarity=0.5)
    assert indices.tolist() == [[0, 0], [1, 1], [2, 2]]
    np.testing.assert_allclose(similarity, [1.0, 0.6, 0.5])


def test_pairs_permuted_cells_return_the_permutation() -> None:
    rng = np.random.default_rng(1)
    query, order = unit(rng, 5, 6, 32), rng.permutation(30)
    indices, similarity = matched_pairs(query, query.reshape(30, 32)[order])
    assert (indices.dtype, similarity.dtype) == (np.int64, np.float32)
    assert indices[:, 0].tolist() == list(range(30))
    assert order[indices[:, 1]].tolist() == list(range(30))
    np.testing.assert_allclose(similarity, 1.0, atol=1e-6)


def test_count_no_candidates_returns_empty() -> None:
    counts = mutual_nn_count(GOLDEN["query"], np.zeros((0, 24, 24, 32), np.float32))
    assert (counts.shape, counts.dtype) == ((0,), torch.int64)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("where", ["query", "candidates"])
@pytest.mark.parametrize("block", [64, 1 << 20])
@pytest.mark.parametrize("onednn_from", [0, 1 << 20])
def test_count_value_not_finite_refused(
    value: float, where: str, block: int, onednn_from: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(matching_cpu, "_TILE", block)
    monkeypatch.setattr(cpu_products, "_ONEDNN_FROM", onednn_from)
    rng = np.random.default_rng(2)
    arrays = {"query": unit(rng, 20, 8), "candidates": unit(rng, 3, 20, 8)}
    arrays[where].flat[37] = value
    with pytest.raises(ValueError, match="placeray verify"):
        mutual_nn_count(arrays["query"], arrays["candidates"])


@pytest.mark.parametrize(
    ("query", "candidates"),
    [((8,), (2, 4, 8)), ((4, 8), (4, 8)), ((4, 8), (2, 4, 9)), ((0, 8), (2, 4, 8)), ((4, 8), (2, 0, 8))],
)
def test_count_wrong_shapes_refused(query: tuple[int, ...], candidates: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match=r"pass|compare"):
        mutual_nn_count(np.zeros(query, np.float32), np.zeros(candidates, np.float32))


def test_count_integer_features_refused() -> None:
    with pytest.raises(ValueError, match="convert"):
        mutual_nn_count(np.zeros((4, 8), np.int8), np.zeros((1, 4, 8), np.int8))


def test_mean_similarity_gradient_matches_finite_difference() -> None:
    torch.manual_seed(0)
    query = torch.nn.functional.normalize(torch.randn(12, 6), dim=1).requires_grad_()
    candidates = torch.nn.functional.normalize(torch.randn(2, 10, 6), dim=2).requires_grad_()
    mutual_nn_mean_similarity(query, candidates).sum().backward()
    assert query.grad is not None
    assert candidates.grad is not None
    step = torch.zeros_like(query)
    step[3, 2] = 1e-3
    with torch.no_grad():
        rise = (
            mutual_nn_mean_similarity(query + step, candidates).sum()
            - mutual_nn_mean_similarity(query - step, candidates).sum()
        ) / 2e-3
    assert float(rise) == pytest.approx(float(query.grad[3, 2]), abs=2e-3)
    assert float(candidates.grad.abs().sum()) > 0


@pytest.mark.parametrize("threads", [1, 2, 5])
def test_count_any_number_of_threads_gives_the_same(threads: int, monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(4)
    query, candidates = unit(rng, 50, 8), unit(rng, 23, 60, 8)
    expected = [len(plain_pairs(query, candidate)) for candidate in candidates]
    monkeypatch.setattr(matching_cpu, "_TILE", 4000)
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        assert mutual_nn_count(query, candidates).tolist() == expected
        assert torch.get_num_threads() == threads
    finally:
        torch.set_num_threads(before)


@pytest.mark.parametrize(("cores", "bound"), [([0, 1], True), ([0, 1, 2], False)])
def test_count_threads_are_bound_where_they_are_as_many_as_cores(
    cores: list[int], bound: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[bool] = []
    pool = matching_cpu._pool

    def watched(*, one_per_core: bool) -> ThreadPoolExecutor:
        asked.append(one_per_core)
        return pool(one_per_core=False)

    monkeypatch.setattr(matching_cpu, "_pool", watched)
    monkeypatch.setattr(matching_cpu, "usable_cores", lambda: cores)
    rng = np.random.default_rng(6)
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        mutual_nn_count(unit(rng, 50, 8), unit(rng, 23, 60, 8))
    finally:
        torch.set_num_threads(before)
    assert asked == [bound]


def test_count_worker_threads_leave_later_threads_their_setting() -> None:
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        rng = np.random.default_rng(5)
        mutual_nn_count(unit(rng, 50, 8), unit(rng, 23, 60, 8))
        with ThreadPoolExecutor(1) as pool:
            assert pool.submit(torch.get_num_threads).result() == 2
        with ThreadPoolExecutor(1, initializer=use_one_thread) as pool:
            assert pool.submit(torch.get_num_threads).result() == 1
    finally:
        torch.set_num_threads(before)


def test_count_value_not_finite_refused_from_worker_threads() -> None:
    query, candidates = np.ones((5, 3), np.float32), np.ones((40, 5, 3), np.float32)
    candidates[33, 2, 1] = np.nan
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        with pytest.raises(ValueError, match="placeray verify"):
            mutual_nn_count(query, candidates)
    finally:
        torch.set_num_threads(before)


def test_count_minus_infinity_beside_positive_queries_refused() -> None:
    query, candidates = np.ones((5, 3), np.float32), np.ones((2, 5, 3), np.float32)
    candidates[1, 2, 1] = -np.inf
    with pytest.raises(ValueError, match="placeray verify"):
        mutual_nn_count(query, candidates)
    with pytest.raises(ValueError, match="placeray verify"):
        partners_by_blocks(torch.from_numpy(query), torch.from_numpy(candidates))


def test_count_long_constant_map_needs_little_memory() -> None:
    query, candidates = np.ones((1, 2), np.float32), np.ones((1, 300_000, 2), np.float32)
    tracemalloc.start()
    assert mutual_nn_count(query, candidates).tolist() == [1]
    assert tracemalloc.get_traced_memory()[1] < 64 << 20
    tracemalloc.stop()


def test_count_unknown_precision_refused() -> None:
    with pytest.raises(ValueError, match='"exact" or "fast"'):
        mutual_nn_count(np.ones((2, 2)), np.ones((1, 2, 2)), precision="half")  # type: ignore[arg-type]


def test_count_large_maps_stay_within_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    largest = 0
    original = matching_cpu._Found.fold

    def measured(self: matching_cpu._Found, tile: NDArray[np.float32], first: int) -> None:
        nonlocal largest
        largest = max(largest, tile.nbytes)
        original(self, tile, first)

    monkeypatch.setattr(matching_cpu._Found, "fold", measured)
    rng = np.random.default_rng(0)
    query, candidates = unit(rng, 61, 61, 128), unit(rng, 2, 61, 61, 128).astype(np.float16)
    tracemalloc.start()
    counts = mutual_nn_count(query, candidates)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert counts.shape == (2,)
    assert 0 < largest <= 8 << 20
    assert peak < 32 << 20
