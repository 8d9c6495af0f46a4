"""Threads of torch on a CPU: how they wait, and threads that work alone. Imports torch only in functions."""

from __future__ import annotations

import os
import threading

__all__ = ["WAITING", "sleep_while_waiting", "use_one_thread"]

# GNU's runtime, that of torch on Linux, spins for so many rounds whatever the policy, less than a
# millisecond; other runtimes know the policy alone.
WAITING = {"OMP_WAIT_POLICY": "passive", "GOMP_SPINCOUNT": "10000"}


def sleep_while_waiting() -> None:
    """Make waiting OpenMP threads sleep after a moment, unless the environment sets how they wait.

    Threads that spin for long compete for cores with decoders, writers and each other; threads that sleep at
    once have to be woken a hundred times per photo (benchmarks/README.md, Waiting threads). Call it before
    the first import of torch.
    """
    if WAITING.keys().isdisjoint(os.environ):
        os.environ.update(WAITING)


def use_one_thread() -> None:
    """Limit torch to one thread in the thread that calls, without changing what new threads inherit."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    restoring = threading.Thread(target=torch.set_num_threads, args=(before,))
    restoring.start()
    restoring.join()
