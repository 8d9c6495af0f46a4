"""Memory that the C library keeps after it was freed, and its return to the system."""

from __future__ import annotations

import ctypes
from functools import cache
from typing import Any

__all__ = ["return_free_memory"]


def return_free_memory() -> None:
    """Let glibc give free pages back; nothing happens with other C libraries.

    Freed blocks below 32 MiB stay with the process, in an arena for each thread: after an index was trained
    some 50 MiB, which its codes would come on top of.
    """
    trim = _trim()
    if trim is not None:
        trim(0)


@cache
def _trim() -> Any:
    try:
        return ctypes.CDLL(None).malloc_trim
    except (AttributeError, OSError, TypeError):
        return None
