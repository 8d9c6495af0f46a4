"""The commands of the guide to a city in buckets, each as it is written there, on a real server."""

from __future__ import annotations

import re
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from storage.objects.location import objects_of, open_location
from storage.store import Store
from tests.support.bucket_photos import put_objects
from tests.support.object_servers import SECRET, make_bucket
from tests.support.paths import ROOT
from tests.support.pictures import write_photos
from tests.support.ray_head import address_of, running_head

pytestmark = [pytest.mark.cluster, pytest.mark.ray]

GUIDE = ROOT / "docs/guides/bucket-operations.md"
CITY = "s3://my-bucket/city"
PHOTOS = 24


def commands() -> list[str]:
    """The lines of the guide's blocks of commands."""
    blocks = re.findall(r"```bash\n(.*?)```", GUIDE.read_text(), re.DOTALL)
    return [line for block in blocks for line in block.splitlines()]


class Shell:
    """Runs commands as they are written, in a folder that has `where.jpg`."""

    def __init__(self, folder: Path, environment: dict[str, str]) -> None:
        (folder / "bin").mkdir()
        program = folder / "bin/placeray"
        program.write_text(f'#!/bin/sh\nexec {sys.executable} -m pipelines.cli "$@"\n')
        program.chmod(0o755)
        self.folder = folder
        self.environment = {
            **environment,
            "PATH": f"{folder / 'bin'}:{environment['PATH']}",
            "PYTHONPATH": str(ROOT),
        }

    def run(self, line: str, **environment: str) -> str:
        # A job's folder is the checkout, which `--working-dir .` names.
        cwd = ROOT if line.startswith("ray ") else self.folder
        done = subprocess.run(
            ["bash", "-c", line],
            cwd=cwd,
            env=self.environment | environment,
            capture_output=True,
            text=True,
            check=False,
            timeout=900,
        )
        assert done.returncode == 0, f"{line}: {done.stdout[-3000:]} {done.stderr[-3000:]}"
        assert SECRET not in done.stdout + done.stderr
        return done.stdout

    @contextmanager
    def running(self, line: str) -> Iterator[None]:
        """Run a command until the block ends."""
        with subprocess.Popen(
            ["bash", "-c", f"exec {line}"], cwd=self.folder, env=self.environment
        ) as server:
            try:
                deadline = time.monotonic() + 300
                while not answers("http://127.0.0.1:8000/healthz"):
                    assert server.poll() is None
                    assert time.monotonic() < deadline
                    time.sleep(1.0)
                yield
            finally:
                server.send_signal(signal.SIGTERM)
                server.wait(90)


def answers(url: str) -> bool:
    try:
        with urllib.request.urlopen(url, timeout=5):
            return True
    except OSError:
        return False


def taken(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def test_every_command_of_the_guide_runs_as_it_is_written(
    seaweed_url: str, credentials: None, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    if taken(8000):
        pytest.skip("another program listens on port 8000, which the guide names")
    make_bucket(seaweed_url, "my-bucket")
    monkeypatch.setenv("AWS_ENDPOINT_URL", seaweed_url)
    monkeypatch.setenv("AWS_REGION", "eu-central-1")
    with running_head(tmp_path) as environment:
        home = Path(environment["HOME"])
        paths = write_photos(home / "photos", PHOTOS)
        put_objects(seaweed_url, {f"photos/{p.name}": p.read_bytes() for p in paths}, "my-bucket")
        shutil.copyfile(paths[3], tmp_path / "where.jpg")
        cluster = {"RAY_ADDRESS": address_of(environment)}
        shell = Shell(tmp_path, environment)
        lines = commands()
        assert lines[0].startswith("export AWS_ACCESS_KEY_ID=... AWS_SECRET_ACCESS_KEY=...")
        at = lines.index(f"placeray serve --store {CITY} --topology split")
        for line in lines[1:at]:
            shown = shell.run(line, **cluster)
        assert paths[3].name in shown
        shell.environment |= cluster
        with shell.running(lines[at]):
            assert paths[3].name in shell.run(lines[at + 1])
        shell.environment["RAY_ADDRESS"] = environment["RAY_ADDRESS"]
        assert lines[at + 2].startswith("ray job submit")
        shell.run(lines[at + 2])
        assert Store.open(CITY).count == PHOTOS
        shell.environment |= cluster
        move = lines.index(f"placeray copy ~/city {CITY}")
        for line in lines[at + 3 : move]:
            assert "unchanged" in shell.run(line)
        shell.run("placeray index ~/photos --store ~/city")
        objects = objects_of(open_location(CITY))
        objects.delete([each.name for each in objects.list()])
        for line in lines[move:]:
            shown = shell.run(line)
        assert Store.open(CITY).count == PHOTOS
        assert set(Store.open(CITY).metadata()["source"].to_pylist()) == {"s3://my-bucket/photos"}
        assert Store.open(CITY).verify().ok
