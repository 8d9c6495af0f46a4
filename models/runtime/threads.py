"""Threads on a CPU: how they wait, where they run, threads that work alone. Imports torch in functions."""

from __future__ import annotations

import contextlib
import os
import threading
from concurrent.futures import ThreadPoolExecutor
from itertools import cycle

from storage.cores import usable_cores

__all__ = ["lone_threads", "sleep_while_waiting", "use_one_thread"]

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


def lone_threads(name: str, *, one_per_core: bool = False) -> ThreadPoolExecutor:
    """Return as many threads as there are cores, each limited to one thread of torch.

    Args:
        name: Prefix of their names.
        one_per_core: Bind each to a core, where the system can. Work of a few milliseconds ends before a
            scheduler that woke two threads on one core moves either. Only for a process that uses all cores:
            others would be bound to the same few.
    """
    cores = usable_cores()
    turns = cycle(cores)

    def begin() -> None:
        use_one_thread()
        if one_per_core and hasattr(os, "sched_setaffinity"):
            with contextlib.suppress(OSError):  # the cores of the process have changed since
                os.sched_setaffinity(0, {next(turns)})  # of this thread alone

    return ThreadPoolExecutor(len(cores), thread_name_prefix=name, initializer=begin)
