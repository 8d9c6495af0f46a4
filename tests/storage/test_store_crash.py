"""Killed writers and torn files: acknowledged rows survive, and running again completes the work."""

from __future__ import annotations

import os
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from storage.care.repair import repair_store
from storage.care.verify import verify_store
from storage.commit.ledger import read_committed
from storage.errors import CorruptStore, StoreNotFound
from storage.store import Store
from tests.support.store_samples import contents, make_card, make_rows, make_store

pytestmark = pytest.mark.integration  # starts an interpreter for each fault

BATCHES = [[f"id{b:02d}-{i}" for i in range(5)] for b in range(12)]
IDS = [image_id for batch in BATCHES for image_id in batch]
POINTS = ["before_shard", "after_shard", "before_commit", "after_lance", "after_sync", "before_committed"]

# The child is a small indexer: the input minus what is known, batch by batch, acknowledged on stdout.
CHILD = """
import sys
from storage.store import Store
from tests.support.store_samples import make_card, make_rows
from tests.storage.test_store_crash import BATCHES
store = Store.create(sys.argv[1], make_card())
with store.lease():
    known = set(store.metadata()["image_id"].to_pylist())
    for batch in BATCHES:
        todo = [image_id for image_id in batch if image_id not in known]
        if todo:
            store.commit(make_rows(store, todo))
            print("acked", *todo, flush=True)
"""


def run_child(folder: Path, *, fault: str = "", kill_after: float | None = None) -> tuple[int, list[str]]:
    """Run the child, to its end or to its death; return its exit code and the keys it acknowledged."""
    env = {**os.environ, "PLACERAY_FAULT_AT": fault}
    command = [sys.executable, "-c", CHILD, str(folder)]
    with subprocess.Popen(command, env=env, stdout=subprocess.PIPE, text=True) as child:
        assert child.stdout is not None
        lines = []
        if kill_after is not None:
            lines.append(child.stdout.readline())  # it is at work
            time.sleep(kill_after)
            child.kill()
        lines += child.stdout.readlines()
        child.wait(60)
    return child.returncode, [key for line in lines for key in line.split()[1:]]


def check_after_kill(folder: Path, acked: set[str], what: str) -> None:
    """The store opens without repair, holds every acknowledged row once, and is sound."""
    try:
        store = Store.open(folder)
    except StoreNotFound:
        assert not acked, what
        return
    keys = store.metadata()["image_id"].to_pylist()
    assert len(keys) == len(set(keys)), what
    assert acked <= set(keys), what
    report = store.verify()
    assert report.ok, f"{what}: {report}"


def kill_and_finish(tmp_path: Path, faults: list[str], random_kills: int, seed: int) -> list[str]:
    """Kill the child at each fault point, then at random moments; a store that got finished starts over.

    After each kill and at the end the store is checked; the keys that it holds then are returned.
    """
    rng = random.Random(seed)
    undisturbed = contents(make_store(tmp_path / "undisturbed", IDS, batch=5))
    pending, killed, number = list(faults), 0, 0
    acked: set[str] = set()
    while killed < len(faults) + random_kills:
        folder = tmp_path / f"store{number}"
        fault = pending[0] if pending else ""
        pause = None if fault else rng.random() * 0.12
        code, new = run_child(folder, fault=fault, kill_after=pause)
        acked |= set(new)
        check_after_kill(folder, acked, f"seed {seed}, {fault or pause}")
        if code == -signal.SIGKILL:
            killed += 1
            pending = pending[1:]
        else:
            assert (code, contents(Store.open(folder))) == (0, undisturbed), f"seed {seed}, {fault or pause}"
            number, acked = number + 1, set()
    folder = tmp_path / f"store{number}"
    code, _ = run_child(folder)
    assert (code, contents(Store.open(folder))) == (0, undisturbed), f"seed {seed}"
    assert verify_store(folder).ok
    return sorted(Store.open(folder).metadata()["image_id"].to_pylist())


def test_store_killed_at_each_fault_point_loses_and_doubles_nothing(tmp_path: Path) -> None:
    faults = ["after_shard:2", "after_lance:1", "before_committed:2"]
    assert kill_and_finish(tmp_path, faults, 0, seed=1) == IDS


@pytest.mark.fault
@pytest.mark.parametrize("seed", [2, 3])
def test_store_killed_twenty_times_loses_and_doubles_nothing(tmp_path: Path, seed: int) -> None:
    rng = random.Random(seed)
    # Before the first acknowledgement too: while the store itself is made.
    faults = ["after_sync:1", "before_committed:1", *(f"{point}:{rng.randint(1, 2)}" for point in POINTS)]
    assert kill_and_finish(tmp_path, faults, 12, seed=seed) == IDS


