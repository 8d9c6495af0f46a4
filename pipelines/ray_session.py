"""The Ray of a job: the cluster it runs on, or a local one for this job alone."""

from __future__ import annotations

import contextlib
import logging
import os
import re
import sys
import tempfile
import warnings
from collections.abc import Callable, Iterator
from typing import Any

__all__ = ["quiet_stderr", "ray_session"]

# Jobs report lost nodes themselves, in one line each.
_LOSS = re.compile(
    r"Raylet is terminated|The node with node id: |Task \S+ failed\. There are (infinite|\d+) retries"
)


@contextlib.contextmanager
def ray_session(
    *, num_cpus: int | None = None, object_store_bytes: int = 200 << 20, show_logs: bool = False
) -> Iterator[Any]:
    """Connect to the cluster of this process or of RAY_ADDRESS, or start a local Ray for this run.

    Args:
        num_cpus: CPU cores of a local Ray; default: all of the machine.
        object_store_bytes: Size of a local Ray's object store.
        show_logs: Forward the stderr of workers to this process.

    Yields:
        The `ray` module, connected.
    """
    import ray

    if ray.is_initialized():
        yield ray
        return
    quiet: dict[str, Any] = {"log_to_driver": show_logs, "logging_level": "ERROR"}
    logging.getLogger("ray.data").setLevel(logging.ERROR)
    if os.environ.get("RAY_ADDRESS"):
        _quieten_backend()
        with quiet_stderr():
            ray.init(**quiet)
    else:
        cores = num_cpus or os.cpu_count()
        _start_embedded(ray, quiet | {"num_cpus": cores, "object_store_memory": object_store_bytes})
    try:
        with _plain_messages():
            yield ray
    finally:
        with quiet_stderr():
            ray.shutdown()


def _quieten_backend() -> None:
    """Keep the log lines of Ray's native code off stderr, where it announces each restart."""
    os.environ.setdefault("RAY_BACKEND_LOG_LEVEL", "fatal")


@contextlib.contextmanager
def _plain_messages() -> Iterator[None]:
    """Show what the cluster reports on stderr, without what it repeats for each lost node and actor.

    Ray prints it on stdout, where results go, with the last lines of the log of a raylet that died.
    """
    from ray._private import worker

    show: Callable[..., None] = worker.print_to_stdstream

    def show_rest(data: dict[str, Any], *args: Any, **options: Any) -> None:
        lines = [line for line in data["lines"] if not _LOSS.match(line)]
        if lines:
            show({**data, "lines": lines, "is_err": True}, *args, **options)

    worker.print_to_stdstream = show_rest
    try:
        yield
    finally:
        worker.print_to_stdstream = show


def _start_embedded(ray: Any, options: dict[str, Any]) -> None:
    """Start a local Ray, without its log lines between those of the progress bar."""
    _quieten_backend()
    with quiet_stderr(), warnings.catch_warnings():
        # LanceDB warns of a fork without exec; Ray calls exec right after it forks.
        warnings.filterwarnings("ignore", message="lancedb fork support")
        ray.init(include_dashboard=False, **options)


@contextlib.contextmanager
def quiet_stderr() -> Iterator[None]:
    """Hold back what this process and its native code write to stderr; show it if the block raises."""
    sys.stderr.flush()
    stderr = os.dup(2)
    with tempfile.TemporaryFile() as captured:
        os.dup2(captured.fileno(), 2)
        try:
            yield
        except BaseException:
            captured.seek(0)
            os.write(stderr, captured.read())
            raise
        finally:
            sys.stderr.flush()
            os.dup2(stderr, 2)
            os.close(stderr)
