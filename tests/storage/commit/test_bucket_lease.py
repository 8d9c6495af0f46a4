"""The lease of a store in a bucket: one holder, takeover without clocks, release."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from storage.commit.bucket_lease import BucketLease
from storage.errors import CorruptStore, StoreLocked
from storage.objects.bucket_path import BucketPath
from storage.objects.location import open_location
from tests.support.fault_proxy import FaultProxy

FAST = {"heartbeat_s": 0.1, "dead_after_s": 0.6}


@pytest.fixture
def location(bucket_uri: str) -> BucketPath:
    location = open_location(bucket_uri)
    assert isinstance(location, BucketPath)
    return location


def state_of(location: BucketPath) -> dict[str, object]:
    return dict(json.loads(location.objects.get("LEASE", 4096).data))


def test_one_holder_and_epochs_that_only_grow(location: BucketPath) -> None:
    for epoch in (1, 2, 3):
        with BucketLease(location, **FAST) as lease:
            lease.check()
            assert lease.epoch == epoch
            assert lease.seized == (epoch == 1)  # nobody knows who was there before
            with pytest.raises(StoreLocked, match="is being written by process"):
                BucketLease(location, **FAST).__enter__()
        assert state_of(location)["released"] is True


def test_a_waiting_writer_gets_it_when_it_is_released(location: BucketPath) -> None:
    with ThreadPoolExecutor(1) as pool:
        with BucketLease(location, **FAST):
            waiting = pool.submit(BucketLease(location, timeout_s=20.0, **FAST).__enter__)
            time.sleep(0.5)
            assert not waiting.done()
        lease = waiting.result(20)
        assert lease.epoch == 2
        assert not lease.seized
        lease.__exit__(None, None, None)


def test_a_dead_holder_is_followed_and_cannot_come_back(location: BucketPath) -> None:
    dead = BucketLease(location, heartbeat_s=1e6, dead_after_s=0.6)
    dead.__enter__()
    with BucketLease(location, **FAST) as lease:
        assert (lease.epoch, lease.seized) == (2, True)
        with pytest.raises(StoreLocked):
            dead.check()
        dead.__exit__(None, None, None)
        lease.check()
        time.sleep(0.3)
        assert state_of(location)["released"] is False
        lease.check()


def test_a_holder_without_answers_gives_up_in_time(faulty: FaultProxy, bucket_uri: str) -> None:
    prefix = bucket_uri.split("?")[0]
    location = open_location(f"{prefix}?endpoint={faulty.url}&timeout_s=0.3")
    assert isinstance(location, BucketPath)
    with BucketLease(location, heartbeat_s=0.1, dead_after_s=1.0) as lease:
        faulty.fail("503", method="PUT")
        time.sleep(1.2)
        with pytest.raises(StoreLocked, match="may have been"):
            lease.check()
        faulty.clear()


def test_a_lease_that_cannot_be_read_is_reported(location: BucketPath) -> None:
    location.objects.put("LEASE", b"{}")
    with pytest.raises(CorruptStore, match="LEASE cannot be read"):
        BucketLease(location).__enter__()


RACER = """
import sys, time
from storage.commit.bucket_lease import BucketLease
from storage.errors import StoreLocked
from storage.objects.location import open_location
location = open_location(sys.argv[1])
print("ready", flush=True)
sys.stdin.readline()
try:
    with BucketLease(location, heartbeat_s=0.5, dead_after_s=20.0) as lease:
        print("won", lease.epoch, flush=True)
        sys.stdin.readline()
except StoreLocked:
    print("lost", flush=True)
"""


@pytest.mark.slow
def test_of_eight_processes_one_gets_it(bucket_uri: str) -> None:
    racers = [
        subprocess.Popen(
            [sys.executable, "-c", RACER, bucket_uri],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        for _ in range(8)
    ]
    for racer in racers:
        assert racer.stdout is not None
        assert racer.stdout.readline() == "ready\n"
    for racer in racers:
        assert racer.stdin is not None
        racer.stdin.write("go\n")
        racer.stdin.flush()
    with ThreadPoolExecutor(8) as pool:
        results = list(pool.map(lambda racer: racer.stdout.readline(), racers))  # type: ignore[union-attr]
    for racer in racers:
        racer.communicate("done\n", timeout=60)
    assert sorted(results) == ["lost\n"] * 7 + ["won 1\n"]
