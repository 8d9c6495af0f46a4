"""Gives a private Ray the time to start that a busy machine needs."""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Iterator
from typing import Any

__all__ = ["START_PATIENCE_S", "patient_start"]

START_PATIENCE_S = 150.0
GCS_PATIENCE = "RAY_gcs_server_port_wait_time_s"  # Ray's own setting, for the first of its processes
POLL_S = 0.2


@contextlib.contextmanager
def patient_start(ray: Any, patience_s: float = START_PATIENCE_S) -> Iterator[None]:
    """Let Ray's processes take longer to come up than its 30 s, of which the second half cannot be set.

    Args:
        ray: The `ray` module.
        patience_s: How long the node of this machine may take to be known, from now on, in seconds.
    """
    services = ray._private.services
    known, deadline = services.get_node, time.monotonic() + patience_s

    def awaited(*args: Any, **options: Any) -> Any:
        while True:
            try:
                return known(*args, **options)
            except RuntimeError:  # not yet
                if time.monotonic() > deadline:
                    raise
            time.sleep(POLL_S)

    set_by_user = os.environ.get(GCS_PATIENCE)
    os.environ.setdefault(GCS_PATIENCE, str(int(patience_s)))
    services.get_node = awaited
    try:
        yield
    finally:
        services.get_node = known
        if set_by_user is None:
            os.environ.pop(GCS_PATIENCE, None)
