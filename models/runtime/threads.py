"""How torch's CPU threads wait for each other. Imports no torch: it has to act before torch is loaded."""

from __future__ import annotations

import os

__all__ = ["sleep_while_waiting"]


def sleep_while_waiting() -> None:
    """Let OpenMP threads sleep instead of spin while they wait, unless the environment says otherwise.

    Spinning threads take the cores from decoders, writers and each other. On two cores with one other busy
    process, one image through efficientnet-lite0 took 1540 ms with spinning threads and 54 ms with sleeping
    ones (medians, benchmarks/README.md). Call it before the first import of torch.
    """
    os.environ.setdefault("OMP_WAIT_POLICY", "passive")