def torn_copies(tmp_path: Path) -> tuple[Path, list[str], set[str]]:
    """Return a store cut off in the middle of a commit, the files that may be torn, its acknowledged keys."""
    folder = tmp_path / "store"
    store = make_store(folder, IDS[:20], batch=5)
    with store.lease():
        store.delete(IDS[:2])
    acked = set(store.metadata()["image_id"].to_pylist())
    committed = (folder / "COMMITTED").read_bytes()
    before = {p: p.read_bytes() for p in folder.rglob("*") if p.is_file()}
    with store.lease():
        store.commit(make_rows(store, IDS[17:25]))  # some present, some new
    (folder / "COMMITTED").write_bytes(committed)
    changed = [p for p in sorted(folder.rglob("*")) if p.is_file() and before.get(p) != p.read_bytes()]
    return folder, [p.relative_to(folder).as_posix() for p in changed], acked


def check_torn(folder: Path, torn: dict[str, int], acked: set[str]) -> None:
    for name, size in torn.items():
        (folder / name).write_bytes((folder / name).read_bytes()[:size])
    version = read_committed(folder).version  # type: ignore[union-attr]
    for attempt in range(2):
        try:
            store = Store.open(folder)
            with store.lease():  # brings the store to its head
                pass
            break
        except CorruptStore:
            assert attempt == 0, f"{torn}: still damaged after repair"
            assert not repair_store(folder).removed, f"{torn}"
    assert store.version >= version, f"{torn}"
    rows = set(store.metadata()["image_id"].to_pylist())
    assert acked <= rows, f"{torn}"
    with store.lease():
        todo = [i for i in IDS if i not in rows]
        store.commit(make_rows(store, todo))
    report = verify_store(folder)
    if not report.ok:  # a shard of a row that was never acknowledged
        assert set(repair_store(folder).removed) <= set(IDS) - acked, f"{torn}: {report}"
    store = Store.open(folder)
    stored = contents(store)
    assert acked <= {key for key, values in stored.items() if values[-1] is not None}, f"{torn}"


@pytest.mark.long
def test_store_torn_by_a_power_cut_keeps_every_acknowledged_row(tmp_path: Path) -> None:
    folder, changed, acked = torn_copies(tmp_path)
    kinds = {name.split("/")[-2] if "/" in name else name for name in changed}
    assert {"data", "_versions", "_deletions", "features", "SHA256SUMS"} <= kinds
    sizes = {name: (folder / name).stat().st_size for name in changed}
    cases: list[dict[str, int]] = [{}]
    for cut in (lambda size: 0, lambda size: size // 2, lambda size: max(0, size - 1)):
        cases += [{name: cut(sizes[name])} for name in changed]
        cases.append({name: cut(sizes[name]) for name in changed})
    for number, torn in enumerate(cases):
        copy = tmp_path / f"torn{number}"
        shutil.copytree(folder, copy)
        check_torn(copy, torn, acked)
        shutil.rmtree(copy)


def test_store_create_interrupted_is_finished_by_the_next_create(tmp_path: Path) -> None:
    for point in ("after_sync", "before_committed"):
        code, _ = run_child(tmp_path / point, fault=point)
        assert code == -signal.SIGKILL
        with pytest.raises(StoreNotFound):
            Store.open(tmp_path / point)
        store = Store.create(tmp_path / point, make_card())
        assert (store.count, store.verify().ok) == (0, True)


@pytest.mark.skipif(shutil.which("strace") is None, reason="needs strace")
@pytest.mark.fault
def test_commit_brings_data_before_manifest_before_committed_to_disk(tmp_path: Path) -> None:
    make_store(tmp_path / "s")
    trace = tmp_path / "trace"
    calls = "trace=openat,fsync,rename,renameat2"
    command = ["strace", "-f", "-y", "-e", calls, "-o", str(trace), sys.executable, "-c", CHILD]
    subprocess.run([*command, str(tmp_path / "s")], check=True, capture_output=True)
    synced = [line for line in trace.read_text().splitlines() if "fsync(" in line]
    kinds = ["/data/", "/_versions/", "SHA256SUMS", "COMMITTED"]
    order = [next(k for k in kinds if k in line) for line in synced if any(k in line for k in kinds)]
    assert order == kinds * len(BATCHES)
