"""The Ray of a job: the cluster it runs on, or a local one for this job alone."""

from __future__ import annotations

import contextlib
import logging
import os
import sys
import tempfile
import warnings
from collections.abc import Iterator
from typing import Any

__all__ = ["quiet_stderr", "ray_session"]


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
        ray.init(**quiet)
    else:
        cores = num_cpus or os.cpu_count()
        _start_embedded(ray, quiet | {"num_cpus": cores, "object_store_memory": object_store_bytes})
    try:
        yield ray
    finally:
        with quiet_stderr():
            ray.shutdown()


def _start_embedded(ray: Any, options: dict[str, Any]) -> None:
    """Start a local Ray, without its log lines between those of the progress bar."""
    os.environ.setdefault("RAY_BACKEND_LOG_LEVEL", "fatal")  # Ray announces it on stderr
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
