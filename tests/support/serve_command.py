"""`placeray serve` in a process of its own, with a Ray of its own."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

from tests.support.paths import ROOT
from tests.support.ray_head import short_folder

__all__ = ["served"]


@contextlib.contextmanager
def served(store: Path, *flags: str) -> Iterator[str]:
    """Serve a store until the block ends; yield the URL."""
    folder = short_folder()
    command = [sys.executable, "-m", "pipelines.cli", "serve", "--store", str(store), "--port", "0", "--json"]
    environment = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")}
    with (
        subprocess.Popen(
            [*command, "--tiles", "", *flags],
            cwd=ROOT,
            env=environment | {"RAY_TMPDIR": folder},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        ) as process,
        contextlib.ExitStack() as stack,
    ):
        stack.callback(shutil.rmtree, folder, ignore_errors=True)
        stack.callback(process.kill)
        assert process.stdout is not None
        assert process.stderr is not None
        line = process.stdout.readline()
        assert line, process.stderr.read()
        yield str(json.loads(line)["url"])
        process.send_signal(signal.SIGTERM)
        process.wait(60)
