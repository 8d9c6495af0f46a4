"""The machine's peak rates of matrix products and of copies."""

from __future__ import annotations

from collections.abc import Callable

import torch

from benchmarks.timing import alternate, medians
from models.runtime import onednn

__all__ = ["blas_gflop_per_s", "copy_gb_per_s", "product_rate"]


def blas_gflop_per_s() -> float:
    """Return the rate of a large float32 product by BLAS, best of 15, on torch's threads."""
    left, right, out = torch.randn(2048, 1024), torch.randn(1024, 2048), torch.empty(2048, 2048)
    times = alternate({"product": lambda: torch.mm(left, right, out=out)}, 15)
    return 2 * 2048 * 2048 * 1024 / min(times["product"]) / 1e9


def copy_gb_per_s() -> float:
    """Return the rate of copying memory larger than the caches, bytes read and written, best of 8."""
    source, target = torch.zeros(1 << 26), torch.zeros(1 << 26)
    times = alternate({"copy": lambda: target.copy_(source)}, 8)
    return 2 * 4 * (1 << 26) / min(times["copy"]) / 1e9


def product_rate(dtype: torch.dtype, device: torch.device | str = "cpu", *, side: int = 1024) -> float:
    """Return GFLOP/s of a square matrix product, best of ten; on a CPU also of one laid out for oneDNN."""
    left, right = (torch.randn(side, side, device=device, dtype=dtype) for _ in range(2))
    on_cpu = left.device.type == "cpu"

    def blas() -> None:
        torch.mm(left, right)
        if not on_cpu:
            torch.accelerator.synchronize()

    ways: dict[str, Callable[[], object]] = {"blas": blas}
    if on_cpu and onednn.lays_out(dtype):
        laid_out = onednn.lay_out(right)
        ways["onednn"] = lambda: onednn.product(left, laid_out)
    best = min(min(medians(ways, 1).values()) for _ in range(10))
    return 2 * side**3 / best / 1e9
