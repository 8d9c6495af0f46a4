"""OpenMP wait policy of torch's CPU threads. Imports no torch: it must be set before that."""

from __future__ import annotations

import os

__all__ = ["sleep_while_waiting"]


def sleep_while_waiting() -> None:
    """Make waiting OpenMP threads sleep instead of spin, unless the environment sets the policy.

    Spinning threads compete for cores with decoders, writers and each other. On two cores with one other busy
    process, efficientnet-lite0 took 1540 ms per image with spinning threads and 54 ms with sleeping ones
    (medians, benchmarks/README.md). Call it before the first import of torch.
    """
    os.environ.setdefault("OMP_WAIT_POLICY", "passive")
