"""The service on several nodes: one is lost under load, replicas and stores are changed under load."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from storage.store import Store
from tests.support.pictures import photo, write_photos
from tests.support.query_load import Load
from tests.support.ray_cluster import IndexJob, Nodes, running_nodes
from tests.support.serve_client import LOGGING, serve_started

pytestmark = [pytest.mark.cluster, pytest.mark.ray]

IMAGES, CLIENTS = 40, 3
TWICE = {"min_replicas": 2, "max_replicas": 2, "num_cpus": 0.1}
ONCE = {"min_replicas": 1, "max_replicas": 1, "num_cpus": 0.1}
SPLIT = {"topology": "split", "extractor": TWICE, "searcher": TWICE, "reranker": TWICE}


@pytest.fixture(scope="module")
def nodes() -> Iterator[Nodes]:
    with running_nodes({"num_cpus": 2}, {"num_cpus": 2}) as started:
        yield started


@pytest.fixture(scope="module")
def stores(nodes: Nodes, tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Two stores of the same photos."""
    folder = tmp_path_factory.mktemp("served")
    write_photos(folder / "photos", IMAGES)
    stores = [folder / "first", folder / "second"]
    for store in stores:
        assert IndexJob(nodes, folder / "photos", store).result()["accepted"] == IMAGES
    return stores


@pytest.fixture
def url(nodes: Nodes) -> Iterator[str]:
    import ray

    ray.init(address=nodes.cluster.address, log_to_driver=False, logging_level="ERROR")
    try:
        with serve_started() as started:
            yield started
    finally:
        ray.shutdown()


def deploy(store: Path, **settings: object) -> None:
    """Deploy the service, or change it."""
    from ray import serve

    from serving.app import bind, checked
    from serving.settings import read_settings

    chosen = checked(read_settings({"store": str(store), "tiles": "", **settings}))
    serve.run(bind(chosen, {}), name="placeray", route_prefix="/", logging_config=LOGGING)


def photos() -> list[bytes]:
    return [photo(seed) for seed in range(8)]


def test_changes_under_load_delay_no_answer(url: str, stores: list[Path]) -> None:
    """Another store, then fewer and more replicas: new ones are warm before old ones go."""
    began = time.monotonic()
    deploy(stores[0], **SPLIT)
    start_s = time.monotonic() - began
    with Load(url, photos(), 1, pause_s=0.2) as load:
        load.wait_for_more(10)
        deploy(stores[1], **SPLIT)
        load.wait_for_more(10)
        deploy(stores[1], **{**SPLIT, "reranker": ONCE, "extractor": ONCE})
        load.wait_for_more(10)
    print(f"{len(load.answers)} answers, the slowest after {load.longest_s():.1f} s")
    assert load.statuses() == {200: len(load.answers)}, [a for a in load.answers if a[0] != 200][:5]
    assert load.longest_s() < max(5.0, start_s / 2)  # where old ones go first, answers wait for the start


def test_two_index_runs_and_a_service_share_a_cluster(
    nodes: Nodes, url: str, stores: list[Path], tmp_path: Path
) -> None:
    """Each run ends with all of its photos, while the service answers."""
    deploy(stores[0], **SPLIT)
    with Load(url, photos(), 1, pause_s=0.2) as load:
        load.wait_for_more(5)
        source = stores[0].parent / "photos"
        jobs = [IndexJob(nodes, source, tmp_path / name, "--commit-seconds", "5") for name in "ab"]
        summaries = [job.result() for job in jobs]
        load.wait_for_more(5)
    assert [(one["accepted"], one["rejected"]) for one in summaries] == [(IMAGES, 0)] * 2
    assert [Store.open(tmp_path / name).count for name in "ab"] == [IMAGES] * 2
    assert load.statuses() == {200: len(load.answers)}


def test_a_lost_node_costs_no_more_than_what_it_was_working_on(
    nodes: Nodes, url: str, stores: list[Path]
) -> None:
    deploy(stores[0], **SPLIT, ingress=TWICE)
    with Load(url, photos(), CLIENTS) as load:
        load.wait_for_more(30)
        nodes.kill(0)
        killed = len(load.answers)
        load.wait_for_more(60)
    lost = [answer for answer in load.answers if answer[0] != 200]
    print(
        f"{len(lost)} of {len(load.answers)} answers lost, the slowest after {load.longest_s():.1f} s: {lost}"
    )
    assert len(lost) <= 2 * CLIENTS
    assert all(answer[0] == 200 for answer in load.answers[: killed - CLIENTS] + load.answers[-20:])
