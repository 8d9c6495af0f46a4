"""Write constraints.txt: the versions of the tests, of everything that either flavour of the image installs.

`make lock-image` runs it in the environment of the tests; needs the package index.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from importlib.metadata import distributions
from pathlib import Path

from requirements import requirements

__all__ = ["locked"]

FOLDER = Path(__file__).resolve().parent
PYPROJECT = FOLDER.parent.parent / "pyproject.toml"
FLAVOURS = ("cpu", "gpu")
EXTRAS = ("heic", "train")
HEADER = "# Written by `make lock-image`; not to be edited.\n"


def locked() -> dict[str, str]:
    """Return the version of each package, as pip resolves the requirements with what is installed here.

    Raises:
        subprocess.CalledProcessError: pip found no solution, or no package index.
    """
    installed = {f"{one.name}=={one.version}" for one in distributions() if one.name != "placeray"}
    versions: dict[str, str] = {}
    with tempfile.TemporaryDirectory() as folder:
        here = Path(folder, "installed.txt")
        here.write_text("\n".join(sorted(installed)))
        for flavour in FLAVOURS:
            wanted, report = Path(folder, "wanted.txt"), Path(folder, "report.json")
            wanted.write_text("\n".join(requirements(PYPROJECT, (flavour, *EXTRAS))))
            command = [sys.executable, "-m", "pip", "install", "--quiet", "--dry-run", "--ignore-installed"]
            command += ["--report", str(report), "--constraint", str(here), "--requirement", str(wanted)]
            subprocess.run(command, check=True)
            for package in json.loads(report.read_text())["install"]:
                versions[package["metadata"]["name"].lower()] = package["metadata"]["version"]
    return versions


if __name__ == "__main__":
    lines = "".join(f"{name}=={version}\n" for name, version in sorted(locked().items()))
    FOLDER.joinpath("constraints.txt").write_text(HEADER + lines)
