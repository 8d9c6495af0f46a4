"""Index runs on clusters of several raylets that lose nodes, are full, or grow."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from storage.store import Store
from tests.support.pictures import write_photos
from tests.support.ray_autoscaling import autoscaling_head
from tests.support.ray_cluster import IndexJob, Nodes, hold_cpus, running_nodes

pytestmark = pytest.mark.cluster

MANY = 640  # more than what makes a run long, with actors that decode
SMALL_STEPS = ("--batch-size", "16", "--commit-every", "64", "--commit-seconds", "5")


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("many") / "photos"
    write_photos(folder, MANY)
    return folder


@pytest.fixture
def few(tmp_path: Path) -> Path:
    write_photos(tmp_path / "few", 17)
    return tmp_path / "few"


def nodes_of(cores: float, count: int) -> list[dict[str, Any]]:
    return [{"num_cpus": cores} for _ in range(count)]


@pytest.fixture
def two_small_nodes() -> Iterator[Nodes]:
    with running_nodes(*nodes_of(1, 2)) as nodes:
        yield nodes


def check_store(store: Path, photos: Path) -> None:
    """Every photo is stored once, and everything can be read back."""
    opened = Store.open(store)
    keys = Counter(opened.metadata()["image_id"].to_pylist())
    assert set(keys) == {path.name for path in photos.iterdir()}
    assert set(keys.values()) == {1}
    assert opened.verify().ok


def check_summary(summary: dict[str, Any], *, images: int, lost: int) -> None:
    assert (summary["input"], summary["accepted"], summary["rejected"]) == (images, images, 0)
    assert summary["nodes_lost"] == lost


def lost_lines(job: IndexJob) -> list[str]:
    return [line for line in job.lines if "lost node" in line]


def check_quiet(job: IndexJob) -> None:
    """The log speaks of the run alone: no dumps of raylets."""
    expected = ("index: ", "this Ray cluster runs without authentication")
    assert [line for line in job.lines if line.strip() and not line.startswith(expected)] == []


def test_a_full_cluster_of_one_core_nodes_loses_one(
    two_small_nodes: Nodes, photos: Path, tmp_path: Path
) -> None:
    """What Ray restarts does not fit the node that is left: the run continues with less."""
    job = IndexJob(two_small_nodes, photos, tmp_path / "store", *SMALL_STEPS)
    job.wait_for_rows(64)
    two_small_nodes.kill()
    summary = job.result()
    check_summary(summary, images=MANY, lost=1)
    check_store(tmp_path / "store", photos)
    assert len(lost_lines(job)) == 1
    assert re.search(r"lost node .*; 2 nodes are left; \d+ of 640 images done, \d+ committed; what", job.log)
    check_quiet(job)


def test_three_nodes_lose_two_and_the_driver_stays(photos: Path, tmp_path: Path) -> None:
    with running_nodes(*nodes_of(1, 3)) as nodes:
        job = IndexJob(nodes, photos, tmp_path / "store", *SMALL_STEPS)
        job.wait_for_rows(64)
        nodes.kill(0)
        job.wait_for_line("lost node")
        job.wait_for_rows(job.committed() + 64)
        nodes.kill(0)
        summary = job.result()
    check_summary(summary, images=MANY, lost=2)
    check_store(tmp_path / "store", photos)
    assert len(lost_lines(job)) == 2
    check_quiet(job)


def test_a_lost_head_and_the_same_command_on_a_new_cluster(photos: Path, tmp_path: Path) -> None:
    """What a RayJob with a backoffLimit does: another cluster, the same command."""
    with running_nodes(*nodes_of(1, 2)) as nodes:
        job = IndexJob(nodes, photos, tmp_path / "store", *SMALL_STEPS)
        job.wait_for_rows(64)
        job.kill()
    before = Store.open(tmp_path / "store").count
    with running_nodes(*nodes_of(1, 2)) as nodes:
        again = IndexJob(nodes, photos, tmp_path / "store", *SMALL_STEPS)
        summary = again.result()
    check_summary(summary, images=MANY, lost=0)
    assert summary["unchanged"] == before >= 64
    check_store(tmp_path / "store", photos)


def test_cores_that_another_job_holds_are_waited_for(
    two_small_nodes: Nodes, few: Path, tmp_path: Path
) -> None:
    with hold_cpus(two_small_nodes, [1, 1]):
        stalled = IndexJob(two_small_nodes, few, tmp_path / "none", "--stall-timeout", "5")
        waiting = IndexJob(two_small_nodes, few, tmp_path / "store")
        stalled.result(code=8)
        needs = r"waiting for 1\.0 CPU, 0 free \(job \w+ holds 1\.0, job \w+ holds 1\.0\)"
        assert re.search(rf"nothing moved for \d+ s: {needs}; 0 images are committed and stay", stalled.log)
        waiting.wait_for_line(f"index: nothing moved for 30 s: {needs}; 0 of 17 images done, 0 committed")
    summary = waiting.result()
    check_summary(summary, images=17, lost=0)
    assert summary["waited_s"] > 20
    check_store(tmp_path / "store", few)


def test_extractors_go_to_gpus_and_decoders_to_labelled_nodes(photos: Path, tmp_path: Path) -> None:
    workers = ({"num_cpus": 1, "num_gpus": 1}, {"num_cpus": 1, "labels": {"kind": "cpu"}})
    trace = tmp_path / "trace"
    with running_nodes(*workers) as nodes:
        raylet_of = {node.node_id: number for number, node in enumerate(nodes.workers)}
        flags = ("--decoder-labels", "kind=cpu", "--trace", str(trace), *SMALL_STEPS)
        check_summary(IndexJob(nodes, photos, tmp_path / "store", *flags).result(), images=MANY, lost=0)
    spans = [json.loads(line) for line in trace.read_text().splitlines()]
    places = {
        stage: {raylet_of.get(span["node"]) for span in spans if span["stage"] == stage}
        for stage in ("decode", "extract")
    }
    assert places == {"decode": {1}, "extract": {0}}
    check_store(tmp_path / "store", photos)


def test_two_runs_and_another_job_all_end(photos: Path, tmp_path: Path) -> None:
    with running_nodes(*nodes_of(2, 2)) as nodes, hold_cpus(nodes, [1]):
        jobs = [IndexJob(nodes, photos, tmp_path / f"store{i}", *SMALL_STEPS) for i in range(2)]
        for job in jobs:
            check_summary(job.result(), images=MANY, lost=0)
    for i in range(2):
        check_store(tmp_path / f"store{i}", photos)


def test_an_autoscaler_starts_nodes_for_a_run_and_stops_them_after_it(photos: Path, tmp_path: Path) -> None:
    with autoscaling_head(tmp_path, worker={"CPU": 1}, most=2) as head:
        assert head.workers() == 0
        job = IndexJob(head, photos, tmp_path / "store", *SMALL_STEPS)
        summary = job.result()
        head.wait_for_workers(0)
    check_summary(summary, images=MANY, lost=0)
    assert summary["waited_s"] > 0
    check_store(tmp_path / "store", photos)
