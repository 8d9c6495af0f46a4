"""A Ray head node of its own with token authentication, as the README documents it."""

from __future__ import annotations

import contextlib
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil

START_PATIENCE_S = 240.0  # of a busy machine
RAY = str(Path(sys.executable).with_name("ray"))
AGENT = "ADDRESS_OF_THE_AGENT"  # of the head's agent, likewise
CLIENT = "ADDRESS_FOR_RAY_CLIENT"  # of the head, in the environment that `running_head` yields


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextmanager
def running_head(tmp_path: Path) -> Iterator[dict[str, str]]:
    """Start a head node; yields the environment of a client that submits jobs to it."""
    dashboard, client, agent, folder = free_port(), free_port(), free_port(), short_folder()
    environment = {
        **{name: value for name, value in os.environ.items() if not name.startswith("RAY_")},
        "RAY_AUTH_MODE": "token",
        "HOME": str(tmp_path / "home"),  # holds the token
        AGENT: f"http://127.0.0.1:{agent}",
        CLIENT: f"ray://127.0.0.1:{client}",
        "RAY_ADDRESS": f"http://127.0.0.1:{dashboard}",
        "RAY_TMPDIR": folder,  # there `auto` finds the head
        # The job's `python` is the one that the head finds.
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
    }
    (tmp_path / "home").mkdir()
    subprocess.run([RAY, "get-auth-token", "--generate"], env=environment, capture_output=True, check=True)
    start = [RAY, "start", "--head", "--block", "--num-cpus=2", f"--port={free_port()}"]
    start += [
        "--dashboard-host=127.0.0.1",
        f"--dashboard-port={dashboard}",
        "--object-store-memory=200000000",
    ]
    # The agent's default port may belong to another Ray here; without its agent a head takes no jobs.
    start += [f"--dashboard-agent-listen-port={agent}", f"--ray-client-server-port={client}"]
    start += ["--disable-usage-stats"]
    start += [f"--temp-dir={folder}/ray"]
    without_address = {name: value for name, value in environment.items() if name != "RAY_ADDRESS"}
    # Of the head alone: clients would wait as long for an address at which nobody listens.
    without_address["RAY_gcs_server_port_wait_time_s"] = str(int(START_PATIENCE_S))
    with open(tmp_path / "head.log", "w") as log:
        node = subprocess.Popen(start, env=without_address, stdout=log, stderr=log)
    try:
        wait_until_up(
            environment["RAY_ADDRESS"], node, tmp_path / "head.log", Path(folder, "ray/ray_current_cluster")
        )
        yield environment
    finally:
        # SIGTERM would drain for half a minute. Only processes of this test are killed, by id.
        started = [psutil.Process(node.pid), *psutil.Process(node.pid).children(recursive=True)]
        for process in started:
            with contextlib.suppress(psutil.NoSuchProcess):
                process.kill()
        node.wait(30)
        shutil.rmtree(folder, ignore_errors=True)


def address_of(environment: dict[str, str]) -> str:
    """Return the HOST:PORT of a head that `running_head` started."""
    return Path(environment["RAY_TMPDIR"], "ray", "ray_current_cluster").read_text().strip()


def short_folder() -> str:
    # Ray's socket paths must be shorter than 107 bytes, which pytest's folders exceed.
    return tempfile.mkdtemp(prefix="ray-", dir="/tmp")


def wait_until_up(address: str, node: subprocess.Popen[bytes], log: Path, noted: Path) -> None:
    deadline = time.monotonic() + START_PATIENCE_S
    while time.monotonic() < deadline:
        assert node.poll() is None, log.read_text()
        try:
            urllib.request.urlopen(f"{address}/api/version", timeout=2).close()
            raise AssertionError("the head answers without a token")
        except urllib.error.HTTPError as error:
            if error.code not in {401, 403}:
                raise
            if noted.exists():  # what `auto` follows
                return
            time.sleep(0.5)
        except OSError:
            time.sleep(0.5)
    raise AssertionError(log.read_text())
