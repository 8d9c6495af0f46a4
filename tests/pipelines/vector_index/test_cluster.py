"""The index built by two nodes of a Ray cluster, in a folder and in a bucket, by the command."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from storage.search.hits import merge_hits
from storage.search.index_partition import IndexPartition
from storage.search.partition import Partition
from storage.store import Store
from storage.table.index_segments import SEGMENTED_INDEX, index_names
from storage.table.open_table import dataset_of
from tests.support.paths import ROOT
from tests.support.ray_cluster import Nodes, running_nodes
from tests.support.search_samples import seeded_queries
from tests.support.store_samples import DIM, make_rows, make_store

pytestmark = pytest.mark.cluster

IDS = [f"id{i:05d}" for i in range(6000)]
QUERIES = seeded_queries(3, 10, DIM)


@pytest.fixture
def two_nodes(credentials: None) -> Iterator[Nodes]:
    """Nodes that have the credentials of the bucket, as every process of a cluster must."""
    with running_nodes({"num_cpus": 1}, {"num_cpus": 1}) as nodes:
        yield nodes


def run(nodes: Nodes, *arguments: str) -> tuple[dict[str, Any], str]:
    done = subprocess.run(
        [sys.executable, "-m", "pipelines.cli", *arguments, "--json"],
        cwd=ROOT,
        env=nodes.environment,
        capture_output=True,
        text=True,
        timeout=280,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout), done.stderr


@pytest.mark.parametrize("place", ["folder", "bucket"])
def test_two_nodes_build_one_index_that_shards_of_a_service_search(
    place: str, two_nodes: Nodes, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    uri = str(tmp_path / "city")
    if place == "bucket":
        uri = f"{request.getfixturevalue('bucket_uri')}&cache_dir={tmp_path / 'cache'}"
    store = make_store(uri, IDS, batch=1000)
    made, log = run(two_nodes, "build-index", "--store", uri, "--workers", "2")
    assert made["indexed"] is True
    assert made["parts"] >= 2
    assert made["recall_at_100"] >= 0.99
    assert "build-index:" in log
    store.refresh()
    assert index_names(dataset_of(store.table)) == {SEGMENTED_INDEX: 1}
    shards = [IndexPartition(uri, partition=Partition(number, 2), method="lance") for number in range(2)]
    with store.lease():
        store.commit(make_rows(store, ["new0", "new1"]))
    for shard in shards:
        assert shard.refresh()
    exact = store.search(QUERIES, k=10, method="exact")
    answers = zip(*(shard.search(QUERIES, k=10) for shard in shards), strict=True)
    for hits, of_shards in zip(exact, answers, strict=True):
        found = merge_hits(list(of_shards), k=10).hits
        assert {hit.record.image_id for hit in found} == {hit.record.image_id for hit in hits}
    assert store.verify().ok
    assert Store.open(uri).has_index
