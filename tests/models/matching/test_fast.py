"""Counts from 8-bit similarities: the integers are exact, the counts near the exact ones."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from models.matching import cpu_products
from models.matching.cpu import partners_on_cpu
from models.matching.cpu_products import int8_available
from models.matching.mutual import mutual_nn_count
from tests.models.matching.test_mutual import plain_pairs, unit

# Small maps are not worth rounding: the tests make them so.
pytestmark = pytest.mark.usefixtures("round_everything")

needs_int8 = pytest.mark.skipif(not int8_available(), reason="this CPU or torch multiplies no 8-bit integers")


@pytest.fixture
def round_everything(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cpu_products, "_INT8_FROM", 0)


def quantised(values: NDArray[np.float32], levels: int) -> NDArray[np.float32]:
    return np.asarray(np.round(values / (np.abs(values).max() / levels)), dtype=np.float32)


def noisy_views(
    rng: np.random.Generator, query: NDArray[np.float32], count: int, noise: float
) -> NDArray[np.float32]:
    """Permuted copies of a map with noise: some cells keep their mutual neighbour."""
    views = np.stack([query[rng.permutation(len(query))] for _ in range(count)])
    views = views + noise * unit(rng, *views.shape)
    return np.asarray(views / np.linalg.norm(views, axis=-1, keepdims=True), dtype=np.float32)


@needs_int8
@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize(
    ("rows", "columns", "width"), [(1, 1, 3), (60, 40, 24), (196, 196, 112), (300, 500, 128)]
)
def test_fast_partners_equal_plain_ones_of_rounded_cells(
    seed: int, rows: int, columns: int, width: int
) -> None:
    rng = np.random.default_rng(seed)
    query, candidates = unit(rng, rows, width), unit(rng, 3, columns, width)
    partner, best = partners_on_cpu(torch.from_numpy(query), candidates, fast=True)
    for cells, similarity, candidate in zip(partner.numpy(), best.numpy(), candidates, strict=True):
        rounded, other = quantised(query, 63), quantised(candidate, 127)
        pairs = plain_pairs(rounded, other)
        assert [(i, int(j)) for i, j in enumerate(cells) if j >= 0] == pairs, f"seed {seed}"
        scale = np.abs(query).max() / 63 * np.abs(candidate).max() / 127
        np.testing.assert_allclose(similarity, (rounded @ other.T).max(axis=1) * scale, rtol=1e-4, atol=1e-7)


@needs_int8
def test_fast_largest_values_of_all_do_not_overflow() -> None:
    query, candidates = np.ones((9, 512), np.float32), np.ones((2, 9, 512), np.float32)
    candidates[1] *= -1
    _, best = partners_on_cpu(torch.from_numpy(query), candidates, fast=True)
    np.testing.assert_allclose(best[:, 0].numpy(), [512, -512], rtol=1e-5)


@needs_int8
@pytest.mark.parametrize("seed", range(3))
def test_fast_counts_near_exact_ones(seed: int) -> None:
    rng = np.random.default_rng(seed)
    query = unit(rng, 400, 96)
    candidates = np.concatenate([noisy_views(rng, query, 4, noise) for noise in (0.5, 1.5, 3.0)])
    exact = mutual_nn_count(query, candidates, min_similarity=0.2).numpy()
    fast = mutual_nn_count(query, candidates, min_similarity=0.2, precision="fast").numpy()
    assert np.abs(fast - exact).max() <= 8, f"seed {seed}: {exact} {fast}"
    assert exact.max() - exact.min() > 50


@needs_int8
@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("kind", [np.asarray, torch.from_numpy])
def test_fast_leading_counts_are_exact(seed: int, kind: Callable[[NDArray[np.float32]], Any]) -> None:
    rng = np.random.default_rng(seed)
    query = unit(rng, 400, 96)
    candidates = np.concatenate([noisy_views(rng, query, 6, noise) for noise in (2.0, 3.0)])
    exact = mutual_nn_count(query, candidates).tolist()
    rounded, _ = partners_on_cpu(torch.from_numpy(query), candidates, fast=True)
    fast = mutual_nn_count(kind(query), kind(candidates), precision="fast").tolist()
    leaders = [i for i, count in enumerate(exact) if count >= max(exact) - 3]
    assert [fast[i] for i in leaders] == [exact[i] for i in leaders], f"seed {seed}"
    assert fast != exact, "no count was rounded"
    assert fast != (rounded >= 0).sum(dim=1).tolist(), "no count was exact"


def test_fast_small_maps_are_not_rounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cpu_products, "_INT8_FROM", 400 * 400 + 1)
    rng = np.random.default_rng(0)
    query = unit(rng, 400, 96)
    candidates = noisy_views(rng, query, 12, 1.5)
    exact = mutual_nn_count(query, candidates).tolist()
    assert mutual_nn_count(query, candidates, precision="fast").tolist() == exact
    assert max(exact) > 100


@needs_int8
@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("where", [0, 1])
def test_fast_value_not_finite_refused(value: float, where: int) -> None:
    arrays = (np.ones((20, 8), np.float32), np.ones((3, 20, 8), np.float32))
    arrays[where].flat[37] = value
    with pytest.raises(ValueError, match="placeray verify"):
        mutual_nn_count(arrays[0], arrays[1], precision="fast")


def test_fast_all_zero_features_match_the_first_cell() -> None:
    assert mutual_nn_count(np.zeros((4, 8)), np.zeros((2, 3, 8)), precision="fast").tolist() == [1, 1]


def test_fast_without_int8_equals_exact(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cpu_products, "int8_available", lambda: False)
    rng = np.random.default_rng(0)
    query, candidates = unit(rng, 50, 16), unit(rng, 4, 60, 16)
    expected = [len(plain_pairs(query, candidate)) for candidate in candidates]
    assert mutual_nn_count(query, candidates, precision="fast").tolist() == expected


def test_int8_is_available_where_the_operator_multiplies_right() -> None:
    if not torch.cpu.get_capabilities().get("avx2"):
        pytest.skip("this CPU has no AVX2")
    rows = torch.tensor([[255, 128, 0], [1, 2, 3]], dtype=torch.uint8)
    query = torch.tensor([[63, 1, -63], [0, -5, 7]], dtype=torch.int8)
    try:
        packed = torch.ops.onednn.qlinear_prepack(query, [2, 3])
        product = cpu_products._qlinear(rows, packed, torch.ones(2), torch.zeros(2, dtype=torch.int64))
    except (AttributeError, RuntimeError):
        pytest.skip("this torch has no such operator")
    assert product.tolist() == ((rows.double() - 128) @ query.double().T).tolist()
    assert int8_available()


def test_int8_wrong_products_are_detected(monkeypatch: pytest.MonkeyPatch) -> None:
    if not int8_available():
        pytest.skip("this CPU or torch multiplies no 8-bit integers")
    original = cpu_products._qlinear
    monkeypatch.setattr(cpu_products, "_qlinear", lambda *args: original(*args) + 1)
    assert not int8_available.__wrapped__()


def test_int8_is_unavailable_without_the_operator(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(*args: object) -> None:
        raise RuntimeError("no such operator")

    monkeypatch.setattr(cpu_products, "_qlinear", missing)
    assert not int8_available.__wrapped__()
