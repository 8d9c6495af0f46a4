"""The cores that this process may use."""

from __future__ import annotations

import os

__all__ = ["usable_cores"]


def usable_cores() -> list[int]:
    """Return the numbers of the cores that the calling thread may run on.

    A container or `taskset` leaves a process fewer than the machine has.
    """
    if hasattr(os, "sched_getaffinity"):
        return sorted(os.sched_getaffinity(0))
    return list(range(os.cpu_count() or 1))
