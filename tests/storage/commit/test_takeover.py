"""A writer that was paused, lost its lease to another, and wakes up: it commits nothing."""

from __future__ import annotations

import contextlib
import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from storage.card import Card
from storage.commit import acknowledgement, leases, writer
from storage.commit.bucket_lease import BucketLease
from storage.errors import StoreLocked
from storage.objects.bucket_path import BucketPath
from storage.store import Store
from tests.support.store_samples import contents, descriptor_of, index_parts, make_card, make_rows

# Its lease never notices that it is lost: only the bucket's own conditions are left to stop it.
WRITER = """
import sys
from storage.commit import leases
from storage.commit.bucket_lease import BucketLease
from storage.errors import StoreLocked
from storage.store import Store
from tests.support.store_samples import index_parts, make_rows
leases.BucketLease = lambda location, *, timeout_s: BucketLease(
    location, timeout_s=timeout_s, heartbeat_s=1e6, dead_after_s=1e6)
store = Store.open(sys.argv[1])
print("open", flush=True)
try:
    with store.lease():
        for batch in range(1000):
            rows = make_rows(store, [f"{sys.argv[2]}-{batch}-{i}" for i in range(3)] + ["shared"], batch)
            store.commit(rows)
            print("acked", batch, flush=True)
            if sys.argv[3] == "versions":
                store.tag_version("mine")
                store.commit(make_rows(store, ["undone"], batch))
                store.roll_back("mine")
                store.build_index(min_rows=0)
                store.use_segments(index_parts(store))
except StoreLocked as error:
    print("locked", flush=True)
except Exception as error:
    print(type(error).__name__, str(error).split("\\n")[0], flush=True)
"""


def pause_and_take_over(uri: str, turn: int, wait_s: float, what: str) -> tuple[list[str], list[str]]:
    """Stop a writer somewhere, write as another, let it go on; return what each acknowledged."""
    command = [sys.executable, "-c", WRITER, uri, f"a{turn}", what]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as writer:
        assert writer.stdout is not None
        assert writer.stdout.readline() == "open\n"
        assert writer.stdout.readline() == "acked 0\n"
        time.sleep(wait_s)
        os.kill(writer.pid, signal.SIGSTOP)
        try:
            store = Store.open(uri)
            with store.lease():
                store.commit(make_rows(store, [f"b{turn}-{i}" for i in range(3)] + ["shared"], 5000))
                os.kill(writer.pid, signal.SIGCONT)
                rest = writer.communicate(timeout=120)[0].splitlines()
                # Going back passes the fence: the next writer undoes it.
                with nullcontext() if what == "rows" else contextlib.suppress(StoreLocked):
                    store.commit(make_rows(store, ["shared"], 5001))
            with store.lease():
                store.commit(make_rows(store, [f"b{turn}-{i}" for i in range(3, 6)] + ["shared"], 5001))
        finally:
            writer.kill()
    assert rest[-1] == "locked", rest
    acked = [0, *(int(line.split()[1]) for line in rest if line.startswith("acked"))]
    return [f"a{turn}-{n}-{i}" for n in acked for i in range(3)], [f"b{turn}-{i}" for i in range(6)]


