"""Every entry point sets OpenMP's wait policy before torch is imported."""

from __future__ import annotations

import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from threading import Barrier

import pytest
import torch

from models.runtime.threads import lone_threads, use_one_thread
from storage.cores import usable_cores
from tests.support.paths import ROOT

PROBE = """
import importlib.abc, os, sys

class Watch(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path, target=None):
        if name == "torch":
            print(os.environ.get("OMP_WAIT_POLICY"), flush=True)
            sys.exit()  # the rest of the import takes seconds

sys.meta_path.insert(0, Watch())
import {module}
print(os.environ.get("OMP_WAIT_POLICY"))
"""


@pytest.mark.parametrize(
    ("module", "setting", "expected"),
    [
        ("serving.engine", None, "passive"),
        ("models.weights", None, "passive"),
        ("models.matching", None, "passive"),
        ("models.matching", "active", "active"),
    ],
)
def test_threads_sleep_unless_the_environment_is_set(module: str, setting: str | None, expected: str) -> None:
    environment = {name: value for name, value in os.environ.items() if name != "OMP_WAIT_POLICY"}
    if setting is not None:
        environment["OMP_WAIT_POLICY"] = setting
    done = subprocess.run(
        [sys.executable, "-c", PROBE.format(module=module)],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.split() == [expected]


def test_threads_that_start_together_leave_later_ones_their_setting() -> None:
    together = Barrier(8)

    def limited() -> int:
        together.wait()
        use_one_thread()
        return torch.get_num_threads()

    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        for _ in range(20):
            with ThreadPoolExecutor(8) as pool:
                tasks = [pool.submit(limited) for _ in range(8)]
            assert [task.result() for task in tasks] == [1] * 8
            with ThreadPoolExecutor(1) as later:
                assert later.submit(torch.get_num_threads).result() == 2
    finally:
        torch.set_num_threads(before)


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="the system binds no threads")
@pytest.mark.parametrize("one_per_core", [True, False])
def test_lone_threads_have_a_core_each_or_all(one_per_core: bool) -> None:
    cores = usable_cores()
    together = Barrier(len(cores))

    def bound() -> tuple[int, set[int]]:
        together.wait(timeout=60)  # no thread takes two turns
        return torch.get_num_threads(), os.sched_getaffinity(0)

    with lone_threads("test", one_per_core=one_per_core) as pool:
        tasks = [pool.submit(bound) for _ in cores]
        found = [task.result() for task in tasks]
    assert [threads for threads, _ in found] == [1] * len(cores)
    expected = [{core} for core in cores] if one_per_core else [set(cores)] * len(cores)
    assert sorted(map(sorted, (where for _, where in found))) == sorted(map(sorted, expected))
    assert usable_cores() == cores  # of the thread that asked


def test_packages_load_no_torch() -> None:
    packages = "models, models.images, models.matching, models.runtime, serving, pipelines"
    code = f"import sys, {packages}; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=False).returncode == 0
