"""Mutual nearest neighbours against golden numbers and against the plain formulation."""

from __future__ import annotations

import tracemalloc
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from torch import Tensor

from models import matching
from models.matching import matched_pairs, mutual_nn_count, mutual_nn_mean_similarity

GOLDEN = np.load(Path(__file__).parent / "golden" / "mnn.npz")


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
)
def test_pairs_many_ties_first_index_wins(
    seed: int, rows: int, columns: int, width: int, levels: int, block: int
) -> None:
    rng = np.random.default_rng(seed)
    query = rng.integers(-levels, levels + 1, (rows, width)).astype(np.float32)
    candidates = rng.integers(-levels, levels + 1, (3, columns, width)).astype(np.float32)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(matching, "_CPU_BLOCK", block)
        counts = mutual_nn_count(query, candidates).tolist()
        pairs = [matched_pairs(query, candidate)[0].tolist() for candidate in candidates]
    expected = [[list(pair) for pair in plain_pairs(query, candidate)] for candidate in candidates]
    assert pairs == expected, f"seed {seed}"
    assert counts == [len(found) for found in expected], f"seed {seed}"


@pytest.mark.parametrize("seed", range(20))
def test_fold_accelerator_form_equals_cpu_form(seed: int) -> None:
    rng = np.random.default_rng(seed)
    values = rng.standard_normal((3, 50, 40)).astype(np.float32)
    if seed % 2:
        values = np.round(values * 2)
    results: list[tuple[Tensor, Tensor]] = []
    for fold in (matching._fold, matching._fold_on_cpu):
        partner, best = torch.full((3, 40), -1), torch.full((3, 40), -torch.inf)
        for first in (0, 20, 40):
            fold(torch.from_numpy(values[:, first : first + 20].copy()), first, partner, best)
        results.append((partner, best))
    assert torch.equal(results[0][0], results[1][0]), f"seed {seed}"
    assert torch.equal(results[0][1], results[1][1]), f"seed {seed}"
    assert (results[0][0] >= 0).any()


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
def test_count_value_not_finite_refused(
    value: float, where: str, block: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(matching, "_CPU_BLOCK", block)
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


def test_count_large_maps_stay_within_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    largest = 0
    original = matching._fold_on_cpu

    def measured(block: Tensor, first: int, partner: Tensor, best: Tensor) -> None:
        nonlocal largest
        largest = max(largest, block.numel() * block.element_size())
        original(block, first, partner, best)

    monkeypatch.setattr(matching, "_fold_on_cpu", measured)
    rng = np.random.default_rng(0)
    query, candidates = unit(rng, 61, 61, 128), unit(rng, 2, 61, 61, 128).astype(np.float16)
    tracemalloc.start()
    counts = mutual_nn_count(query, candidates)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert counts.shape == (2,)
    assert 0 < largest <= 4 << 20
    assert peak < 32 << 20
