"""The Ray that a command runs on: the cluster at hand, or a local one for the command alone."""

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
    """Use the cluster at hand (a job's, or one already started here), else a local one for this run.

    Args:
        num_cpus: Cores that a local Ray may hand out; default: as many as there are.
        object_store_bytes: Size of a local Ray's object store.
        show_logs: Whether what workers write to stderr comes out here.

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
    """Start a Ray for this run alone, without its native log lines between the user's progress lines."""
    os.environ.setdefault("RAY_BACKEND_LOG_LEVEL", "fatal")  # which Ray announces on stderr while it starts
    with quiet_stderr(), warnings.catch_warnings():
        # Ray starts its processes by fork and exec at once; LanceDB fears a fork without exec.
        warnings.filterwarnings("ignore", message="lancedb fork support")
        ray.init(include_dashboard=False, **options)


@contextlib.contextmanager
def quiet_stderr() -> Iterator[None]:
    """Hold back what this process writes to stderr, natively too; show it if the block fails."""
    sys.stderr.flush()
    kept = os.dup(2)
    with tempfile.TemporaryFile() as captured:
        os.dup2(captured.fileno(), 2)
        try:
            yield
        except BaseException:
            captured.seek(0)
            os.write(kept, captured.read())
            raise
        finally:
            sys.stderr.flush()
            os.dup2(kept, 2)
            os.close(kept)
