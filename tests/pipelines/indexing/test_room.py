"""What a cluster lacks, in words, and when it offers enough more for a new flow."""

from __future__ import annotations

import socket
from types import SimpleNamespace

import pytest

from pipelines.indexing import room
from pipelines.indexing.cluster import Cluster, Node
from pipelines.indexing.plan import Plan, Request
from pipelines.indexing.room import Growth

MINUTE = 60.0


class SmallCluster(Cluster):
    """Nodes and holders as the test gives them."""

    def __init__(self, *free: float, held: dict[str, float] | None = None) -> None:
        self.free, self.held = list(free), held or {}

    def nodes(self) -> list[Node]:
        return [
            Node(str(i), f"node {i}", {"CPU": 4.0}, {"CPU": free}, {}) for i, free in enumerate(self.free)
        ]

    def holders(self, resource: str) -> dict[str, float]:
        return self.held if resource == "CPU" else {}


@pytest.mark.parametrize(
    ("cluster", "needs", "text"),
    [
        (SmallCluster(0.0, held={"Serve": 2.0}), [0.5, 0.4, 0.1], "1.0 CPU, 0 free (Serve holds 2.0)"),
        (
            SmallCluster(0.25, 0.2, held={"others": 0.6, "job 02000000": 3.0}),
            [1.0],
            "1.0 CPU, 0.5 free (job 02000000 holds 3.0, others hold 0.6)",
        ),
        (SmallCluster(0.6, 0.6), [1.0], "1.0 CPU, 1.2 free, but on no node enough for one worker"),
    ],
)
def test_a_shortage_names_what_is_free_and_who_holds_the_rest(
    cluster: SmallCluster, needs: list[float], text: str
) -> None:
    assert cluster.shortage([{"CPU": need} for need in needs]) == f"waiting for {text}"


def test_a_missing_gpu_is_named_alone() -> None:
    assert SmallCluster(4.0).shortage([{"CPU": 0.5, "GPU": 1.0}]) == "waiting for 1.0 GPU, 0 free"


class Flow:
    """A flow of one node that has run for some time."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, *, images: int = 10_000, extractors: int = 2) -> None:
        self.now = 0.0
        monkeypatch.setattr(room, "time", SimpleNamespace(monotonic=lambda: self.now))
        self.cluster = SmallCluster(2.0)
        plan = Plan(Request("model", 100), extractors, 0.5, 0.0, 2, 1, 1, 64)
        self.growth = Growth(self.cluster, plan, images)
        self.cluster.free, self.cluster.held = [0.0], {"this job": 2.0}

    def can_grow(self, written: int, *, after_s: float = MINUTE, **request: float) -> bool:
        self.now += after_s
        return self.growth.possible(Request("model", 100, **request), written)  # type: ignore[arg-type]


def test_a_flow_grows_when_a_node_comes(monkeypatch: pytest.MonkeyPatch) -> None:
    flow = Flow(monkeypatch)
    assert not flow.can_grow(500)
    flow.cluster.free = [0.0, 2.0]
    assert not flow.can_grow(600, after_s=1.0)  # too soon after the last look
    assert flow.can_grow(600)


def test_a_flow_does_not_grow_without_need(monkeypatch: pytest.MonkeyPatch) -> None:
    flow = Flow(monkeypatch)
    flow.cluster.free = [0.0, 2.0]
    assert not flow.can_grow(0)  # it has hardly started
    assert not flow.can_grow(500, extractors=2)
    assert not flow.can_grow(500, cpus=2.0)
    assert not flow.can_grow(9_990)  # it is nearly done
    flow.cluster.free = [0.5]  # idle decoders have been stopped
    flow.cluster.held = {"this job": 1.5}
    assert not flow.can_grow(500)
    short = Flow(monkeypatch, images=100)
    short.cluster.free = [0.0, 2.0]
    assert not short.can_grow(50)


def test_nodes_that_accept_no_connection_are_named_unless_none_can_be_reached() -> None:
    """Ray takes a node for alive until some health checks have failed."""
    with socket.create_server(("127.0.0.1", 0)) as listening, socket.create_server(("127.0.0.1", 0)) as ended:
        ports = [listening.getsockname()[1], ended.getsockname()[1]]
        nodes = [
            {
                "Alive": True,
                "NodeID": f"{name}{'0' * 8}",
                "NodeName": name,
                "NodeManagerAddress": "127.0.0.1",
                "NodeManagerPort": port,
            }
            for name, port in zip(("first", "second"), ports, strict=True)
        ]
        cluster = Cluster(SimpleNamespace(nodes=lambda: nodes))
        assert cluster.silent_nodes() == []
        ended.close()
        assert cluster.silent_nodes() == ["second (second00)"]
        listening.close()
        assert cluster.silent_nodes() == []
