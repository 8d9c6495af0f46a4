"""Finds the tools that check what is deployed: helm, hadolint and promtool.

`make` puts them into `.venv/tools`; PLACERAY_TOOLS names another folder.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

FOLDER = Path(os.environ.get("PLACERAY_TOOLS") or Path(sys.prefix) / "tools")


def tool(name: str) -> str:
    """Return the path of a tool, or skip the test."""
    found = shutil.which(name, path=f"{FOLDER}{os.pathsep}{os.environ['PATH']}")
    if found is None:
        pytest.skip(f"{name} is not installed: make tools")
    return found


def run(name: str, *arguments: str | Path) -> subprocess.CompletedProcess[str]:
    """Run a tool and return how it ended."""
    return subprocess.run([tool(name), *map(str, arguments)], capture_output=True, text=True, check=False)
