"""Memory, threads, file handles and disk of a service while it runs."""

from __future__ import annotations

import contextlib
import threading
import time
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path

import psutil

from tests.soak.slopes import Slope, slope

__all__ = ["Resources", "replicas"]

SAMPLED_S = 2.0


def replicas(name: str = "") -> list[psutil.Process]:
    """Return the processes of a deployment's replicas below this process; of all without a name."""
    found = []
    for process in psutil.Process().children(recursive=True):
        with contextlib.suppress(psutil.NoSuchProcess):
            title = " ".join(process.cmdline())
            if title.startswith("ray::ServeReplica:") and f":{name}" in title:
                found.append(process)
    return found


class Resources:
    """Samples this process, the mean of all replicas, and the folder of the store."""

    def __init__(self, store: Path, watched: Callable[[], list[psutil.Process]] = replicas) -> None:
        self._store = store
        self._watched = watched
        self._seconds: dict[str, list[float]] = defaultdict(list)
        self._values: dict[str, list[float]] = defaultdict(list)
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run)

    def __enter__(self) -> Resources:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()

    def _run(self) -> None:
        started = time.monotonic()
        while not self._stop.wait(SAMPLED_S):
            at = time.monotonic() - started
            self._add(at, "driver", [psutil.Process()])
            self._add(at, "replica", self._watched())
            sizes = []
            for path in self._store.rglob("*"):
                with contextlib.suppress(FileNotFoundError):
                    sizes.append(path.stat().st_size)
            self._append(at, "store_mib", sum(sizes) / (1 << 20))

    def _add(self, at: float, name: str, processes: list[psutil.Process]) -> None:
        rows = []
        for process in processes:
            with contextlib.suppress(psutil.NoSuchProcess), process.oneshot():
                rows.append((process.memory_info().rss / (1 << 20), process.num_threads(), process.num_fds()))
        for kind, values in zip(("mib", "threads", "files"), zip(*rows, strict=True), strict=False):
            self._append(at, f"{name}_{kind}", sum(values) / len(values))

    def _append(self, at: float, name: str, value: float) -> None:
        self._seconds[name].append(at)
        self._values[name].append(value)

    def slopes(self) -> dict[str, Slope]:
        return {name: slope(self._seconds[name], values) for name, values in self._values.items()}
