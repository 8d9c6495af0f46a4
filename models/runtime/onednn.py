"""Products and convolutions with weights laid out in advance in the blocked format of oneDNN's kernels.

BLAS packs both matrices at every product, and the BLAS bundled with torch is slower on some CPUs
(benchmarks/README.md, Extraction and Matching). A convolution of torch's own lays its weights out at every
call, and leaves the activation to a second pass over its output. These operators are internal to torch's
compiler and not documented, so they are used only after a check that they multiply correctly.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

__all__ = [
    "Convolution",
    "convolve",
    "convolves",
    "lay_out",
    "lay_out_kernel",
    "lays_out",
    "product",
]


@dataclass(frozen=True)
class Convolution:
    """How a two-dimensional convolution moves over its input.

    Attributes:
        stride: Cells between two positions of the kernel.
        padding: Zeros on each side of the input.
        groups: Groups of channels.
        relu6: Whether its output is limited to 0 .. 6.
    """

    stride: int
    padding: int
    groups: int
    relu6: bool


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


def lay_out_kernel(kernel: Tensor, how: Convolution, *, height: int, width: int) -> Tensor:
    """Lay a kernel out for `convolve`.

    Args:
        kernel: (N, C / groups, k, k) float32 on the CPU.
        how: How it is moved.
        height: Of the inputs, for which the layout is chosen; others are convolved rightly, maybe slower.
        width: As `height`.

    Returns:
        An opaque tensor for `convolve`.
    """
    channels = kernel.shape[1] * how.groups
    # Chosen for one image: the layout for batches suits single images less, and this one suits both.
    laid_out: Tensor = torch.ops.mkldnn._reorder_convolution_weight(
        kernel.detach().contiguous(memory_format=torch.channels_last),
        [how.padding, how.padding],
        [how.stride, how.stride],
        [1, 1],
        how.groups,
        [1, channels, height, width],
    )
    return laid_out


def convolve(maps: Tensor, laid_out: Tensor, bias: Tensor, how: Convolution) -> Tensor:
    """Convolve as `torch.nn.functional.conv2d` does, without gradients.

    Args:
        maps: (B, C, h, w) float32.
        laid_out: The kernel from `lay_out_kernel`.
        bias: (N,) float32.
        how: As given to `lay_out_kernel`.

    Returns:
        (B, N, h', w') float32, a new tensor.
    """
    activation: tuple[str, list[float]] = ("hardtanh", [0.0, 6.0]) if how.relu6 else ("none", [])
    result: Tensor = torch.ops.mkldnn._convolution_pointwise(
        maps,
        laid_out,
        bias,
        [how.padding, how.padding],
        [how.stride, how.stride],
        [1, 1],
        how.groups,
        *activation,
        "",
    )
    return result


@functools.cache
def convolves() -> bool:
    """Return whether this torch and CPU support `convolve`, with the usual accuracy."""
    draw = torch.Generator().manual_seed(0)
    maps = torch.randn(2, 16, 10, 12, generator=draw).contiguous(memory_format=torch.channels_last)
    bias = torch.arange(16.0)
    for kernel_size, groups, stride in ((1, 1, 1), (3, 16, 1), (4, 16, 2), (4, 1, 2)):
        kernel = torch.randn(16, 16 // groups, kernel_size, kernel_size, generator=draw)
        for relu6 in (False, True):
            how = Convolution(stride, kernel_size // 2, groups, relu6)
            expected = F.conv2d(maps, kernel, bias, stride, kernel_size // 2, groups=groups)
            try:
                laid_out = lay_out_kernel(kernel, how, height=10, width=12)
                actual = convolve(maps, laid_out, bias, how)
            except (AttributeError, RuntimeError, TypeError):  # as in `lays_out`
                return False
            if not torch.allclose(actual, F.relu6(expected) if relu6 else expected, rtol=1e-6, atol=1e-4):
                return False
    return True
