"""Measurements in a process of their own, undisturbed by earlier ones."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import psutil

__all__ = ["apart", "command_of", "run_watched"]


def command_of(function: Callable[..., Any], *arguments: object) -> list[str]:
    """Return a command that calls a module's function with text and prints its result as JSON."""
    module = function.__module__
    if module == "__main__":
        module = sys.modules["__main__"].__spec__.name  # type: ignore[union-attr]
    name = function.__name__
    code = f"import json, sys; from {module} import {name}; print(json.dumps({name}(*sys.argv[1:])))"
    return [sys.executable, "-c", code, *map(str, arguments)]


def apart(
    function: Callable[..., Any],
    *arguments: object,
    environment: Mapping[str, str] | None = None,
    timeout_s: float | None = None,
) -> Any:
    """Call a function with arguments as text in a new process, and return its result as from JSON."""
    done = subprocess.run(
        command_of(function, *arguments),
        check=True,
        stdout=subprocess.PIPE,
        env=os.environ | (environment or {}),
        timeout=timeout_s,
    )
    return json.loads(done.stdout.splitlines()[-1])


def run_watched(command: list[str]) -> tuple[str, dict[str, float]]:
    """Run a command; return its output and its processes' peaks of unshared memory in MB, by kind."""
    import psutil

    process = psutil.Popen(command, stdout=subprocess.PIPE, text=True)
    peaks: dict[str, int] = defaultdict(int)
    watcher = threading.Thread(target=_watch, args=(process, peaks), daemon=True)
    watcher.start()
    out, _ = process.communicate()
    watcher.join()
    if process.returncode:
        raise SystemExit(f"{' '.join(command)} failed with {process.returncode}")
    return out, {name: round(size / 2**20, 1) for name, size in sorted(peaks.items())}


def _watch(process: psutil.Popen, peaks: dict[str, int]) -> None:
    """Record the peak of unshared memory (RSS less shared) of the driver and of each kind of Ray worker."""
    import psutil

    while process.is_running() and process.status() != psutil.STATUS_ZOMBIE:
        totals: dict[str, int] = defaultdict(int)
        try:
            processes = [process, *process.children(recursive=True)]
        except psutil.NoSuchProcess:
            return
        for one in processes:
            try:
                title = "driver" if one.pid == process.pid else one.cmdline()[0]
                if title == "driver" or title.startswith("ray::"):
                    kind = "extractor" if "Extract" in title else title if title == "driver" else "workers"
                    memory = one.memory_info()
                    totals[kind] += memory.rss - memory.shared
            except (psutil.Error, IndexError):
                continue
        for kind, size in totals.items():
            peaks[kind] = max(peaks[kind], size)
        time.sleep(1.0)
