"""Commands beside another Ray on the machine, beside each other, and after they are interrupted or killed."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from storage.store import Store
from tests.support.paths import ROOT
from tests.support.pictures import write_photos
from tests.support.ray_head import CLIENT, address_of, running_head, short_folder

pytestmark = [pytest.mark.ray, pytest.mark.cluster]

PATIENCE_S = 300.0  # ends a hanging test, on a busy machine too

# Which cluster a session uses, and what a task there gives.
SESSION = """
from pipelines.ray_session import ray_session
with ray_session() as ray:
    address = ray.get_runtime_context().gcs_address
    print(address, ray.get(ray.remote(lambda: 7).remote()))
"""


@pytest.fixture(scope="module")
def head(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    with running_head(tmp_path_factory.mktemp("head")) as environment:
        yield environment


@pytest.fixture
def folder() -> Iterator[Path]:
    """Where the Rays of a test keep their folders."""
    path = Path(short_folder())
    yield path
    shutil.rmtree(path)


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("photos")
    write_photos(path, 3)
    return path


def without_address(environment: dict[str, str]) -> dict[str, str]:
    return {name: value for name, value in environment.items() if name != "RAY_ADDRESS"}


def used_by(environment: dict[str, str]) -> str:
    done = subprocess.run(
        [sys.executable, "-c", SESSION],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    address, seven = done.stdout.split()[-2:]
    assert seven == "7"
    return address


def test_cluster_is_joined_where_it_is_named_and_nowhere_else(head: dict[str, str]) -> None:
    address, own = address_of(head), without_address(head)
    assert used_by(own | {"RAY_ADDRESS": "auto"}) == address
    assert used_by(own | {"RAY_ADDRESS": address}) == address
    assert used_by(own).startswith("127.0.0.1:") != address.startswith("127.0.0.1:")


def test_cluster_is_joined_through_its_client_server(head: dict[str, str]) -> None:
    assert used_by(head | {"RAY_ADDRESS": head[CLIENT]}) == address_of(head)


def index(photos: Path, store: Path, environment: dict[str, str]) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "pipelines.cli", "index", str(photos), "--store", str(store), "--json"]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    return subprocess.Popen(command, cwd=ROOT, env=environment, text=True, **pipes)  # type: ignore[call-overload, no-any-return]


def finished(process: subprocess.Popen[str]) -> int:
    out, err = process.communicate(timeout=PATIENCE_S)
    assert process.returncode == 0, err
    return int(json.loads(out)["accepted"])


def test_index_beside_a_head_runs_alone_joins_or_says_what_is_wrong(
    head: dict[str, str], photos: Path, tmp_path: Path
) -> None:
    assert finished(index(photos, tmp_path / "own", without_address(head))) == 3
    assert finished(index(photos, tmp_path / "joined", head | {"RAY_ADDRESS": "auto"})) == 3
    assert Store.open(tmp_path / "joined").verify().ok
    for wrong in (
        head,
        head | {"RAY_ADDRESS": "127.0.0.1:9"},
        head | {"RAY_ADDRESS": address_of(head), "HOME": "/"},
    ):
        process = index(photos, tmp_path / "none", wrong)
        _, err = process.communicate(timeout=PATIENCE_S)
        assert process.returncode == 2, err
        assert len(err.splitlines()) == 1
        assert "RAY_ADDRESS" in err


def own_environment(folder: Path) -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")}
    return kept | {"RAY_TMPDIR": str(folder)}


def test_two_commands_at_once_end_and_leave_nothing(photos: Path, tmp_path: Path, folder: Path) -> None:
    both = [index(photos, tmp_path / name, own_environment(folder)) for name in "ab"]
    assert [finished(one) for one in both] == [3, 3]
    assert list(folder.iterdir()) == []


@pytest.mark.parametrize("sent", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_no_process_is_left_after_a_signal(
    photos: Path, tmp_path: Path, folder: Path, sent: signal.Signals
) -> None:
    process = index(photos, tmp_path / "store", own_environment(folder))
    rays: list[psutil.Process] = []
    deadline = time.monotonic() + PATIENCE_S
    while sum(one.name().startswith("ray::") for one in rays) < 3:
        assert time.monotonic() < deadline
        assert process.poll() is None, process.stderr and process.stderr.read()
        time.sleep(0.05)
        rays = psutil.Process(process.pid).children(recursive=True)
    process.send_signal(sent)
    _, err = process.communicate(timeout=PATIENCE_S)
    assert process.returncode == {signal.SIGINT: 130, signal.SIGTERM: 143, signal.SIGKILL: -9}[sent], err
    # After SIGKILL a worker that has just been started ends when it looks for its node.
    _, left = psutil.wait_procs(rays, timeout=0 if sent != signal.SIGKILL else PATIENCE_S)
    assert left == []
    if sent == signal.SIGKILL:  # its folder stays until the next command
        assert len(list(folder.iterdir())) == 1
        assert finished(index(photos, tmp_path / "store", own_environment(folder))) == 3
    assert list(folder.iterdir()) == []
