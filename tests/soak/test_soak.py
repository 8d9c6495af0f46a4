"""Ten minutes of mixed load, and the parts that judge it."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import psutil
import pytest

from storage.store import Store
from tests.soak.asking import Asking
from tests.soak.changes import Changes
from tests.soak.history import History
from tests.soak.resources import Resources
from tests.soak.run import faults_of, limits_of
from tests.soak.slopes import slope
from tests.support.city_store import CityStore
from tests.support.paths import ROOT
from tests.support.serve_client import wait_for
from tests.support.service_server import running_service
from tests.support.store_samples import make_card, make_rows

SECONDS = os.environ.get("PLACERAY_SOAK_SECONDS", "600")


@pytest.mark.fault
def test_mixed_load_gives_no_wrong_answer_and_no_growth(tmp_path: Path) -> None:
    command = [
        sys.executable,
        "-m",
        "tests.soak.run",
        "--seconds",
        SECONDS,
        "--out",
        str(tmp_path / "soak.json"),
    ]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    print(done.stdout)
    assert done.returncode == 0, done.stdout[-5000:] + done.stderr[-3000:]


def answer(version: int, *images: str, degraded: bool = False) -> dict[str, Any]:
    return {
        "store_version": version,
        "degraded": degraded,
        "matches": [{"image_id": image} for image in images],
    }


def test_an_answer_is_judged_by_the_version_that_it_names() -> None:
    history = History(1, frozenset("abc"))
    history.record(4, frozenset("ab"))
    assert history.wrong(answer(1, "c", "a"), "c", 2) is None
    assert "not in the store" in str(history.wrong(answer(4, "c", "a"), "c", 2))
    assert "before" in str(history.wrong(answer(1, "a", "c"), "c", 2))
    assert "1 matches" in str(history.wrong(answer(1, "c"), "c", 2))
    assert "2 matches" in str(history.wrong(answer(1, "a", "a"), "a", 2))
    assert history.wrong(answer(4, "a", "b"), "z", 5) is None
    assert history.wrong(answer(1, "c", "a", degraded=True), "c", 2) == "degraded"


def test_a_version_in_between_is_as_the_one_before_or_after() -> None:
    history = History(1, frozenset("abc"))
    assert not history.is_known(3)
    history.record(4, frozenset("ab"))
    assert history.is_known(3)
    assert history.wrong(answer(3, "a", "b", "c"), "a", 3) is None
    assert history.wrong(answer(3, "a", "b"), "a", 3) is None
    assert history.wrong(answer(3, "a", "d", "c"), "a", 3)


def test_growth_is_found_and_noise_is_not() -> None:
    seconds = [float(n) for n in range(200)]
    noise = [100.0 + (n * 7919 % 13) for n in range(200)]
    leak = [value + n for n, value in enumerate(noise)]
    assert slope(seconds, noise).is_flat(*limits_of("replica_mib"))
    grown = slope(seconds, leak)
    assert not grown.is_flat(*limits_of("replica_mib"))
    assert grown.low < 3600 < grown.high
    with pytest.raises(ValueError, match="too few"):
        slope([1.0, 2.0], [1.0, 2.0])


def test_what_a_run_must_not_show() -> None:
    fine = {"queries": {200: 9, 500: 2}, "tracks": {200: 1, 409: 1}, "kills": {"Ingress": 1}, "judged": 9}
    fine |= {"unjudged": 0, "wrong": [], "growing": [], "slopes": {}}
    assert faults_of(fine, clients=2) == []
    assert faults_of(fine | {"kills": {}}, clients=2)
    assert faults_of(fine | {"wrong": ["x"]}, clients=2) == ["wrong: x"]
    assert faults_of(fine | {"judged": 0}, clients=2)
    assert faults_of(fine | {"growing": ["a"], "slopes": {"a": 1}}, clients=2) == ["a grows: 1"]


def test_a_store_that_lost_an_image_disagrees(tmp_path: Path) -> None:
    store = Store.create(tmp_path / "store", make_card())
    images = [f"id{n}" for n in range(30)]
    with store.lease():
        store.commit(make_rows(store, images))
    history = History(store.version, frozenset(images))
    changes = Changes(str(tmp_path / "store"), [], history, seed=1)
    for name in ("_delete", "_compact", "_verify"):
        changes.once(name)
    assert changes.wrong == []
    assert len(history.images) == 26
    with store.lease():
        store.delete(sorted(history.images)[:1])
    changes.once("_verify")
    assert changes.wrong == ["_verify: 25 images instead of 26"]


@pytest.mark.long
def test_clients_judge_a_service_whose_store_changes(city_store: CityStore, tmp_path: Path) -> None:
    shutil.copytree(city_store.uri, tmp_path / "store")
    store = Store.open(tmp_path / "store")
    images = frozenset(store.metadata()["image_id"].to_pylist())
    history = History(store.version, images)
    changes = Changes(store.uri, city_store.database, history, seed=1)
    stop = threading.Event()
    with (
        running_service(store.uri, refresh_s=0.25) as running,
        Resources(tmp_path / "store", watched=lambda: [psutil.Process()]) as resources,
    ):
        asking = Asking(running.url, city_store.database, history)
        client = threading.Thread(target=asking.run, args=(stop, 0))
        client.start()
        for name in ("_delete", "_relearn", "_compact", "_delete", "_verify"):
            changes.once(name)
            judged = asking.judged
            wait_for(lambda judged=judged: asking.judged >= judged + 5)
        stop.set()
        client.join()
        misled = Asking(running.url, city_store.database, History(history.newest, images))
        status, reply = misled._post_photo(city_store.database[0])
    assert (asking.wrong, changes.wrong) == ([], [])
    assert set(asking.queries) == {200}
    assert set(asking.tracks) <= {200, 409}
    assert (status, len(history.images)) == (200, len(images) - 8)
    gone = next(path for path in city_store.database if path.name in images - history.images)
    assert reply is not None
    assert misled._history.wrong(reply, gone.name, 5)
    assert {"driver_mib", "replica_threads", "store_mib"} <= set(resources._values)
