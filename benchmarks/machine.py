"""The machine that a benchmark ran on, as its results name it."""

from __future__ import annotations

import os
import platform
from pathlib import Path
from typing import Any

__all__ = ["cpu_name", "describe_machine"]


def cpu_name() -> str:
    path = Path("/proc/cpuinfo")
    lines = path.read_text().splitlines() if path.exists() else []
    names = (line.split(":", 1)[1].strip() for line in lines if line.startswith("model name"))
    return next(names, platform.machine())


def describe_machine(**more: Any) -> dict[str, Any]:
    """Return the processor, its cores, Python's version, and other values that the results depend on."""
    return {"cpu": cpu_name(), "cores": os.cpu_count(), "python": platform.python_version(), **more}
