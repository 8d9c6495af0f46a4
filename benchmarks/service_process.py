"""`placeray serve` in a process of its own, and what can be seen of its replica from outside."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

from benchmarks.memory import status_mib

__all__ = ["ReplicaWatch", "replica_of_this", "served"]

_ASIDE = 19  # the priority of what the index does beside its answers, see storage.search.aside


@contextmanager
def served(store: str, *flags: str, environment: Mapping[str, str] | None = None) -> Iterator[str]:
    """Serve a store until the block ends; yield the URL.

    Raises:
        SystemExit: it does not start; the message holds the end of what it says.
    """
    with tempfile.TemporaryDirectory(prefix="placeray-bench-") as logs:
        command = [sys.executable, "-m", "pipelines.cli", "serve", "--store", store, "--port", "0", "--json"]
        command += ["--log-file", f"{logs}/log", *flags]
        with open(f"{logs}/err", "w") as errors:
            process = subprocess.Popen(
                command,
                env=os.environ | (environment or {}),
                stdout=subprocess.PIPE,
                stderr=errors,
                text=True,
            )
        assert process.stdout is not None
        line = process.stdout.readline()
        try:
            if not line:
                raise SystemExit(f"{' '.join(command)} failed: {Path(logs, 'err').read_text()[-2000:]}")
            yield json.loads(line)["url"]
        finally:
            process.send_signal(signal.SIGINT)
            process.wait(60)


def replica_of_this() -> int:
    """Return the process that answers in the only service that this process has started."""
    import psutil

    children = psutil.Process().children(recursive=True)
    (replica,) = (child.pid for child in children if "Ingress" in " ".join(child.cmdline()[:1]))
    return int(replica)


@dataclass
class ReplicaWatch:
    """Looks at a process ten times a second, from its construction to `stop`.

    Attributes:
        process: Its number.
        loaded_mib: Its unshared memory at the beginning.
        peak_mib: The most that was seen.
        asides_s: How long each work beside the answers took: a thread of the lowest priority.
    """

    process: int
    loaded_mib: float = 0.0
    peak_mib: float = 0.0
    asides_s: list[float] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.loaded_mib = self.peak_mib = status_mib("RssAnon", self.process)
        self._aside: int | None = None
        self._known: set[int] = set()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._watch)
        self._thread.start()

    @property
    def works_aside(self) -> bool:
        """Whether it works beside its answers now."""
        return self._aside is not None

    def stop(self) -> None:
        """End the watch."""
        self._stop.set()
        self._thread.join()

    def _watch(self) -> None:
        began = 0.0
        while not self._stop.wait(0.1):
            self.peak_mib = max(self.peak_mib, status_mib("RssAnon", self.process))
            lowest = self._lowest()
            if self._aside is not None and self._aside not in lowest:
                self.asides_s.append(round(time.monotonic() - began, 1))
                # Threads of libraries that it started stay, with its priority.
                self._aside, self._known = None, lowest
            elif self._aside is None and lowest - self._known:
                self._aside, began = min(lowest - self._known), time.monotonic()

    def _lowest(self) -> set[int]:
        """Return the threads of the lowest priority."""
        found = set()
        for task in map(int, os.listdir(f"/proc/{self.process}/task")):
            with suppress(ProcessLookupError):  # it has ended
                if os.getpriority(os.PRIO_PROCESS, task) == _ASIDE:
                    found.add(task)
        return found
