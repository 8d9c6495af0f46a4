"""The approximate index against exact search in NumPy."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from storage.search.approximate import TARGET_RECALL, ApproximateIndex

ROWS, DIM, K = 6000, 64, 100


def unit(rows: np.ndarray) -> np.ndarray:
    return np.asarray(rows / np.linalg.norm(rows, axis=1, keepdims=True))


def city(count: int, seed: int, *, decay: float = 1.0, dtype: Any = np.float16) -> np.ndarray:
    """Rows around 400 places, of variance 1 / (1 + i) ** decay in a random basis, with a common part."""
    places, generator = np.random.default_rng(0), np.random.default_rng(seed)
    spread = (1 + np.arange(DIM)) ** (-decay / 2)
    basis = np.linalg.qr(places.standard_normal((DIM, DIM)))[0]
    centres = places.standard_normal((400, DIM)) * spread + 2 * np.eye(DIM)[0]
    points = centres[generator.integers(400, size=count)] + generator.standard_normal((count, DIM)) * spread
    return unit(points @ basis).astype(dtype)


def nearest(rows: np.ndarray, queries: np.ndarray, k: int) -> np.ndarray:
    return np.argsort(-(queries.astype(np.float64) @ unit(rows.astype(np.float64)).T), axis=1)[:, :k]


def recall_of(index: ApproximateIndex, rows: np.ndarray, queries: np.ndarray, k: int) -> float:
    hits = index.search(queries.astype(np.float32), k)
    assert hits.shape == (len(queries), k)
    truth = nearest(rows, queries, k)
    return float(np.mean([len(np.intersect1d(a, b)) / k for a, b in zip(hits, truth, strict=True)]))


@pytest.fixture(scope="module")
def rows() -> np.ndarray:
    return city(ROWS, 1)


@pytest.fixture(scope="module")
def index(rows: np.ndarray) -> ApproximateIndex:
    return ApproximateIndex(rows)


def test_index_reaches_its_measured_recall_on_new_queries(index: ApproximateIndex, rows: np.ndarray) -> None:
    assert TARGET_RECALL <= index.recall <= 1
    assert 0 < index.probes <= index.lists
    for k in (1, 10, K, 300):
        assert recall_of(index, rows, city(200, 2, dtype=np.float32), k) >= TARGET_RECALL - 0.01, f"k {k}"


def test_index_reads_a_fraction_of_the_rows(index: ApproximateIndex) -> None:
    assert index.probes * index.components / 4 / index.lists + 2 * DIM * index.factor * K / ROWS < 2 * DIM


def test_index_with_a_lower_target_searches_less(index: ApproximateIndex, rows: np.ndarray) -> None:
    lower = ApproximateIndex(rows, target=0.8)
    assert 0.8 <= lower.recall < index.recall
    assert (lower.probes, lower.factor) < (index.probes, index.factor)
    assert 0.75 < recall_of(lower, rows, city(200, 2, dtype=np.float32), K) < 0.995


def test_index_best_come_first_and_reconstruct_returns_what_is_stored(
    index: ApproximateIndex, rows: np.ndarray
) -> None:
    queries = city(20, 3, dtype=np.float32)
    hits = index.search(queries, 30)
    for query, ids in zip(queries, hits, strict=True):
        similarity = rows[ids].astype(np.float32) @ query
        assert (np.diff(similarity) < 1e-3).all()
    assert np.array_equal(index.reconstruct(hits[0]), rows[hits[0]].astype(np.float32))


@pytest.mark.parametrize("dtype", [np.float16, np.float32])
def test_index_of_few_rows_compares_all(dtype: Any) -> None:
    few = city(700, 4, dtype=dtype)
    index = ApproximateIndex(few)
    assert (index.probes, index.recall) == (0, 1.0)
    assert recall_of(index, few, city(50, 5, dtype=np.float32), K) > 0.999


@pytest.mark.long
def test_index_in_single_precision_finds_the_same(rows: np.ndarray) -> None:
    index = ApproximateIndex(rows.astype(np.float32))
    assert recall_of(index, rows, city(100, 6, dtype=np.float32), K) >= TARGET_RECALL - 0.01
    assert np.array_equal(index.reconstruct(np.array([5])), rows[5:6].astype(np.float32))


def test_index_of_rows_without_structure_still_reaches_its_target() -> None:
    flat = unit(np.random.default_rng(7).standard_normal((3000, DIM))).astype(np.float16)
    queries = unit(np.random.default_rng(8).standard_normal((50, DIM)))
    index = ApproximateIndex(flat)
    assert index.recall >= TARGET_RECALL
    assert recall_of(index, flat, queries, K) >= TARGET_RECALL - 0.01


def test_index_where_no_setting_reaches_the_target_compares_all(rows: np.ndarray) -> None:
    index = ApproximateIndex(rows, target=1.1)
    assert (index.probes, index.recall) == (0, 1.0)
    assert recall_of(index, rows, city(50, 9, dtype=np.float32), K) > 0.999


def grown_recall(index: ApproximateIndex, rows: np.ndarray, alive: np.ndarray) -> float:
    queries = city(100, 11, dtype=np.float32)
    hits = index.search(queries, K, None if alive.all() else alive)
    numbers = np.flatnonzero(alive)
    truth = numbers[nearest(rows[alive], queries, K)]
    return float(np.mean([len(np.intersect1d(a, b)) / K for a, b in zip(hits, truth, strict=True)]))


def test_index_that_grows_keeps_its_recall(index: ApproximateIndex, rows: np.ndarray) -> None:
    further = city(4000, 12)
    everything = np.concatenate([rows, further])
    alive = np.ones(ROWS, bool)
    for start in range(0, 4000, 800):
        former, index = index, index.grown(further[start : start + 800])
        alive = np.concatenate([alive, np.ones(800, bool)])
        alive[start + 100 : start + 300] = False
        assert (former.count, index.count) == (ROWS + start, ROWS + start + 800)
        assert grown_recall(index, everything[: index.count], alive) >= TARGET_RECALL
        if index.extension_due(alive):
            extended = index.extended(alive)
            assert not extended.extension_due(alive)
            index = extended.joined(index)
        assert grown_recall(index, everything[: index.count], alive) >= TARGET_RECALL
        assert (
            grown_recall(index, everything[: index.count], np.arange(index.count) % 3 == 0) >= TARGET_RECALL
        )


def test_index_of_many_further_rows_is_trained_anew(rows: np.ndarray) -> None:
    index = ApproximateIndex(rows[:1500])
    assert index.probes == 0
    index = index.grown(rows[1500:])
    alive = np.ones(ROWS, bool)
    assert index.extension_due(alive)
    extended = index.extended(alive)
    assert extended.probes > 0
    later = extended.joined(index.grown(rows[:50]))
    assert later.count == ROWS + 50
    assert recall_of(later, np.concatenate([rows, rows[:50]]), city(50, 5, dtype=np.float32), K) >= 0.98


def test_descriptors_of_a_flat_spectrum_are_not_compared_one_by_one() -> None:
    rows = city(ROWS, 1, decay=0.3)
    index = ApproximateIndex(rows)
    assert index.probes > 0
    assert recall_of(index, rows, city(200, 2, decay=0.3, dtype=np.float32), K) >= TARGET_RECALL - 0.01
