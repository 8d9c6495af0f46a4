"""Print the requirements of the image, one per line: `requirements.py PYPROJECT EXTRA...`.

The versions come from constraints.txt, which `make lock-image` writes.
"""

from __future__ import annotations

import sys
import tomllib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

__all__ = ["requirements"]


def requirements(pyproject: Path, extras: Sequence[str]) -> list[str]:
    """Return what the code needs to be built and to run.

    Args:
        pyproject: The project's pyproject.toml.
        extras: Names of optional dependencies.

    Raises:
        KeyError: there is no such extra.
    """
    content: dict[str, Any] = tomllib.loads(pyproject.read_text())
    project = content["project"]
    optional = [line for name in extras for line in project["optional-dependencies"][name]]
    return [*content["build-system"]["requires"], *project["dependencies"], *optional]


if __name__ == "__main__":
    print("\n".join(requirements(Path(sys.argv[1]), sys.argv[2:])))
