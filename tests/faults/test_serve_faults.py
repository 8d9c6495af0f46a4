"""Faults of the service on a real Ray Serve: killed replicas, overload, slow and oversized uploads."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest
import requests

from storage.store import Store
from tests.support.city_store import CityStore
from tests.support.paths import ROOT
from tests.support.query_load import Load
from tests.support.serve_client import deployed, query, serve_started, wait_for

pytestmark = [pytest.mark.fault, pytest.mark.ray]


@pytest.fixture(scope="module")
def serve_url(local_ray: None) -> Iterator[str]:
    with serve_started() as url:
        yield url


def replicas(name: str) -> list[int]:
    """Process ids of a deployment's replicas, below this process alone."""
    pids = []
    for process in psutil.Process().children(recursive=True):
        with contextlib.suppress(psutil.NoSuchProcess):
            title = " ".join(process.cmdline())
            if title.startswith("ray::ServeReplica:") and f":{name}" in title:
                pids.append(process.pid)
    return pids


def photos_of(city_store: CityStore) -> list[bytes]:
    return [path.read_bytes() for path in city_store.queries]


def test_killed_replicas_behind_the_ingress_lose_no_answer(serve_url: str, city_store: CityStore) -> None:
    scale = {"min_replicas": 2, "max_replicas": 2, "num_cpus": 0.1}
    settings = {"topology": "split", "shards": 2, "extractor": scale, "searcher": scale, "reranker": scale}
    with deployed(city_store.uri, **settings), Load(serve_url, photos_of(city_store), 4) as load:
        load.wait_for_more(40)
        normal = sorted(seconds for _, seconds, _ in load.answers)
        for name in ("Extractor", "Searcher-0", "Reranker"):
            before = replicas(name)
            assert len(before) == 2, name
            os.kill(before[0], signal.SIGKILL)
            load.wait_for_more(60)
            back_s = wait_for(lambda name=name, before=before: len(set(replicas(name)) - {before[0]}) == 2)
            print(f"{name}: replaced {back_s:.1f} s after 60 more answers")
        load.wait_for_more(60)
    assert load.statuses() == {200: len(load.answers)}, [a for a in load.answers if a[0] != 200][:5]
    assert len(load.answers) >= 280
    taken = sorted(seconds for _, seconds, _ in load.answers)
    p99, p99_normal = taken[int(0.99 * len(taken))], normal[int(0.99 * len(normal))]
    print(f"{len(taken)} answers, p99 {p99:.2f} s, before the kills {p99_normal:.2f} s")


def test_queries_wait_for_a_killed_single_replica(serve_url: str, city_store: CityStore) -> None:
    with (
        deployed(city_store.uri, topology="split", request_timeout_s=60),
        Load(serve_url, photos_of(city_store), 2) as load,
    ):
        load.wait_for_more(10)
        for name in ("Extractor", "Reranker"):
            (pid,) = replicas(name)
            os.kill(pid, signal.SIGKILL)
            load.wait_for_more(10)
    assert load.statuses() == {200: len(load.answers)}, [a for a in load.answers if a[0] != 200][:5]
    print(f"longest {max(seconds for _, seconds, _ in load.answers):.1f} s")


def test_killed_ingress_loses_only_requests_in_flight(serve_url: str, city_store: CityStore) -> None:
    clients = 4
    scale = {"min_replicas": 2, "max_replicas": 2, "num_cpus": 0.1}
    with deployed(city_store.uri, ingress=scale), Load(serve_url, photos_of(city_store), clients) as load:
        load.wait_for_more(30)
        before = replicas("Ingress")
        os.kill(before[0], signal.SIGKILL)
        killed = len(load.answers)
        load.wait_for_more(40)
        wait_for(lambda: len(set(replicas("Ingress")) - {before[0]}) == 2)
        load.wait_for_more(20)
    bad = [answer for answer in load.answers if answer[0] != 200]
    print(f"{len(bad)} of {len(load.answers)} answers lost: {bad[:3]}")
    assert len(bad) <= clients
    assert all(answer[0] == 200 for answer in load.answers[: killed - clients] + load.answers[-20:])


@pytest.mark.parametrize("topology", ["compact", "split"])
def test_overload_is_answered_with_retry_after(serve_url: str, city_store: CityStore, topology: str) -> None:
    bounds = {"max_queue": 4, "max_batch": 4, "max_in_flight": 12}
    photo = city_store.queries[0].read_bytes()
    with deployed(city_store.uri, topology=topology, **bounds):
        alone = min(query(serve_url, photo).elapsed.total_seconds() for _ in range(5))
        replies: list[requests.Response] = []

        def ask() -> None:
            for _ in range(3):
                replies.append(query(serve_url, photo))

        crowd = [threading.Thread(target=ask) for _ in range(60)]
        for thread in crowd:
            thread.start()
        for thread in crowd:
            thread.join()
        after = query(serve_url, photo)
    statuses = Counter(reply.status_code for reply in replies)
    assert set(statuses) == {200, 503}, statuses
    refused = [reply for reply in replies if reply.status_code == 503]
    assert all(int(reply.headers["retry-after"]) >= 1 for reply in refused)
    assert {reply.json()["error"]["reason"] for reply in refused} <= {"overloaded"}
    assert after.status_code == 200
    times = sorted(reply.elapsed.total_seconds() for reply in refused)
    print(
        f"{topology}: {dict(statuses)}, alone {alone:.3f} s, 503 at p99 {times[int(0.99 * len(times))]:.2f} s"
    )


