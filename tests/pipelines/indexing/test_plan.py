"""How an index run divides what is free, and what it does with less."""

from __future__ import annotations

import pytest

from pipelines.indexing.cluster import Node
from pipelines.indexing.plan import Plan, Request, make_plan
from pipelines.placement import Placement, parse_labels, parse_resources

REQUEST = Request("model", row_bytes=44_000)


def node(
    cpus: float, *, free: float | None = None, labels: dict[str, str] | None = None, **other: float
) -> Node:
    total = {"CPU": cpus, **other}
    left = {**total, "CPU": cpus if free is None else free}
    return Node(node_id="0" * 56, name="node", total=total, free=left, labels=labels or {})


def planned(*nodes: Node, request: Request = REQUEST, images: int = 1000) -> Plan:
    plan = make_plan(nodes, request, images=images)
    assert plan is not None
    assert plan.fits(nodes)
    return plan


def test_two_nodes_of_one_core_and_what_is_left_of_them() -> None:
    """The whole of a full cluster is used, and a node less makes the flow smaller instead of stalling it."""
    both = planned(node(1), node(1))
    assert (both.extractors, both.extractor_cpus, both.decoders, both.writers) == (2, 0.5, 2, 1)
    assert not both.fits([node(1)])
    one = planned(node(1))
    assert (one.extractors, one.extractor_cpus, one.decoders, one.writers) == (1, 0.5, 1, 1)


def test_what_others_hold_is_not_planned_with() -> None:
    assert make_plan([node(2, free=0.0)], REQUEST, images=17) is None
    assert make_plan([node(2, free=0.9)], REQUEST, images=17) is None
    beside = planned(node(8, free=2.0))
    assert (beside.extractors, beside.threads) == (2, 1)
    assert sum(worker.resources["CPU"] for worker in beside.workers()) <= 2.0


def test_cores_scattered_over_nodes_count_where_a_worker_fits() -> None:
    assert make_plan([node(4, free=0.3)] * 4, REQUEST, images=1000) is None
    assert planned(*[node(4, free=0.6)] * 4).extractors == 2


def test_the_limits_of_the_user_hold() -> None:
    many = [node(16)] * 2
    assert planned(*many).extractors == 16
    assert planned(*many, images=100).extractors == 1
    assert planned(*many, request=Request("model", row_bytes=44_000, extractors=3)).extractors == 3
    few = planned(*many, request=Request("model", row_bytes=44_000, cpus=2.0))
    assert sum(worker.resources["CPU"] for worker in few.workers()) <= 2.0


def test_extractors_go_to_gpus_and_decoders_to_cores() -> None:
    mixed = [node(2, GPU=1.0), node(2, GPU=1.0), node(8), node(8)]
    plan = planned(*mixed)
    assert (plan.extractors, plan.extractor_gpus, plan.threads) == (2, 1.0, 0)
    assert plan.decoders > 4  # more than the nodes with GPUs have cores for
    assert planned(*mixed, request=Request("model", row_bytes=44_000, gpus_per_extractor=0.5)).extractors == 4
    assert make_plan([node(8, GPU=0.0), node(0, free=0.0, GPU=1.0)][:1], REQUEST, images=1000) is not None


def test_gpus_that_others_hold_are_waited_for() -> None:
    taken = Node("0" * 56, "node", {"CPU": 8.0, "GPU": 1.0}, {"CPU": 8.0}, {})
    assert make_plan([taken], REQUEST, images=1000) is None


def test_labels_and_custom_resources_choose_nodes() -> None:
    nodes = [node(8, labels={"kind": "spot"}), node(2, labels={"kind": "fast"}, camera=1.0)]
    fast = Request("model", row_bytes=44_000, extractor_placement=Placement(labels={"kind": "fast"}))
    assert planned(*nodes, request=fast).extractors == 2
    assert make_plan(nodes[:1], fast, images=1000) is None
    special = Request("model", row_bytes=44_000, extractor_placement=Placement(resources={"camera": 1.0}))
    assert planned(*nodes, request=special).extractors == 1
    elsewhere = Request("model", row_bytes=44_000, decoder_placement=Placement(labels={"kind": "none"}))
    assert make_plan(nodes, elsewhere, images=1000) is None


def test_a_large_cluster_is_planned_quickly() -> None:
    gpus = [node(16, GPU=8.0) for _ in range(64)]
    assert planned(*gpus, images=5_000_000).extractors == 512


@pytest.mark.parametrize("text", ["", "a", "a=", "=1", "CPU=1", "GPU=1", "a=0", "a=-1", "a=nan", "a=x"])
def test_resources_that_ray_would_misread_are_refused(text: str) -> None:
    with pytest.raises(ValueError):
        parse_resources(text)


def test_resources_and_labels_are_read() -> None:
    assert parse_resources("camera=1, disk=0.5") == {"camera": 1.0, "disk": 0.5}
    assert parse_labels("kind=fast,zone=a") == {"kind": "fast", "zone": "a"}
