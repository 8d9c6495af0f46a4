"""Memory of an index: what the C library keeps is returned, and what stays lies in large pages."""

from __future__ import annotations

import ctypes
import mmap
from functools import cache
from typing import Any

import numpy.typing as npt

__all__ = ["return_free_memory", "use_large_pages"]


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


def use_large_pages(memory: npt.NDArray[Any]) -> None:
    """Ask Linux for pages of 2 MiB, before some memory is first written; nothing happens elsewhere.

    Codes are read all over for each query: with pages of 4 KiB the processor stops reading ahead at each,
    which took a tenth of the time.

    Args:
        memory: C-contiguous.
    """
    advise, large_pages = _advise(), getattr(mmap, "MADV_HUGEPAGE", None)
    if advise is None or large_pages is None:
        return
    first, size = memory.ctypes.data, mmap.PAGESIZE
    start, stop = -(-first // size) * size, (first + memory.nbytes) // size * size
    if stop > start:
        advise(start, stop - start, large_pages)  # refused where the system has none


@cache
def _advise() -> Any:
    try:
        advise = ctypes.CDLL(None).madvise
    except (AttributeError, OSError, TypeError):
        return None
    advise.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int]
    return advise
