"""Mutual nearest neighbours on a CUDA device in one launch of a Triton kernel.

Similarities stay on the chip; only maxima are written to memory. Triton is imported at the first use: it
comes with torch for CUDA on Linux, and nothing else needs it.
"""

# mypy: disable-error-code="import-untyped,import-not-found"

from __future__ import annotations

import functools
import warnings
from collections.abc import Callable
from types import ModuleType
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from models.matching.features import NotFinite

__all__ = ["Unavailable", "partners_of_queries", "partners_on_cuda", "votes_on_cuda"]

_REFUSED: set[torch.device] = set()  # devices on which the kernel does not work


class Unavailable(RuntimeError):
    """The kernel cannot be used here: triton is missing, cannot start, or cannot compile it."""


def partners_on_cuda(
    query: Tensor, candidates: Tensor | NDArray[Any], *, fast: bool = False
) -> tuple[Tensor, Tensor]:
    """Find for each query cell its mutual candidate cell.

    Args:
        query: (N, C) any float dtype, on the device to work on.
        candidates: (K, M, C) any float dtype, anywhere.
        fast: Multiply in float16. Otherwise, unless both are of one half precision, multiply in float32:
            three TF32 products on tensor cores that together keep its precision.

    Returns:
        partner: (K, N) int64, the mutual candidate cell of each query cell, or -1.
        best: (K, N) float32, each query cell's largest inner product.

    Raises:
        NotFinite: a value is NaN or infinite, or a product is.
        Unavailable: Triton is not usable here.
    """
    others = candidates if isinstance(candidates, Tensor) else torch.tensor(candidates)
    partner, best = partners_of_queries(query[None], others.detach()[None], fast=fast)
    return partner[0], best[0]


@torch.no_grad()
def partners_of_queries(queries: Tensor, candidates: Tensor, *, fast: bool = False) -> tuple[Tensor, Tensor]:
    """Find the mutual cells of several queries, each with its own candidates, in one launch.

    Args:
        queries: (B, N, C) any float dtype, on the device to work on.
        candidates: (B, K, M, C) any float dtype, anywhere.
        fast: As of `partners_on_cuda`.

    Returns:
        partner: (B, K, N) int64, the mutual candidate cell of each query cell, or -1.
        best: (B, K, N) float32, each query cell's largest inner product.

    Raises:
        NotFinite: a value is NaN or infinite, or a product is.
        Unavailable: Triton is not usable here.
    """
    (batch, rows, _), (count, columns) = queries.shape, candidates.shape[1:3]
    device = queries.device
    best = torch.empty((batch, count, rows), dtype=torch.float32, device=device)
    if best.numel() == 0:
        return best.to(torch.int64), best
    choice = torch.empty((batch, count, rows), dtype=torch.int32, device=device)
    smallest = torch.iinfo(torch.int64).min
    column_key = torch.full((batch, count, columns), smallest, dtype=torch.int64, device=device)
    broken = torch.zeros(1, dtype=torch.int32, device=device)
    here, there = (_ready(features, device, fast=fast) for features in (queries, candidates))
    _launch(here, there, best, choice, column_key, broken)
    choice = choice.long()
    row = 0x7FFFFFFF - (column_key.gather(2, choice) & 0x7FFFFFFF)
    partner = torch.where(row == torch.arange(rows, device=device), choice, -1)
    if bool(broken.any() | ~torch.isfinite(best).all()):
        raise NotFinite
    return partner, best


