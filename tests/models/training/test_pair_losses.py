"""Losses over pairs: equal to the published formula, mined by distance, with gradients through codes."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from models.training.pair_losses import (
    code_gap,
    mined_pairs,
    multi_similarity,
    place_labels,
    straight_through,
)


def metres(*east: float) -> Tensor:
    at = torch.tensor(east, dtype=torch.float64)[:, None]
    return torch.cdist(at, at)


def unit(count: int, width: int = 16, seed: int = 0) -> Tensor:
    return F.normalize(torch.randn(count, width, generator=torch.Generator().manual_seed(seed)), dim=1)


def test_photos_within_reach_of_each_other_are_one_place() -> None:
    labels = place_labels(metres(0, 8, 16, 100, 103, 500), positive_m=10)
    assert labels.tolist() == [0, 0, 0, 3, 3, 5]


def test_pairs_of_no_certain_distance_are_left_out() -> None:
    apart = metres(0, 8, 16, 35)
    labels = place_labels(apart, positive_m=10)
    first, positive, second, negative = mined_pairs(unit(4), labels, apart, positive_m=10, negative_m=25)
    positives = {tuple(sorted(pair)) for pair in zip(first.tolist(), positive.tolist(), strict=True)}
    negatives = {tuple(sorted(pair)) for pair in zip(second.tolist(), negative.tolist(), strict=True)}
    assert positives <= {(0, 1), (1, 2)}  # 0 and 2 are 16 m apart
    assert negatives <= {(0, 3), (1, 3)}  # 2 and 3 are 19 m apart


def test_multi_similarity_equals_its_formula() -> None:
    values = unit(8)
    apart = metres(0, 3, 100, 103, 200, 203, 300, 303)
    labels = place_labels(apart, positive_m=10)
    pairs = mined_pairs(values, labels, apart, positive_m=10, negative_m=25)
    similarity = values @ values.T
    expected = torch.zeros(())
    for anchor in range(8):
        near = [int(p) for a, p in zip(pairs[0], pairs[1], strict=True) if a == anchor]
        far = [int(n) for a, n in zip(pairs[2], pairs[3], strict=True) if a == anchor]
        hardest = max(float(similarity[anchor, i]) for i in range(8) if labels[i] != labels[anchor])
        easiest = min(
            float(similarity[anchor, i]) for i in range(8) if i != anchor and labels[i] == labels[anchor]
        )
        for i in range(8):
            if i != anchor and labels[i] == labels[anchor]:
                assert (i in near) == (float(similarity[anchor, i]) - 0.1 < hardest)
            elif i != anchor:
                assert (i in far) == (float(similarity[anchor, i]) + 0.1 > easiest)
        pulled = sum((torch.exp(-similarity[anchor, i]) for i in near), torch.zeros(()))
        pushed = sum((torch.exp(50 * similarity[anchor, i]) for i in far), torch.zeros(()))
        expected += torch.log1p(pulled) + torch.log1p(pushed) / 50
    torch.testing.assert_close(multi_similarity(values, pairs), expected / 8, atol=1e-5, rtol=1e-5)


def test_batches_without_pairs_have_no_loss() -> None:
    values = unit(1).requires_grad_()
    empty = torch.zeros(0, dtype=torch.int64)
    loss = multi_similarity(values, (empty,) * 4) + code_gap(values, straight_through(values), (empty,) * 4)
    loss.backward()  # type: ignore[no-untyped-call]
    assert loss.item() == 0


def test_codes_are_signs_whose_gradient_passes() -> None:
    values = torch.tensor([[0.6, -0.8, 0.0, 0.0]], requires_grad=True)
    codes = straight_through(values)
    assert codes.tolist() == [[0.5, -0.5, 0.5, 0.5]]
    codes.backward(torch.tensor([[1.0, 2.0, 3.0, 4.0]]))  # type: ignore[no-untyped-call]
    assert values.grad is not None
    assert values.grad.tolist() == [[1.0, 2.0, 3.0, 4.0]]


def test_gap_is_the_mean_squared_difference_of_cosines() -> None:
    values = unit(4)
    codes = straight_through(values)
    pairs = tuple(torch.tensor(rows) for rows in ([0], [1], [2, 3], [0, 1]))
    cosines = [float(values[i] @ values[j]) - float(codes[i] @ codes[j]) for i, j in ((0, 1), (2, 0), (3, 1))]
    expected = sum(each**2 for each in cosines) / 3
    assert float(code_gap(values, codes, pairs)) == pytest.approx(expected, abs=1e-6)  # type: ignore[arg-type]
