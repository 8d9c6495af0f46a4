"""Clients of an index that ask at once, each one query after another."""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import numpy as np

__all__ = ["requests_per_s"]


def requests_per_s(
    search: Callable[[np.ndarray], object], queries: np.ndarray, clients: int, busy_s: float
) -> float:
    """Return the queries per second that so many threads get answered within `busy_s` seconds.

    Args:
        search: Takes (1, D).
        queries: (N, D); each client begins at another one.
        clients: Number of threads.
        busy_s: For how long they ask.
    """
    began = time.perf_counter()

    def ask(first: int) -> int:
        for done in itertools.count():
            if time.perf_counter() - began > busy_s:
                return done
            search(queries[(first + done) % len(queries)][None])
        raise AssertionError

    with ThreadPoolExecutor(clients) as pool:
        answered = sum(pool.map(ask, range(0, len(queries), max(1, len(queries) // clients))[:clients]))
    return answered / (time.perf_counter() - began)