@pytest.mark.parametrize("attackers", [4, 12, 50])
def test_incomplete_uploads_do_not_block_the_service(
    serve_url: str, city_store: CityStore, attackers: int
) -> None:
    port = int(serve_url.rsplit(":", 1)[1])
    head = (
        b"POST /v1/query HTTP/1.1\r\nHost: localhost\r\nContent-Type: image/jpeg\r\n"
        b"Content-Length: 100000\r\n\r\nhalf"
    )
    photo = city_store.queries[0].read_bytes()
    with deployed(city_store.uri, receive_timeout_s=5), contextlib.ExitStack() as stack:
        sockets = [
            stack.enter_context(socket.create_connection(("127.0.0.1", port))) for _ in range(attackers)
        ]
        for attacker in sockets:
            attacker.sendall(head)
        started = time.monotonic()
        healthy = [query(serve_url, photo) for _ in range(20)]
        assert [reply.status_code for reply in healthy] == [200] * 20
        print(
            f"{attackers} half-sent: slowest healthy {max(r.elapsed.total_seconds() for r in healthy):.2f} s"
        )
        for attacker in sockets:
            attacker.settimeout(20)
            assert b" 408 " in attacker.recv(4096)
        print(f"the last 408 after {time.monotonic() - started:.1f} s")


def test_slow_headers_do_not_block_the_service(serve_url: str, city_store: CityStore) -> None:
    port = int(serve_url.rsplit(":", 1)[1])
    photo = city_store.queries[0].read_bytes()
    with deployed(city_store.uri), contextlib.ExitStack() as stack:
        for _ in range(200):
            slow = stack.enter_context(socket.create_connection(("127.0.0.1", port)))
            slow.sendall(b"POST /v1/query HTTP/1.1\r\nHost: localhost\r\nX-Slow: ")
        assert [query(serve_url, photo).status_code for _ in range(20)] == [200] * 20


def test_oversized_uploads_are_refused_while_others_are_answered(
    serve_url: str, city_store: CityStore
) -> None:
    photos = photos_of(city_store)

    def chunks() -> Iterator[bytes]:
        for _ in range(100):
            yield bytes(1 << 20)

    def upload(body: bytes | Iterator[bytes]) -> int:
        headers = {"content-type": "image/jpeg"}
        try:
            return requests.post(f"{serve_url}/v1/query", data=body, headers=headers, timeout=60).status_code
        except requests.ConnectionError:
            return 413  # cut off while still sending; the answer was lost with the connection

    with deployed(city_store.uri), Load(serve_url, photos, 2) as load:
        load.wait_for_more(5)
        tries: list[Callable[[], int]] = [lambda: upload(bytes(100 << 20)), lambda: upload(chunks())]
        assert [attempt() for attempt in tries * 2] == [413] * 4
        load.wait_for_more(5)
    assert load.statuses() == {200: len(load.answers)}


def test_photos_indexed_by_another_process_appear_without_a_failed_request(
    serve_url: str, city_store: CityStore, tmp_path: Path
) -> None:
    store = str(tmp_path / "store")
    placeray = [sys.executable, "-m", "pipelines.cli", "index"]
    whole = str(city_store.database[0].parent)
    options = ["--store", store, "--quiet", "--json", "--commit-every", "8", "--root", whole]
    first = [*placeray, str(_listing(tmp_path / "half.csv", city_store.database[::2])), *options]
    subprocess.run(first, cwd=ROOT, check=True, capture_output=True)
    count = Store.open(store).count
    assert count == len(city_store.database[::2])
    with deployed(store, topology="split", shards=2, refresh_s=1.0):
        with Load(serve_url, photos_of(city_store), 2) as load:
            load.wait_for_more(10)
            second = [*placeray, str(_listing(tmp_path / "all.csv", city_store.database)), *options]
            subprocess.run(second, cwd=ROOT, check=True, capture_output=True)
            committed = time.monotonic()

            def rows() -> int:
                return int(requests.get(f"{serve_url}/v1/info", timeout=30).json()["rows"])

            wait_for(lambda: rows() == len(city_store.database), patience_s=30)
            print(f"visible {time.monotonic() - committed:.1f} s after the job's end")
            load.wait_for_more(10)
        assert load.statuses() == {200: len(load.answers)}, [a for a in load.answers if a[0] != 200][:5]
        top = query(serve_url, city_store.database[1].read_bytes()).json()["matches"][0]
    assert top["image_id"] == city_store.database[1].name


def _listing(path: Path, images: list[Path]) -> Path:
    path.write_text("uri\n" + "".join(f"{image.name}\n" for image in images))
    return path
