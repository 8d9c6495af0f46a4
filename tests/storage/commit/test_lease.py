"""The lease: one writer at a time, taken over when its holder is dead."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from storage.commit.lease import DEAD_AFTER_S, HEARTBEAT_S, Lease
from storage.errors import StoreLocked

HOLDER = """
import sys, time, pathlib
from storage.commit.lease import Lease
with Lease(pathlib.Path(sys.argv[1])):
    print("held", flush=True)
    time.sleep(60)
"""


def state(folder: Path) -> dict[str, object]:
    return dict(json.loads((folder / "LEASE").read_text() or "{}"))


def write_foreign(folder: Path, age_s: float) -> None:
    beat = time.time() - age_s
    holder = {
        "pid": 77,
        "host": "elsewhere",
        "since": "2026-01-01T00:00:00+00:00",
        "token": "x",
        "beat": beat,
    }
    (folder / "LEASE").write_text(json.dumps(holder))


def test_lease_error_names_the_holder(tmp_path: Path) -> None:
    with Lease(tmp_path):
        held = state(tmp_path)
        with pytest.raises(StoreLocked) as caught, Lease(tmp_path):
            pass
        for word in (str(os.getpid()), str(held["host"]), str(held["since"])):
            assert word in str(caught.value)
    with Lease(tmp_path):
        assert state(tmp_path)["pid"] == os.getpid()


def test_lease_after_release_has_no_holder(tmp_path: Path) -> None:
    with Lease(tmp_path):
        pass
    assert state(tmp_path) == {}


def test_lease_timeout_waits_for_the_holder(tmp_path: Path) -> None:
    first = Lease(tmp_path)
    first.__enter__()
    before = state(tmp_path)["token"]
    threading.Timer(0.3, first.__exit__, (None, None, None)).start()
    with Lease(tmp_path, timeout_s=30.0) as second:
        second.check()
        assert state(tmp_path)["token"] not in (before, None)


def test_lease_of_a_killed_process_is_taken_over_at_once(tmp_path: Path) -> None:
    child = subprocess.Popen([sys.executable, "-c", HOLDER, str(tmp_path)], stdout=subprocess.PIPE)
    assert child.stdout is not None
    assert child.stdout.readline() == b"held\n"
    with pytest.raises(StoreLocked, match=str(child.pid)), Lease(tmp_path):
        pass
    child.send_signal(signal.SIGKILL)
    child.wait()
    child.stdout.close()
    with Lease(tmp_path) as lease:
        lease.check()


def test_lease_of_another_host_lasts_as_long_as_its_heartbeat(tmp_path: Path) -> None:
    write_foreign(tmp_path, DEAD_AFTER_S - 5)
    with pytest.raises(StoreLocked, match="process 77 on host elsewhere since 2026-01-01"), Lease(tmp_path):
        pass
    write_foreign(tmp_path, DEAD_AFTER_S + 1)
    with Lease(tmp_path) as lease:
        lease.check()
    assert HEARTBEAT_S * 3 <= DEAD_AFTER_S


@pytest.mark.parametrize("text", ["", "{", "[]", "\x00" * 512, '{"beat": "soon"}'])
def test_lease_unreadable_file_does_not_lock_for_ever(tmp_path: Path, text: str) -> None:
    (tmp_path / "LEASE").write_text(text)
    with Lease(tmp_path) as lease:
        lease.check()
        assert state(tmp_path)["pid"] == os.getpid()


def test_lease_taken_over_fails_its_check(tmp_path: Path) -> None:
    with Lease(tmp_path) as lease:
        lease.check()
        write_foreign(tmp_path, 0)
        with pytest.raises(StoreLocked, match="taken over"):
            lease.check()
    assert state(tmp_path)["token"] == "x", "releasing a lost lease must not touch the new holder's"


def test_lease_file_removed_fails_its_check(tmp_path: Path) -> None:
    with Lease(tmp_path) as lease:
        (tmp_path / "LEASE").unlink()
        with pytest.raises(StoreLocked):
            lease.check()


def test_lease_heartbeat_moves_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("storage.commit.lease.HEARTBEAT_S", 0.02)
    with Lease(tmp_path):
        first = state(tmp_path)["beat"]
        deadline = time.monotonic() + 20
        while state(tmp_path)["beat"] == first and time.monotonic() < deadline:
            time.sleep(0.01)
        assert state(tmp_path)["beat"] != first
