"""How many components codes cover, chosen on a sample."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from storage.search.descriptor_blocks import DescriptorBlocks
from storage.search.faiss_module import import_faiss
from storage.search.reduction import Sample, Trial, reduction

DIM, ROWS, QUERIES, K = 64, 4000, 40, 20


def drawn(decay: float, *, dim: int = DIM, seed: int = 0) -> NDArray[np.float32]:
    """Rows around 200 places, whose variance falls off as 1 / (1 + i)^decay."""
    random = np.random.default_rng(seed)
    spread = (1 + np.arange(dim)) ** (-decay / 2)
    places = random.standard_normal((200, dim)) * spread
    rows = places[random.integers(200, size=ROWS)] + 0.5 * random.standard_normal((ROWS, dim)) * spread
    return np.asarray(rows / np.linalg.norm(rows, axis=1, keepdims=True), np.float32)


def trial_of(rows: NDArray[np.float32], *, count: int, row_bytes: int = 2 * DIM) -> Trial:
    queries = rows[:QUERIES]
    nearest = np.argsort(-(queries @ rows.T), axis=1)[:, 1 : K + 1]
    return Trial(queries, rows[nearest], count, row_bytes, 0.99)


def sample_of(rows: NDArray[np.float32]) -> Sample:
    stored = DescriptorBlocks(rows.shape[1], np.float32, unit=False).grown(rows)
    return Sample(stored, np.arange(len(rows)))


def components(decay: float, *, count: int = 1_000_000, row_bytes: int = 2 * DIM) -> int:
    rows = drawn(decay)
    return reduction(sample_of(rows), trial_of(rows, count=count, row_bytes=row_bytes))[1]


def test_steep_spectra_need_fewer_components_than_flat_ones() -> None:
    steep, flat = components(3.0, row_bytes=8), components(0.1, row_bytes=8)
    assert steep < DIM / 2 < flat
    assert steep % 4 == flat % 4 == 0


def test_what_costs_more_decides() -> None:
    """Rows that are long to compare again make longer codes worth while."""
    assert components(1.0, row_bytes=8) < components(1.0, row_bytes=1_000_000)


@pytest.mark.parametrize("dim", [8, 64, 70])
def test_all_components_keep_distances(dim: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("storage.search.reduction._VARIANCES", (1.0,))
    rows = drawn(0.0, dim=dim)
    linear, count = reduction(sample_of(rows), trial_of(rows, count=100_000))
    assert count >= dim
    moved = linear.apply(rows[:50])
    before = np.linalg.norm(rows[:50, None] - rows[None, :50], axis=-1)
    after = np.linalg.norm(moved[:, None] - moved[None], axis=-1)
    np.testing.assert_allclose(after, before, atol=1e-5)
    np.testing.assert_allclose(linear.apply(rows).mean(axis=0), 0, atol=1e-4)


def test_two_runs_choose_the_same() -> None:
    rows = drawn(1.0)
    faiss = import_faiss()
    first, second = (reduction(sample_of(rows), trial_of(rows, count=100_000))[0] for _ in range(2))
    assert np.array_equal(faiss.vector_to_array(first.A), faiss.vector_to_array(second.A))


def test_moments_in_blocks_are_those_of_all(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("storage.search.reduction._WIDENED", 333)
    rows = drawn(0.5) + np.float32(0.3)
    mean, covariance = sample_of(rows).moments()
    np.testing.assert_allclose(mean, rows.mean(axis=0, dtype=np.float64), atol=1e-6)
    np.testing.assert_allclose(covariance, np.cov(rows.astype(np.float64), rowvar=False), atol=1e-7)


def test_a_sample_is_moved_in_blocks_as_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("storage.search.reduction._WIDENED", 333)
    rows = drawn(0.5)
    sample = sample_of(rows)
    linear, count = reduction(sample, trial_of(rows, count=100_000))
    np.testing.assert_allclose(sample.reduced(linear, count), linear.apply(rows), atol=1e-6)
    assert np.array_equal(sample.drawn(10), rows[np.linspace(0, ROWS - 1, 10).astype(int)])
