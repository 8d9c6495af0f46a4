"""Serve a store that changes all the time, kill replicas, and compare every answer with a model beside it.

    python -m tests.soak.run --seconds 3600 --out soak.json

On one machine with Ray Serve: clients ask and follow drives; a writer indexes, deletes, compacts, learns
again and verifies; every --kill-every-s a replica is killed, in turn of each deployment. Exits with 1 if an
answer or the store disagrees with the model, if more requests fail than a killed ingress may lose (those that
it works on), or if memory, threads, file handles or the store grow.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import signal
import sys
import tempfile
import threading
import time
from collections import Counter
from pathlib import Path
from typing import Any

from storage.store import Store
from tests.soak.asking import Asking
from tests.soak.changes import Changes
from tests.soak.history import History
from tests.soak.resources import Resources, replicas
from tests.support.city_store import CityStore, make_city_store
from tests.support.serve_client import deployed, query, serve_started, wait_for

KILLED = ("Extractor", "Searcher-0", "Reranker", "Ingress")
# Growth over the run: share of the mean, and what is too little to count.
FLAT = {"mib": (0.15, 30.0), "threads": (0.15, 3.0), "files": (0.15, 5.0), "store_mib": (1.0, 20.0)}


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m tests.soak.run",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--seconds", type=float, default=3600.0)
    parser.add_argument("--kill-every-s", type=float, default=60.0)
    parser.add_argument("--clients", type=int, default=3)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, help="JSON file of the report")
    args = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory() as folder:
        report = soak(make_city_store(Path(folder)), args)
    faults = faults_of(report, args.clients)
    text = json.dumps(report | {"faults": faults}, indent=1)
    print(text)
    if args.out:
        args.out.write_text(text + "\n")
    return 1 if faults else 0


def soak(city: CityStore, args: argparse.Namespace) -> dict[str, Any]:
    """Run the load for the given time and return what was seen."""
    import ray

    ray.init(num_cpus=2, include_dashboard=False, object_store_memory=200 << 20, logging_level="ERROR")
    scale = {"min_replicas": 2, "max_replicas": 2, "num_cpus": 0.1}
    settings: dict[str, Any] = {"topology": "split", "shards": 1, "refresh_s": 1.0}
    settings |= dict.fromkeys(("ingress", "extractor", "searcher", "reranker"), scale)
    store = Store.open(city.uri)
    history = History(store.version, frozenset(store.metadata()["image_id"].to_pylist()))
    try:
        with serve_started() as url, deployed(city.uri, **settings):
            wait_for(lambda: query(url, city.database[0].read_bytes()).status_code == 200)
            return under_load(url, city, history, args)
    finally:
        ray.shutdown()


def under_load(url: str, city: CityStore, history: History, args: argparse.Namespace) -> dict[str, Any]:
    asking = Asking(url, city.database, history)
    changes = Changes(city.uri, city.database, history, args.seed)
    kills: Counter[str] = Counter()
    stop = threading.Event()
    threads = [
        threading.Thread(target=asking.run, args=(stop, args.seed + n)) for n in range(args.clients)
    ] + [threading.Thread(target=changes.run, args=(stop,))]
    started = time.monotonic()
    with Resources(Path(city.uri)) as resources:
        for thread in threads:
            thread.start()
        names = itertools.cycle(KILLED)
        while (left := started + args.seconds - time.monotonic()) > 0:
            time.sleep(min(left, args.kill_every_s))
            if left > args.kill_every_s:
                kills[kill(next(names))] += 1
        stop.set()
        for thread in threads:
            thread.join()
    asking.judge()
    return {
        "seconds": round(time.monotonic() - started),
        "queries": dict(asking.queries),
        "tracks": dict(asking.tracks),
        "judged": asking.judged,
        "unjudged": asking.unjudged,
        "wrong": [*asking.wrong, *changes.wrong],
        "changes": dict(changes.done),
        "kills": dict(kills),
        "slopes": {name: one.rounded() for name, one in resources.slopes().items()},
        "growing": [name for name, one in resources.slopes().items() if not one.is_flat(*limits_of(name))],
    }


def limits_of(name: str) -> tuple[float, float]:
    return FLAT[name] if name in FLAT else FLAT[name.rpartition("_")[2]]


def kill(name: str) -> str:
    """Kill one replica of a deployment, if it has two: one alone is being replaced."""
    found = replicas(name)
    if len(found) < 2:
        return f"{name}, not"
    os.kill(found[0].pid, signal.SIGKILL)
    return name


def faults_of(report: dict[str, Any], clients: int) -> list[str]:
    """Return what a run must not show."""
    failed = {status: n for status, n in report["queries"].items() if status != 200}
    failed_tracks = {status: n for status, n in report["tracks"].items() if status not in (200, 409)}
    allowed = clients * report["kills"].get("Ingress", 0)
    faults = [f"wrong: {one}" for one in report["wrong"]]
    if (lost := sum(failed.values()) + sum(failed_tracks.values())) > allowed:
        faults.append(f"{lost} requests failed, {allowed} may: {failed} {failed_tracks}")
    if report["unjudged"] or not report["judged"]:
        faults.append(f"{report['unjudged']} answers of versions that nobody made, {report['judged']} judged")
    return faults + [f"{name} grows: {report['slopes'][name]}" for name in report["growing"]]


if __name__ == "__main__":
    sys.exit(main())
