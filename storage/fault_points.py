"""Fault points: places in the commit path where crash tests kill the process."""

from __future__ import annotations

import os
import signal
from collections import Counter

__all__ = ["fault_point"]

_passed: Counter[str] = Counter()


def fault_point(name: str) -> None:
    """Kill this process when the environment variable `PLACERAY_FAULT_AT` asks for it (crash tests).

    Args:
        name: The point just reached. `PLACERAY_FAULT_AT=name` kills the first time it is reached and
            `PLACERAY_FAULT_AT=name:3` the third time.
    """
    wanted = os.environ.get("PLACERAY_FAULT_AT")
    if not wanted:
        return
    point, _, nth = wanted.partition(":")
    if point == name:
        _passed[name] += 1
        if _passed[name] >= int(nth or 1):
            os.kill(os.getpid(), signal.SIGKILL)
