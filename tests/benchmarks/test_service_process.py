"""What can be seen of a service's process from outside."""

from __future__ import annotations

import os
import threading

import pytest

from benchmarks.service_process import ReplicaWatch
from tests.support.serve_client import wait_for


@pytest.fixture
def watch() -> ReplicaWatch:
    return ReplicaWatch(os.getpid())


def test_work_aside_ends_with_its_thread_though_others_stay(watch: ReplicaWatch) -> None:
    leave = threading.Event()

    def work(go_on: threading.Event) -> None:
        os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), 19)
        others.append(threading.Thread(target=leave.wait))  # with the priority of its maker
        others[-1].start()
        go_on.wait()

    others: list[threading.Thread] = []
    try:
        for times in (1, 2):
            go_on = threading.Event()
            thread = threading.Thread(target=work, args=(go_on,))
            thread.start()
            wait_for(lambda: watch.works_aside)
            go_on.set()
            thread.join()
            wait_for(lambda: not watch.works_aside)
            assert len(watch.asides_s) == times
        assert watch.peak_mib >= watch.loaded_mib > 1
    finally:
        leave.set()
        watch.stop()
    for other in others:
        other.join()
