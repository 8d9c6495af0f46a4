"""Searches that run at once get their share of the cores."""

from __future__ import annotations

import os
import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from storage.search import coded_rows
from storage.search import shared_cores as shared_cores_module
from storage.search.approximate import ApproximateIndex
from storage.search.faiss_module import import_faiss
from storage.search.shared_cores import shared_cores


def limits_of(searches: int, cores: int, monkeypatch: pytest.MonkeyPatch, *, own: int) -> list[int]:
    """Return how many threads of FAISS so many searches at once may use, in the order in which they begin."""
    monkeypatch.setattr(shared_cores_module, "usable_cores", lambda: list(range(cores)))
    faiss = import_faiss()
    begin, end = [threading.Event() for _ in range(searches)], threading.Barrier(searches)
    limits = [0] * searches

    def search(number: int) -> int:
        faiss.omp_set_num_threads(own)
        assert begin[number].wait(timeout=60)
        with shared_cores():
            limits[number] = faiss.omp_get_max_threads()
            if number + 1 < searches:
                begin[number + 1].set()
            end.wait(timeout=60)
        return int(faiss.omp_get_max_threads())

    with ThreadPoolExecutor(searches) as pool:
        tasks = [pool.submit(search, number) for number in range(searches)]
        begin[0].set()
        after = [task.result() for task in tasks]
    assert after == [own] * searches
    return limits


def test_cores_are_divided_among_the_searches_that_run(monkeypatch: pytest.MonkeyPatch) -> None:
    assert limits_of(4, 4, monkeypatch, own=4) == [4, 2, 1, 1]


def test_lower_limit_of_a_thread_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    assert limits_of(3, 8, monkeypatch, own=3) == [3, 3, 2]


def test_failed_search_gives_its_share_back(monkeypatch: pytest.MonkeyPatch) -> None:
    for _ in range(3):
        with pytest.raises(ValueError, match="no such index"), shared_cores():
            raise ValueError("no such index")
    assert limits_of(1, 2, monkeypatch, own=2) == [2]


@pytest.mark.skipif(not hasattr(os, "fork"), reason="the system cannot fork")
def test_forked_process_begins_without_searches(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shared_cores_module, "usable_cores", lambda: [0, 1, 2, 3])
    before = import_faiss().omp_get_max_threads()
    import_faiss().omp_set_num_threads(4)
    with shared_cores(), shared_cores():
        child = os.fork()
        if child == 0:
            with shared_cores():
                os._exit(import_faiss().omp_get_max_threads())
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 2  # of the forking thread, halved before
    import_faiss().omp_set_num_threads(before)


def test_codes_are_searched_with_a_share_of_the_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    entered: list[bool] = []
    share = coded_rows.shared_cores

    def watched() -> object:
        entered.append(True)
        return share()

    rows = np.random.default_rng(0).standard_normal((3000, 32), np.float32)
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    index = ApproximateIndex(rows)
    assert index.probes  # else every row is compared
    monkeypatch.setattr(coded_rows, "shared_cores", watched)
    assert index.search(rows[:1], 5)[0, 0] == 0
    assert entered == [True]


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="the system binds no threads")
def test_cores_that_the_process_may_not_use_are_not_shared_out() -> None:
    faiss = import_faiss()

    def limit() -> int:
        os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})  # of this thread alone
        faiss.omp_set_num_threads(4)
        with shared_cores():
            return int(faiss.omp_get_max_threads())

    with ThreadPoolExecutor(1) as pool:
        assert pool.submit(limit).result() == 1