def check_rounds(uri: str, rounds: int, what: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def impatient(location: BucketPath, *, timeout_s: float = 0.0) -> BucketLease:
        return BucketLease(location, timeout_s=timeout_s, heartbeat_s=0.4, dead_after_s=2.5)

    monkeypatch.setattr(leases, "BucketLease", impatient)
    Store.create(uri, make_card())
    rng = random.Random(1)
    expected: set[str] = {"shared"}
    for turn in range(rounds):
        first, second = pause_and_take_over(uri, turn, rng.uniform(0.0, 0.4 if what == "rows" else 1.5), what)
        expected |= {*first, *second}
        store = Store.open(uri)
        keys = store.metadata()["image_id"].to_pylist()
        assert len(keys) == len(set(keys)), f"round {turn}: a key twice"
        assert expected <= set(keys), f"round {turn}: acknowledged rows are gone"
        assert store.get(["shared"])[0].uri.endswith("g=5001"), f"round {turn}: the older row is back"
        with pytest.raises(StoreLocked, match="needs the lease"):
            store.commit(make_rows(store, ["x"]))
    assert Store.open(uri).verify().ok


POINTS = ("before_commit", "after_lance", "after_sync", "before_committed")


@pytest.mark.parametrize("point", POINTS)
def test_a_writer_that_goes_on_after_a_takeover_acknowledges_nothing(
    bucket_uri: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, point: str
) -> None:
    """The writer stands still at a point of its commit, while another takes the lease and writes."""
    uri = f"{bucket_uri}&cache_dir={tmp_path}"
    first = Store.create(uri, make_card())
    second = Store.open(uri)
    patience = {"heartbeat_s": 1e6, "dead_after_s": 1e6}

    def lease(location: BucketPath, *, timeout_s: float = 0.0) -> BucketLease:
        return BucketLease(location, timeout_s=timeout_s, **patience)

    monkeypatch.setattr(leases, "BucketLease", lease)
    arrived = False

    def take_over(name: str) -> None:
        nonlocal arrived
        if name == point and not arrived:
            arrived = True
            patience.update(heartbeat_s=0.2, dead_after_s=0.4)
            with second.lease():
                second.commit(make_rows(second, ["b", "shared"], 2))

    with first.lease():
        first.commit(make_rows(first, ["a0", "shared"], 1))
        rows = make_rows(first, ["a1", "shared"], 3)
        for module in (writer, acknowledgement):
            monkeypatch.setattr(module, "fault_point", take_over)
        with pytest.raises(StoreLocked):
            first.commit(rows)
    assert arrived
    store = Store.open(uri)
    keys = sorted(store.metadata()["image_id"].to_pylist())
    # What Lance had committed before the takeover is adopted by the new writer; later nothing is.
    assert keys == (["a0", "b", "shared"] if point == "before_commit" else ["a0", "a1", "b", "shared"])
    assert store.get(["shared"])[0].uri.endswith("g=2")
    assert store.verify().ok


CHANGES: dict[str, Callable[[Store], object]] = {
    "commit": lambda store: store.commit(make_rows(store, ["late"])),
    "upsert": lambda store: store.commit(make_rows(store, ["a0"], 7)),
    "delete": lambda store: store.delete(["a0"]),
    "build_index": lambda store: store.build_index(min_rows=0),
    "use_segments": lambda store: store.use_segments(index_parts(store)),
    "roll_back": lambda store: store.roll_back("first"),
    "tag": lambda store: store.tag_version("first"),
    "new_tag": lambda store: store.tag_version("late"),
    "remove_tag": lambda store: store.remove_tag("first"),
    "compact": lambda store: store.compact(keep_versions_s=0.0, min_age_s=0.0),
    "forget": lambda store: store.forget(["a0"]),
    "relearn": lambda store: store.replace_descriptors(_other_card(store), _described(store)),
    "measured": lambda store: store.write_measured("places.json", {"late": 1}),
}


USUAL = ("commit", "delete", "compact", "roll_back")  # the others take as long and run by `make test-long`


def _other_card(store: Store) -> Card:
    return replace(store.card, descriptor_dtype="float32")


def _described(store: Store) -> list[tuple[list[str], np.ndarray]]:
    keys = store.metadata()["image_id"].to_pylist()
    return [(keys, np.stack([descriptor_of(key, 9) for key in keys]))]


@pytest.mark.parametrize(
    "change",
    [pytest.param(name, marks=[] if name in USUAL else pytest.mark.long) for name in CHANGES],
)
def test_no_change_of_a_writer_passes_a_takeover(
    bucket_uri: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, change: str
) -> None:
    """A writer that never notices that its lease is lost changes nothing, and the other one goes on."""
    uri = f"{bucket_uri}&cache_dir={tmp_path}"
    paused = Store.create(uri, make_card())
    patience = {"heartbeat_s": 1e6, "dead_after_s": 1e6}

    def lease(location: BucketPath, *, timeout_s: float = 0.0) -> BucketLease:
        return BucketLease(location, timeout_s=timeout_s, **patience)

    monkeypatch.setattr(leases, "BucketLease", lease)
    with contextlib.suppress(StoreLocked), paused.lease():
        paused.commit(make_rows(paused, ["a0", "a1"], 1))
        paused.tag_version("first")
        paused.commit(make_rows(paused, ["a2", "shared"], 1))
        patience.update(heartbeat_s=0.2, dead_after_s=0.4)
        other = Store.open(uri)
        with other.lease():
            other.commit(make_rows(other, ["b", "shared"], 2))
            expected = contents(other)
            with pytest.raises(StoreLocked):
                CHANGES[change](paused)
            assert contents(Store.open(uri)) == expected
            if change == "roll_back":  # the one change that passes the fence: nobody adopts it
                with pytest.raises(StoreLocked):
                    other.commit(make_rows(other, ["c"], 3))
        again = Store.open(uri)
        with again.lease():
            again.commit(make_rows(again, ["c"], 3))
            again.tag_version("last")
    store = Store.open(uri)
    assert set(contents(store)) == {*expected, "c"}
    assert {name for each in store.versions() for name in each.tags} == {"first", "last"}
    assert contents(Store.open(uri, at="first")).keys() == {"a0", "a1"}
    assert store.measured("places.json") is None
    assert store.verify().ok


@pytest.mark.slow
@pytest.mark.parametrize("what", ["rows", "versions"])
def test_25_rounds_of_takeover_on_a_real_server(
    seaweed_url: str, credentials: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, what: str
) -> None:
    uri = f"s3://placeray/takeover-{what}?endpoint={seaweed_url}&cache_dir={tmp_path}"
    check_rounds(uri, 25, what, monkeypatch)


def test_committed_carries_the_epoch_of_its_writer(bucket_uri: str) -> None:
    store = Store.create(bucket_uri, make_card())
    with store.lease():
        store.commit(make_rows(store, ["a"]))
    location = store._folder
    assert isinstance(location, BucketPath)
    assert json.loads(location.objects.get("COMMITTED", 4096).data)["epoch"] == 2