@torch.no_grad()
def votes_on_cuda(
    partner: Tensor,
    weights: Tensor,
    positions: tuple[NDArray[np.int32], NDArray[np.int32]],
    other_positions: tuple[NDArray[np.int32], NDArray[np.int32]],
    *,
    unit: int,
    bins: int,
    width: int,
) -> Tensor:
    """Sum the weights of matches in every square of displacements, and return the largest sums.

    Args:
        partner: (K, N) integer, the candidate cell of each query cell, on the device to work on.
        weights: (K, N) int32, at least 0; 0 where there is no match.
        positions: y and x of the query's cells, each (N,) int32.
        other_positions: y and x of the candidates' cells, each (M,) int32, shifted so that their differences
            from those of the query, divided by `unit`, are bins from 0 on.
        unit: Of a bin, in positions.
        bins: Number of bins in y and in x.
        width: Of a square, in bins.

    Returns:
        (K,) int32 sums, on the device of `partner`.

    Raises:
        Unavailable: Triton is not usable here.
    """
    device, (count, rows) = partner.device, partner.shape
    largest = torch.zeros(count, dtype=torch.int32, device=device)
    here, there = (torch.from_numpy(np.stack(axes)).to(device) for axes in (positions, other_positions))
    side = bins - width + 1
    block = 128
    _run(
        device,
        lambda kernel, stages: kernel.largest_square[(-(-(side * side) // block), count)](
            *(partner.contiguous(), weights.contiguous(), here, there, largest),
            *(rows, there.shape[1], unit, side, width),
            BLOCK_SQUARES=block,
            BLOCK_ROWS=64,
            num_warps=4,
            num_stages=stages,
        ),
    )
    return largest


def _ready(features: Tensor, device: torch.device, *, fast: bool) -> Tensor:
    half = features.dtype in (torch.float16, torch.bfloat16)
    dtype = torch.float16 if fast else features.dtype if half else torch.float32
    return features.to(device=device, dtype=dtype).contiguous()


def _launch(
    here: Tensor, there: Tensor, best: Tensor, choice: Tensor, column_key: Tensor, broken: Tensor
) -> None:
    batch, count, columns, channels = there.shape
    rows = here.shape[1]
    constants, options = _variant(rows, channels, halves=here.dtype == there.dtype != torch.float32)
    grid = (-(-rows // constants["BLOCK_ROWS"]), count, batch)
    outputs, shape = (best, choice, column_key, broken), (count, rows, columns, channels)
    _run(
        here.device,
        lambda kernel, stages: kernel.nearest_both_ways[grid](
            *(here, there, *outputs, *shape, rows * channels), **constants, **options, num_stages=stages
        ),
    )


def _run(device: torch.device, launch: Callable[[ModuleType, int], object]) -> None:
    """Launch a kernel of the module that `launch` is called with, with three stages or else two.

    Raises:
        Unavailable: Triton is missing, cannot start, or cannot compile the kernel; warned of once per device.
    """
    if device in _REFUSED:
        raise Unavailable("the kernel cannot be used on this device: see the first warning about it")
    kernel = _kernel()
    from triton.compiler.errors import CompilationError
    from triton.runtime.errors import OutOfResources, PTXASError

    with torch.cuda.device(device if device.type == "cuda" else -1):
        reason = _obstacle(device)
        for stages in () if reason else (3, 2):  # two need less shared memory
            try:
                launch(kernel, stages)
                return
            except (CompilationError, OutOfResources, PTXASError) as error:
                reason = str(error)
    _REFUSED.add(device)
    warnings.warn(
        f"matching continues without its Triton kernel, more slowly ({reason}): update triton and the driver",
        RuntimeWarning,
        stacklevel=2,
    )
    raise Unavailable(reason)


def _variant(rows: int, channels: int, *, halves: bool) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return the kernel's constants and compiler options for a size; `halves`: both of one half precision.

    Compiled for an H100 no variant spills registers, and two blocks of half precision fit on one of its
    multiprocessors (benchmarks/README.md, Matching). Not tuned on one yet.
    """
    block, warps = (128, 8) if rows > 256 else (64, 4)
    channel_block = min(128 if halves else 32, max(16, 1 << (channels - 1).bit_length()))
    constants = {
        "BLOCK_ROWS": block,
        "BLOCK_COLUMNS": 64,
        "BLOCK_CHANNELS": channel_block,
        "ALL_CHANNELS": channels <= channel_block,
        "PRECISION": "tf32x3",
    }
    # The fusion is Triton's default; 3.9 warns where it is left to that, since it will change.
    return constants, {"num_warps": warps, "enable_fp_fusion": True}


def _obstacle(device: torch.device) -> str:
    """Return why Triton cannot work with a CUDA device at all, "" where it can.

    At first use Triton builds a module, which needs a C compiler, Python's headers and the driver's library;
    each one missing raises another error. Errors of a launch are handled separately.
    """
    if device.type != "cuda":
        return ""
    from triton.runtime import driver

    try:
        driver.active.get_current_target()
    except Exception as error:
        return f"{type(error).__name__}: {error}"
    return ""


@functools.cache
def _kernel() -> ModuleType:
    try:
        from models.matching import triton_kernel
    except ImportError as error:
        raise Unavailable(
            f"triton cannot be imported ({error}): install the version that fits torch"
        ) from error
    return triton_kernel
