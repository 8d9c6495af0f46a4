"""Peaks of memory, sampled while something runs."""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path

__all__ = ["PeakMemory", "status_mib"]


def status_mib(field: str, process: int | str = "self") -> float:
    """Return a field of /proc status, such as VmRSS, VmHWM or RssAnon, in MiB; default: of this process."""
    lines = Path(f"/proc/{process}/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(field + ":")) / 1024


class PeakMemory:
    """Samples this process's memory in a thread, from its construction to `stop`.

    Attributes:
        before: Memory at the beginning, in what `measure` returns.
        peak: The largest sample.
    """

    def __init__(self, measure: Callable[[], float], *, interval_s: float) -> None:
        self._measure, self._interval_s = measure, interval_s
        self.before = self.peak = measure()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._watch)
        self._thread.start()

    def _watch(self) -> None:
        while not self._stop.wait(self._interval_s):
            self.peak = max(self.peak, self._measure())

    def stop(self) -> float:
        """End the sampling and return how much the peak lies above the beginning."""
        self._stop.set()
        self._thread.join()
        return self.peak - self.before
