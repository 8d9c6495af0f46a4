"""An evaluation is interrupted while it indexes; the same command goes on and scores the whole database."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.support.paths import ROOT
from tests.support.pictures import write_photos

pytestmark = pytest.mark.fault

IMAGES, QUERIES = 200, 6


@pytest.mark.parametrize("pause_s", [0.0, 6.0])
def test_the_same_command_goes_on_after_ctrl_c(tmp_path: Path, pause_s: float) -> None:
    write_photos(tmp_path / "set/database", IMAGES)
    write_photos(tmp_path / "set/queries", QUERIES)
    store = tmp_path / "store"
    job = [sys.executable, "-m", "pipelines.cli", "evaluate", str(tmp_path / "set"), "--store", str(store)]
    first = subprocess.Popen([*job, "--json"], cwd=ROOT, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL)
    deadline = time.monotonic() + 120
    while first.poll() is None and time.monotonic() < deadline and not (store / "LEASE").exists():
        time.sleep(0.1)
    time.sleep(pause_s)
    first.send_signal(signal.SIGINT)
    _, errors = first.communicate(timeout=120)
    assert first.returncode == 130, errors
    assert b"Traceback" not in errors

    again = subprocess.run([*job, "--json", "--quiet"], cwd=ROOT, capture_output=True, text=True, check=False)
    assert again.returncode == 0, again.stderr
    result = json.loads(again.stdout)
    assert (result["database"], result["queries"], result["database_rejected"]) == (IMAGES, QUERIES, 0)
    assert result["recall"]["reranked"]["1"] == 100.0
