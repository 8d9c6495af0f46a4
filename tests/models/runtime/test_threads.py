"""Every entry point sets how OpenMP's threads wait before torch is imported."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from models.runtime.threads import WAITING
from tests.support.paths import ROOT

PROBE = """
import importlib.abc, os, sys

class Watch(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path, target=None):
        if name == "torch":
            print(os.environ.get("OMP_WAIT_POLICY"), os.environ.get("GOMP_SPINCOUNT"), flush=True)
            sys.exit()  # the rest of the import takes seconds

sys.meta_path.insert(0, Watch())
import {module}
print(os.environ.get("OMP_WAIT_POLICY"), os.environ.get("GOMP_SPINCOUNT"))
"""


@pytest.mark.parametrize(
    ("module", "settings", "expected"),
    [
        ("serving.engine", {}, ["passive", "10000"]),
        ("models.weights", {}, ["passive", "10000"]),
        ("models.matching", {}, ["passive", "10000"]),
        ("models.matching", {"OMP_WAIT_POLICY": "active"}, ["active", "None"]),
        ("models.matching", {"GOMP_SPINCOUNT": "7"}, ["None", "7"]),
    ],
)
def test_threads_sleep_after_a_moment_unless_the_environment_says_how_they_wait(
    module: str, settings: dict[str, str], expected: list[str]
) -> None:
    environment = {name: value for name, value in os.environ.items() if name not in WAITING}
    done = subprocess.run(
        [sys.executable, "-c", PROBE.format(module=module)],
        cwd=ROOT,
        env=environment | settings,
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.split() == expected


def test_packages_load_no_torch() -> None:
    packages = "models, models.images, models.matching, models.runtime, serving, pipelines"
    code = f"import sys, {packages}; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=False).returncode == 0
