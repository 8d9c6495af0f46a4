"""The installed FAISS: importing it, selecting rows, and copying indexes to GPUs where it supports any."""

from __future__ import annotations

import os
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from typing import Any

import numpy as np
import numpy.typing as npt

__all__ = ["copy_to_gpus", "import_faiss", "kept_rows", "selection", "selector"]

_WAITING = "OMP_WAIT_POLICY"


def import_faiss() -> Any:
    """Return the module faiss.

    Raises:
        ImportError: it is not installed.
    """
    try:
        with nullcontext() if "faiss" in sys.modules else _sleeping_threads():
            import faiss
    except ImportError as error:
        raise ImportError(
            "searching in memory needs FAISS: pip install 'placeray[cpu]', or 'placeray[gpu]' with CUDA"
        ) from error
    return faiss


@contextmanager
def _sleeping_threads() -> Iterator[None]:
    """Let FAISS's threads sleep while they wait for each other, unless the environment says otherwise.

    By default they spin, and where other work has the cores, each wait costs the time slice of a thread that
    is not running: a query among 100,000 rows took 57 ms instead of 3 on two busy cores. FAISS has an OpenMP
    runtime of its own, which reads the variable when it is loaded.
    """
    if _WAITING in os.environ:
        yield
        return
    os.environ[_WAITING] = "PASSIVE"
    try:
        yield
    finally:
        os.environ.pop(_WAITING, None)


def copy_to_gpus(index: Any) -> Any | None:
    """Return a copy of an index on all GPUs; None without GPU support or if it does not fit."""
    faiss = import_faiss()
    if not hasattr(faiss, "StandardGpuResources") or faiss.get_num_gpus() == 0:
        return None
    try:
        return faiss.index_cpu_to_all_gpus(index)
    except RuntimeError as error:
        reason = str(error).strip().splitlines()[-1]
        warnings.warn(f"search stays on the CPU: {reason}", RuntimeWarning, stacklevel=2)
        return None


def kept_rows(index: Any, width: int) -> npt.NDArray[Any]:
    """Return (n, width) float32 or float16: the vectors of a flat index or one of half precision, not copied.

    The array is the memory of the index: valid as long as the index lives and takes no further rows.
    """
    faiss = import_faiss()
    size, rows = index.code_size, index.ntotal
    if not rows:
        return np.empty((0, width), np.float32)
    codes = faiss.rev_swig_ptr(index.codes.data(), rows * size)
    dtype = {2 * width: np.float16, 4 * width: np.float32}[size]
    return np.asarray(codes.view(dtype).reshape(rows, width))


def selector(allowed: npt.NDArray[np.bool_]) -> Any:
    """Return FAISS's selector of the rows that are True in `allowed` (N,)."""
    return import_faiss().IDSelectorBitmap(np.packbits(allowed, bitorder="little"))


def selection(allowed: npt.NDArray[np.bool_]) -> Any:
    """Return FAISS's parameters of a search that finds only the rows that are True in `allowed` (N,)."""
    return import_faiss().SearchParameters(sel=selector(allowed))
