"""Times of several variants, measured in turns: the machine's speed drifts within minutes."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

__all__ = ["alternate", "median_ms", "medians"]


def alternate(
    ways: Mapping[str, Callable[[], object]],
    rounds: int,
    *,
    clock: Callable[[], float] = time.perf_counter,
) -> dict[str, list[float]]:
    """Return the seconds of each variant and round, after one warm-up round."""
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    for turn in range(rounds + 1):
        for name, run in ways.items():
            started = clock()
            run()
            if turn:
                seconds[name].append(clock() - started)
    return seconds


def medians(
    ways: Mapping[str, Callable[[], object]],
    rounds: int,
    *,
    clock: Callable[[], float] = time.perf_counter,
) -> dict[str, float]:
    """Return the median seconds of each variant."""
    return {name: statistics.median(times) for name, times in alternate(ways, rounds, clock=clock).items()}


def median_ms(call: Callable[[Any], Any], given: Sequence[Any]) -> tuple[float, list[Any]]:
    """Call a function with each of some values, after a few to warm up.

    Returns:
        The median milliseconds of a call, and what the calls returned.
    """
    for each in given[:5]:
        call(each)
    taken, results = [], []
    for each in given:
        began = time.perf_counter()
        results.append(call(each))
        taken.append(1e3 * (time.perf_counter() - began))
    return statistics.median(taken), results
