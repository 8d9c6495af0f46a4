"""glibc's allocator tuned for inference on a CPU. Imports no torch."""

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
    """Make glibc retain up to 256 MiB of freed memory, unless the environment sets its thresholds.

    A network's feature maps are a few megabytes each. By default glibc allocates them with mmap and returns
    them to the system, which clears each page again at its next use: 5,000 page faults per image instead of
    500, and 25 to 40 % of the time of efficientnet-lite0 on a CPU (benchmarks/README.md). The setting applies
    to the whole process and can be made at any time. Other C libraries are not changed.

    Returns:
        Whether the thresholds were set.
    """
    tunables = "glibc.malloc" in os.environ.get("GLIBC_TUNABLES", "")
    if sys.platform != "linux" or tunables or any(name in os.environ for name in _SETTINGS):
        return False
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is None:
        return False
    # Both: setting only the first would freeze the second at its small initial value.
    return all(mallopt(name, _RETAINED_BYTES) == 1 for name in (_TRIM_THRESHOLD, _MMAP_THRESHOLD))
