"""Threads of torch on a CPU: how they wait, and threads that work alone. Imports torch only in functions."""

from __future__ import annotations

import os
import threading

__all__ = ["sleep_while_waiting", "use_one_thread"]

_LIMITING = threading.Lock()


def sleep_while_waiting() -> None:
    """Make waiting OpenMP threads sleep instead of spin, unless the environment sets the policy.

    Spinning threads compete for cores with decoders, writers and each other: beside another busy process a
    photo takes longer with them than with sleeping ones, alone it takes less (benchmarks/README.md, Waiting
    threads). Call it before the first import of torch.
    """
    os.environ.setdefault("OMP_WAIT_POLICY", "passive")


def use_one_thread() -> None:
    """Limit torch to one thread in the thread that calls, without changing what new threads inherit."""
    import torch

    with _LIMITING:  # another thread that starts meanwhile would take the 1 for the setting
        before = torch.get_num_threads()
        torch.set_num_threads(1)
        restoring = threading.Thread(target=torch.set_num_threads, args=(before,))
        restoring.start()
        restoring.join()
