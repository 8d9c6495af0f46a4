"""What a Ray cluster has, what of it is free, who holds the rest, and which nodes it has lost."""

from __future__ import annotations

import socket
from collections import defaultdict
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

from storage.text import plain

__all__ = ["OTHERS", "SERVE", "THIS_JOB", "Cluster", "Node"]

THIS_JOB, SERVE, OTHERS = "this job", "Serve", "others"

_PROBES, _PROBE_S = 32, 1.0
_DRAINED_IDLE = 4  # NodeDeathInfo.AUTOSCALER_DRAIN_IDLE: removed by the autoscaler since nothing ran on it


@dataclass(frozen=True)
class Node:
    """A node that is alive.

    Attributes:
        node_id: Ray's hexadecimal id.
        name: Name or address, for people.
        total: Its resources by name.
        free: What of them nothing holds.
        labels: Its labels.
    """

    node_id: str
    name: str
    total: Mapping[str, float]
    free: Mapping[str, float]
    labels: Mapping[str, str]


class Cluster:
    """The cluster that `ray` is connected to.

    Args:
        ray: The connected `ray` module.
    """

    def __init__(self, ray: Any) -> None:
        self._ray = ray
        self._alive: dict[str, str] = {}
        self.lost_nodes()  # nodes lost before this job are none of its business

    def nodes(self) -> list[Node]:
        """Return the nodes that are alive."""
        from ray._private import state  # the public API has sums over all nodes only

        free = state.state.available_resources_per_node()  # type: ignore[no-untyped-call]
        return [
            Node(
                node_id=node["NodeID"],
                name=_name(node),
                total=node["Resources"],
                free=free.get(node["NodeID"], {}),
                labels=node.get("Labels") or {},
            )
            for node in self._ray.nodes()
            if node["Alive"]
        ]

    def free_total(self, resource: str) -> float:
        """Return how much of a resource nothing holds, on all nodes."""
        return sum(node.free.get(resource, 0.0) for node in self.nodes())

    def lost_nodes(self) -> list[str]:
        """Return the names of the nodes that died since the last call.

        A node that the autoscaler removed while it was idle is not lost.
        """
        lost = []
        for node in self._ray.nodes():
            if node["Alive"]:
                self._alive[node["NodeID"]] = _name(node)
            elif self._alive.pop(node["NodeID"], None) and node.get("DeathReason") != _DRAINED_IDLE:
                lost.append(_name(node))
        return lost

    def silent_nodes(self) -> list[str]:
        """Return the names of the nodes that Ray takes for alive and that accept no connection.

        Ray gives up a node after some health checks, 10 to 25 s after its end. None where no node can be
        reached: this process is not in the cluster's network.
        """
        nodes = [node for node in self._ray.nodes() if node["Alive"]]
        with ThreadPoolExecutor(_PROBES) as pool:
            answers = list(pool.map(_answers, nodes))
        return (
            [_name(node) for node, one in zip(nodes, answers, strict=True) if not one] if any(answers) else []
        )

    @property
    def alive(self) -> int:
        """Number of nodes that were alive at the last look."""
        return len(self._alive)

    def holders(self, resource: str) -> dict[str, float]:
        """Return who holds how much of a resource: `Serve`, `this job`, `job <id>` or `others`.

        Only actors can be told apart; tasks and placement groups count as `others`.
        """
        held: dict[str, float] = defaultdict(float)
        mine = self._ray.get_runtime_context().get_job_id()
        for actor in _actors("ALIVE"):
            amount = dict(actor.required_resources).get(resource, 0.0)
            if actor.ray_namespace == "serve":
                held[SERVE] += amount
            else:
                job = actor.job_id.hex()
                held[THIS_JOB if job == mine else f"job {job}"] += amount
        total = sum(node.total.get(resource, 0.0) - node.free.get(resource, 0.0) for node in self.nodes())
        held[OTHERS] = total - sum(held.values())
        return {name: amount for name, amount in held.items() if amount > 0.005}

    def unplaced_actors(self) -> list[dict[str, float]]:
        """Return what each actor of this job takes that waits for a node with room."""
        mine = self._ray.get_runtime_context().get_job_id()
        return [
            dict(actor.required_resources)
            for state in ("PENDING_CREATION", "RESTARTING")
            for actor in _actors(state)
            # An actor that is restarted keeps the address of the node that was lost.
            if actor.job_id.hex() == mine and actor.address.node_id.hex() not in self._alive
        ]

    def shortage(self, needs: Sequence[Mapping[str, float]]) -> str:
        """Return what workers wait for, such as `waiting for 1.0 CPU, 0 free (Serve holds 2.0)`."""
        needed: dict[str, float] = defaultdict(float)
        for resources in needs:
            for name, amount in resources.items():
                needed[name] += amount
        nodes = self.nodes()
        free = {name: sum(node.free.get(name, 0.0) for node in nodes) for name in needed}
        short = [name for name in needed if free[name] + 1e-6 < needed[name]]
        parts = []
        for name in short or ["CPU"]:
            held = sorted(self.holders(name).items(), key=lambda item: -item[1])
            verbs = {OTHERS: "hold"}
            who = ", ".join(f"{one} {verbs.get(one, 'holds')} {amount:.1f}" for one, amount in held)
            text = f"{needed[name]:.1f} {name}, {round(free[name], 1):g} free"
            parts.append(text + (f" ({who})" if who else ""))
        spread = "" if short else ", but on no node enough for one worker"
        return f"waiting for {'; '.join(parts)}{spread}"


def _answers(node: Mapping[str, Any]) -> bool:
    """Return whether a node's raylet accepts a connection."""
    try:
        address = (str(node["NodeManagerAddress"]), int(node["NodeManagerPort"]))
        socket.create_connection(address, timeout=_PROBE_S).close()
    except OSError:
        return False
    return True


def _name(node: Mapping[str, Any]) -> str:
    """Return the name that an operator knows a node by: the one given to `ray start`, or its address."""
    address = str(node.get("NodeManagerAddress", "?"))
    named = str(node.get("NodeName") or address)
    return plain(f"{named} ({node['NodeID'][:8]})")


def _actors(state_name: str) -> list[Any]:
    """Return the table rows of actors in a state.

    The state API has them too, but only through the dashboard, which a cluster may run without.
    """
    from ray._private import state
    from ray.core.generated import gcs_pb2

    read = vars(gcs_pb2)["ActorTableData"].FromString

    table = state.state._connect_and_get_accessor().get_actor_table(None, state_name)
    return [read(row) for row in table]
