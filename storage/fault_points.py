"""Fault points: places in the commit path where crash tests kill the process."""

from __future__ import annotations

import os
import signal
from collections import Counter

__all__ = ["fault_point"]

_counts: Counter[str] = Counter()


def fault_point(name: str) -> None:
    """Kill this process if the environment variable `PLACERAY_FAULT_AT` names this point (crash tests).

    Args:
        name: The point that was reached. `PLACERAY_FAULT_AT=name` kills the process the first time,
            `PLACERAY_FAULT_AT=name:3` the third time.
    """
    setting = os.environ.get("PLACERAY_FAULT_AT")
    if not setting:
        return
    point, _, nth = setting.partition(":")
    if point == name:
        _counts[name] += 1
        if _counts[name] >= int(nth or 1):
            os.kill(os.getpid(), signal.SIGKILL)
