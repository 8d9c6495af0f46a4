"""A Ray cluster of several raylets on this machine, and jobs on it in processes of their own."""

from __future__ import annotations

import contextlib
import functools
import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import pytest

from storage.errors import StoreError
from storage.objects.files import read_bounded
from storage.objects.location import open_location
from tests.support.paths import ROOT
from tests.support.ray_head import short_folder

__all__ = ["IndexJob", "Nodes", "hold_cpus", "running_nodes"]

OBJECT_STORE = 200 << 20


class HasEnvironment(Protocol):
    """A cluster that a job can find."""

    @property
    def environment(self) -> dict[str, str]: ...


@dataclass
class Nodes:
    """A head that runs no work, and its workers.

    Attributes:
        cluster: Ray's `cluster_utils.Cluster`.
        workers: Its nodes, each a raylet.
    """

    cluster: Any
    workers: list[Any] = field(default_factory=list)

    @property
    def environment(self) -> dict[str, str]:
        """What a job needs to find the cluster."""
        kept = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")}
        return {**kept, "RAY_ADDRESS": self.cluster.address, "RAY_AUTH_MODE": "disabled"}

    def add(self, **options: Any) -> Any:
        """Add a worker."""
        start = functools.partial(self.cluster.add_node, object_store_memory=OBJECT_STORE, **options)
        self.workers.append(_started(start))
        return self.workers[-1]

    def kill(self, number: int = -1) -> None:
        """Kill the raylet of a worker, as a power cut would, and do not bring it back."""
        self.cluster.remove_node(self.workers.pop(number), allow_graceful=False)


@contextlib.contextmanager
def running_nodes(*workers: dict[str, Any]) -> Iterator[Nodes]:
    """Start a head without cores, where the driver is, and a worker for each set of options of `add_node`."""
    from ray.cluster_utils import Cluster

    head = {"num_cpus": 0, "object_store_memory": OBJECT_STORE, "include_dashboard": False}
    with contextlib.ExitStack() as stack:
        patch = stack.enter_context(pytest.MonkeyPatch.context())
        patch.setenv("RAY_TMPDIR", short_folder())  # else other programs here would connect to this cluster
        patch.setenv("RAY_AUTH_MODE", "disabled")
        start = functools.partial(Cluster, initialize_head=True, head_node_args=head)
        nodes = Nodes(_started(start))
        stack.callback(nodes.cluster.shutdown)
        for options in workers:
            nodes.add(**options)
        nodes.cluster.wait_for_nodes()
        yield nodes


def _started(start: Callable[[], Any]) -> Any:
    """Start a node; Ray waits half a minute for it, which a busy machine may take."""
    for tries_left in (3, 2, 1, 0):
        try:
            return start()
        except Exception as error:
            if not tries_left or "timed out during startup" not in str(error):
                raise
    return None


class IndexJob:
    """`python -m pipelines.index` in a process of its own, as a cluster's user starts it.

    Args:
        nodes: The cluster, for its `environment`.
        photos: Source, a path or an address.
        store: Store, likewise; the address of a bucket names its `endpoint`.
        flags: Further flags.
    """

    def __init__(self, nodes: HasEnvironment, photos: Path | str, store: Path | str, *flags: str) -> None:
        command = [sys.executable, "-m", "pipelines.index", str(photos), "--store", str(store), "--json"]
        self._store = open_location(store)
        self.lines: list[str] = []
        self.started = time.monotonic()
        self._process = subprocess.Popen(
            [*command, *flags],
            cwd=ROOT,
            env=nodes.environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def committed(self) -> int:
        """Return the number of committed rows."""
        try:
            return int(json.loads(read_bounded(self._store / "COMMITTED", 1 << 16))["rows"])
        except (OSError, ValueError, KeyError, StoreError):
            return 0

    def wait_for_rows(self, rows: int, *, timeout_s: float = 240.0) -> None:
        """Wait until so many rows are committed."""
        deadline = time.monotonic() + timeout_s
        while self.committed() < rows:
            assert self._process.poll() is None, self.log
            assert time.monotonic() < deadline, self.log
            time.sleep(0.1)

    def wait_for_line(self, pattern: str, *, timeout_s: float = 240.0) -> None:
        """Wait until a line of the log contains a pattern."""
        deadline = time.monotonic() + timeout_s
        while not re.search(pattern, self.log):
            assert self._process.poll() is None, self.log
            assert time.monotonic() < deadline, self.log
            time.sleep(0.1)

    def kill(self) -> None:
        """Kill the driver."""
        self._process.send_signal(signal.SIGKILL)
        self._process.wait(30)
        self._reader.join(10)
        self._close()

    def _close(self) -> None:
        for stream in (self._process.stdout, self._process.stderr):
            if stream is not None:
                stream.close()

    def result(self, *, timeout_s: float = 400.0, code: int = 0) -> dict[str, Any]:
        """Wait for the end and return the summary; stdout holds nothing but it."""
        try:
            self._process.wait(timeout_s)
        except subprocess.TimeoutExpired as error:
            self.kill()
            raise AssertionError(self.log) from error
        self._reader.join(10)
        assert self._process.stdout is not None
        out = self._process.stdout.read()
        self._close()
        print(self.log)  # pytest shows it where a test fails, and with -rP
        assert self._process.returncode == code, self.log + out
        summary: dict[str, Any] = json.loads(out) if code in (0, 3) else {}
        return summary

    @property
    def running(self) -> bool:
        """Whether the job has not ended."""
        return self._process.poll() is None

    @property
    def log(self) -> str:
        """What the job has written to stderr so far."""
        return "".join(self.lines)

    def _read(self) -> None:
        assert self._process.stderr is not None
        self.lines.extend(iter(self._process.stderr.readline, ""))


HOLDER = """
import sys, time, ray
ray.init(log_to_driver=False, logging_level="ERROR")
@ray.remote(num_cpus=float(sys.argv[1]))
class Holder:
    def ready(self): return True
holder = Holder.remote()
ray.get(holder.ready.remote())
print("held", flush=True)
time.sleep(3600)
"""


@contextlib.contextmanager
def hold_cpus(nodes: Nodes, cpus: Sequence[float]) -> Iterator[None]:
    """Hold cores of the cluster inside the block, each share by another job."""
    jobs = [
        subprocess.Popen(
            [sys.executable, "-c", HOLDER, str(share)],
            env=nodes.environment,
            stdout=subprocess.PIPE,
            text=True,
        )
        for share in cpus
    ]
    try:
        for job in jobs:
            assert job.stdout is not None
            with job.stdout as output:
                assert output.readline() == "held\n"
        yield
    finally:
        for job in jobs:
            job.kill()
            job.wait(30)
