"""Products with a matrix that oneDNN laid out beforehand, in the order in which its kernels read it.

BLAS lays both matrices out again at every product, and the BLAS that torch brings is slower on some CPUs
(benchmarks/README.md, Extraction and Matching). torch has these operators for its compiler and does not
document them, so they are used only after a test that they multiply correctly.
"""

from __future__ import annotations

import functools

import torch
from torch import Tensor
from torch.nn import functional as F

__all__ = ["lay_out", "lays_out", "product"]


def lay_out(matrix: Tensor, *, rows: int | None = None) -> Tensor:
    """Lay a matrix out for `product`.

    Args:
        matrix: (N, C) of a type that `lays_out`, on the CPU.
        rows: How many rows it will mostly be multiplied with at once, if that is known.

    Returns:
        An opaque tensor with the values of `matrix`, for `product` alone.
    """
    laid_out: Tensor = torch.ops.mkldnn._reorder_linear_weight(matrix.detach().contiguous(), rows)
    return laid_out


def product(rows: Tensor, laid_out: Tensor, bias: Tensor | None = None) -> Tensor:
    """Multiply as `torch.nn.functional.linear` does; gradients do not flow.

    Args:
        rows: (..., C), of the type of the matrix.
        laid_out: The (N, C) matrix from `lay_out`.
        bias: (N,) to be added.

    Returns:
        (..., N), a new tensor of the same type.
    """
    result: Tensor = torch.ops.mkldnn._linear_pointwise(rows, laid_out, bias, "none", [], "")
    return result


@functools.cache
def lays_out(dtype: torch.dtype) -> bool:
    """Tell whether this torch and this CPU multiply so in a type, and as exactly as they do otherwise."""
    draw = torch.Generator().manual_seed(0)
    rows, matrix = (torch.randn(size, 128, generator=draw).to(dtype) for size in (40, 24))
    bias = torch.arange(24).to(dtype)
    try:
        result = product(rows, lay_out(matrix, rows=40), bias)
    except (AttributeError, RuntimeError, TypeError):  # built without oneDNN, or with another signature
        return False
    expected = F.linear(rows, matrix, bias)
    return result.dtype == dtype and torch.allclose(result, expected, rtol=torch.finfo(dtype).eps, atol=1e-4)
