"""Products with a matrix laid out in advance in the blocked format of oneDNN's kernels.

BLAS packs both matrices at every product, and the BLAS bundled with torch is slower on some CPUs
(benchmarks/README.md, Extraction and Matching). These operators are internal to torch's compiler and not
documented, so they are used only after a check that they multiply correctly.
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
        matrix: (N, C) on the CPU, of a dtype that `lays_out` accepts.
        rows: The usual number of rows that it is multiplied with, if known.

    Returns:
        An opaque tensor for `product`.
    """
    laid_out: Tensor = torch.ops.mkldnn._reorder_linear_weight(matrix.detach().contiguous(), rows)
    return laid_out


def product(rows: Tensor, laid_out: Tensor, bias: Tensor | None = None) -> Tensor:
    """Multiply as `torch.nn.functional.linear` does, without gradients.

    Args:
        rows: (..., C), of the dtype of the matrix.
        laid_out: The (N, C) matrix from `lay_out`.
        bias: (N,) to be added.

    Returns:
        (..., N), a new tensor of the same dtype.
    """
    result: Tensor = torch.ops.mkldnn._linear_pointwise(rows, laid_out, bias, "none", [], "")
    return result


@functools.cache
def lays_out(dtype: torch.dtype) -> bool:
    """Return whether this torch and CPU support such products in a dtype, with the usual accuracy."""
    draw = torch.Generator().manual_seed(0)
    rows, matrix = (torch.randn(size, 128, generator=draw).to(dtype) for size in (40, 24))
    bias = torch.arange(24).to(dtype)
    try:
        result = product(rows, lay_out(matrix, rows=40), bias)
    except (AttributeError, RuntimeError, TypeError):  # built without oneDNN, or with another signature
        return False
    expected = F.linear(rows, matrix, bias)
    return result.dtype == dtype and torch.allclose(result, expected, rtol=torch.finfo(dtype).eps, atol=1e-4)
