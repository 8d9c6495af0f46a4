"""Products with matrices that oneDNN laid out."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional as F

from models.runtime import onednn

needs_float32 = pytest.mark.skipif(
    not onednn.lays_out(torch.float32), reason="this torch lays nothing out for oneDNN"
)


def test_lays_out_float32_where_the_operators_multiply_right() -> None:
    rows, matrix = torch.tensor([[1.0, 2, 3], [4, 5, 6]]), torch.tensor([[7.0, -8, 9], [0, 1, -2]])
    try:
        laid_out = torch.ops.mkldnn._reorder_linear_weight(matrix, 2)
        actual = torch.ops.mkldnn._linear_pointwise(rows, laid_out, None, "none", [], "")
    except (AttributeError, RuntimeError):
        pytest.skip("this torch has no such operators")
    assert actual.tolist() == (rows @ matrix.T).tolist()
    assert onednn.lays_out(torch.float32)


@needs_float32
@pytest.mark.parametrize("shape", [(1, 40), (300, 40), (2, 17, 40)])
@pytest.mark.parametrize("rows", [None, 8])
def test_product_equals_linear(shape: tuple[int, ...], rows: int | None) -> None:
    torch.manual_seed(0)
    inputs, matrix, bias = torch.randn(shape), torch.randn(70, 40), torch.randn(70)
    laid_out = onednn.lay_out(matrix, rows=rows)
    expected = inputs.double() @ matrix.double().T
    torch.testing.assert_close(onednn.product(inputs, laid_out).double(), expected, atol=1e-5, rtol=1e-5)
    actual = onednn.product(inputs, laid_out, bias)
    torch.testing.assert_close(actual.double(), expected + bias.double(), atol=1e-5, rtol=1e-5)


@needs_float32
def test_product_of_strided_rows_and_a_transposed_matrix_equals_linear() -> None:
    torch.manual_seed(0)
    inputs, matrix = torch.randn(40, 9, 5).permute(2, 1, 0)[:, 1:], torch.randn(40, 70).T
    actual = onednn.product(inputs, onednn.lay_out(matrix))
    torch.testing.assert_close(actual, F.linear(inputs, matrix), atol=1e-5, rtol=1e-5)


@needs_float32
def test_lays_out_detects_wrong_products(monkeypatch: pytest.MonkeyPatch) -> None:
    original = onednn.product
    monkeypatch.setattr(onednn, "product", lambda *args: original(*args) * 1.001)
    assert not onednn.lays_out.__wrapped__(torch.float32)


def test_lays_out_needs_the_operator(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(*_: object, **__: object) -> None:
        raise AttributeError("no such operator")

    monkeypatch.setattr(onednn, "lay_out", missing)
    assert not onednn.lays_out.__wrapped__(torch.float32)


def test_lays_out_rejects_integers() -> None:
    assert not onednn.lays_out.__wrapped__(torch.int32)
