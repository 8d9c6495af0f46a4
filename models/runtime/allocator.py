"""Freed memory stays with the process. Imports no torch, and works at any time."""

from __future__ import annotations

import ctypes
import os
import sys

__all__ = ["keep_freed_memory"]

_RETAINED_BYTES = 256 * 1024 * 1024
# Parameters of mallopt(3) in glibc's malloc.h.
_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3
_SETTINGS = ("MALLOC_TRIM_THRESHOLD_", "MALLOC_MMAP_THRESHOLD_")


def keep_freed_memory() -> bool:
    """Let glibc keep up to 256 MiB of freed memory, unless the environment sets its thresholds.

    A network's maps are a few megabytes, which glibc takes from the system and gives back one by one; the
    system clears each page again at its first use. On a CPU that was a quarter to 40 % of the time of
    efficientnet-lite0: 5,000 page faults per image instead of 500 (benchmarks/README.md). It holds for the
    whole process. Other C libraries are left as they are.

    Returns:
        Whether the thresholds were set.
    """
    tunables = "glibc.malloc" in os.environ.get("GLIBC_TUNABLES", "")
    if sys.platform != "linux" or tunables or any(name in os.environ for name in _SETTINGS):
        return False
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is None:
        return False
    # Both: setting the first alone would fix the second at its small start value.
    return all(mallopt(name, _RETAINED_BYTES) == 1 for name in (_TRIM_THRESHOLD, _MMAP_THRESHOLD))
