"""The rate at which memory is read, without torch."""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np

__all__ = ["read_gb_per_s"]


def read_gb_per_s(threads: int = 2) -> float:
    """Return the rate of reading memory larger than the caches with so many threads, best of five."""
    parts = np.array_split(np.ones(1 << 26, np.int64), threads)
    best = float("inf")
    with ThreadPoolExecutor(threads) as pool:
        for _ in range(5):
            began = time.perf_counter()
            list(pool.map(np.sum, parts))
            best = min(best, time.perf_counter() - began)
    return (8 << 26) / best / 1e9
