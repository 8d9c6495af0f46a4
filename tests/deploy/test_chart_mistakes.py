"""Each rule and schema that checks the chart catches a planted mistake."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest

from tests.support.chart_rules import OWN
from tests.support.kuberay_rules import CONTROLLER, Documents, Rule, of_kind
from tests.support.kuberay_schema import FROZEN, objects_at
from tests.support.rendered_chart import (
    Change,
    cel_mistakes,
    group,
    job,
    kubernetes_mistakes,
    one,
    schema_mistakes,
    service,
    spec,
    worker,
)


def without(value: dict[str, Any], name: str) -> None:
    del value[name]


PLANTED: list[tuple[Rule, Change]] = []


def planted(name: str) -> Callable[[Change], Change]:
    rule = next(rule for rule in (*CONTROLLER, *OWN) if rule.__name__ == name)

    def keep(change: Change) -> Change:
        PLANTED.append((rule, change))
        return change

    return keep


@planted("names_are_short")
def _(made: Documents) -> None:
    one(made, "RayJob", "index")["metadata"]["name"] = "c" * 48


@planted("one_way_of_cleaning_up")
def _(made: Documents) -> None:
    rule = {"policy": "DeleteCluster", "condition": {"jobStatus": "FAILED"}}
    job(made)["deletionStrategy"] = {"deletionRules": [rule]}


@planted("one_way_of_cleaning_up")
def _(made: Documents) -> None:
    job(made)["shutdownAfterJobFinishes"] = False


@planted("resources_are_said_once")
def _(made: Documents) -> None:
    job(made)["rayClusterSpec"]["headGroupSpec"]["resources"] = {"CPU": "0"}


@planted("resources_are_said_once")
def _(made: Documents) -> None:
    group(made, "cpu")["rayStartParams"] = {"labels": "kind=spot"}


@planted("replicas_are_in_order")
def _(made: Documents) -> None:
    group(made, "cpu")["minReplicas"] = 9


@planted("autoscaler_2_restarts_nothing")
def _(made: Documents) -> None:
    worker(made)["restartPolicy"] = "Always"


@planted("token_needs_a_version")
def _(made: Documents) -> None:
    job(made)["rayClusterSpec"]["rayVersion"] = "2.47.1"


@planted("token_needs_a_version")
def _(made: Documents) -> None:
    service(made)["rayClusterConfig"]["authOptions"]["enableK8sTokenAuth"] = True


@planted("retries_fit_the_mode")
def _(made: Documents) -> None:
    job(made)["submissionMode"] = "InteractiveMode"


@planted("retries_fit_the_mode")
def _(made: Documents) -> None:
    job(made)["submissionMode"] = "SidecarMode"


@planted("gates_are_off")
def _(made: Documents) -> None:
    service(made)["rayClusterConfig"]["networkPolicy"] = {"mode": "DenyAll"}


@planted("ray_wants_a_token")
def _(made: Documents) -> None:
    job(made)["rayClusterSpec"]["authOptions"] = {"mode": "disabled"}


@planted("head_runs_no_work")
def _(made: Documents) -> None:
    service(made)["rayClusterConfig"]["headGroupSpec"]["rayStartParams"] = {}


@planted("spot_is_for_workers")
def _(made: Documents) -> None:
    without(job(made)["rayClusterSpec"]["headGroupSpec"]["template"]["spec"], "affinity")


@planted("spot_is_for_workers")
def _(made: Documents) -> None:
    without(worker(made), "tolerations")


@planted("gpus_come_from_zero")
def _(made: Documents) -> None:
    group(made, "gpu").update(replicas=1, minReplicas=1)


@planted("autoscaler_is_version_2")
def _(made: Documents) -> None:
    job(made)["rayClusterSpec"]["autoscalerOptions"]["version"] = "v1"


@planted("containers_have_few_rights")
def _(made: Documents) -> None:
    worker(made)["securityContext"]["runAsNonRoot"] = False


@planted("containers_have_few_rights")
def _(made: Documents) -> None:
    worker(made)["containers"][0]["securityContext"]["capabilities"] = {
        "drop": ["ALL"],
        "add": ["SYS_PTRACE"],
    }


@planted("containers_have_few_rights")
def _(made: Documents) -> None:
    without(worker(made), "automountServiceAccountToken")


@planted("what_is_written_has_room")
def _(made: Documents) -> None:
    worker(made)["volumes"][0]["emptyDir"] = {}


@planted("memory_is_bounded")
def _(made: Documents) -> None:
    without(worker(made)["containers"][0]["resources"], "limits")


@planted("memory_is_bounded")
def _(made: Documents) -> None:
    worker(made)["containers"][0]["resources"]["requests"] = {"cpu": "1", "memory": "1Gi"}


@planted("nodes_are_probed")
def _(made: Documents) -> None:
    without(group(made, "cpu")["template"]["spec"]["containers"][0], "livenessProbe")


@planted("nodes_are_probed")
def _(made: Documents) -> None:
    worker(made)["containers"][0]["readinessProbe"] = worker(made)["containers"][0]["livenessProbe"]


@planted("secrets_are_referred_to")
def _(made: Documents) -> None:
    worker(made)["containers"][0]["env"].append({"name": "PLACERAY_TOKENS", "value": "read:abc"})


@planted("secrets_are_referred_to")
def _(made: Documents) -> None:
    made.append({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "a"}})


@planted("service_has_tokens")
def _(made: Documents) -> None:
    worker(made)["containers"][0]["env"] = []


@planted("upgrade_loses_no_answer")
def _(made: Documents) -> None:
    service(made)["rayClusterDeletionDelaySeconds"] = 10


@planted("upgrade_loses_no_answer")
def _(made: Documents) -> None:
    service(made)["upgradeStrategy"] = {"type": "None"}


@planted("upgrade_loses_no_answer")
def _(made: Documents) -> None:
    without(service(made), "excludeHeadPodFromServeSvc")


@planted("drains_take_one_worker")
def _(made: Documents) -> None:
    spec(made, "PodDisruptionBudget")["selector"]["matchLabels"]["placeray/role"] = "workers"


@planted("pods_are_closed")
def _(made: Documents) -> None:
    spec(made, "NetworkPolicy", "pods")["podSelector"] = {"matchLabels": {"app": "other"}}


@planted("pods_are_closed")
def _(made: Documents) -> None:
    spec(made, "NetworkPolicy", "clients")["ingress"] = [{}]


@planted("pods_are_closed")
def _(made: Documents) -> None:
    without(spec(made, "NetworkPolicy", "clients")["ingress"][0], "ports")


@planted("monitors_find_their_pods")
def _(made: Documents) -> None:
    spec(made, "PodMonitor", "service")["podMetricsEndpoints"][0]["port"] = "http"


@planted("monitors_find_their_pods")
def _(made: Documents) -> None:
    without(spec(made, "PodMonitor", "service")["podMetricsEndpoints"][0], "authorization")


@pytest.mark.parametrize(("rule", "change"), PLANTED, ids=lambda value: getattr(value, "__name__", ""))
def test_a_planted_mistake_is_caught(documents: Documents, rule: Rule, change: Change) -> None:
    assert list(rule(documents)) == []
    change(documents)
    assert list(rule(documents)) != []


def test_every_rule_has_a_planted_mistake() -> None:
    assert {rule for rule, _ in PLANTED} == {*CONTROLLER, *OWN}


def misspelt() -> Iterator[Change]:
    yield lambda made: job(made).update(backofLimit=3)
    yield lambda made: job(made).update(activeDeadlineSeconds=0)
    yield lambda made: service(made).update(rayClusterSpec=service(made)["rayClusterConfig"])
    yield lambda made: group(made, "cpu").update(maxReplica=4)
    yield lambda made: job(made)["rayClusterSpec"]["autoscalerOptions"].update(version=2)
    yield lambda made: job(made)["rayClusterSpec"]["headGroupSpec"].update(rayStartParams={"num-cpus": 0})
    yield lambda made: without(group(made, "cpu"), "groupName")
    yield lambda made: service(made).update(upgradeStrategy={"type": "BlueGreen"})
    yield lambda made: one(made, "RayService").update(apiVersion="ray.io/v1alpha1")


@pytest.mark.parametrize("change", list(misspelt()))
def test_schema_of_kuberay_catches_mistakes(documents: Documents, change: Change) -> None:
    change(documents)
    assert schema_mistakes(documents) != []


def broken_strategies() -> Iterator[dict[str, Any]]:
    rule = {"policy": "DeleteCluster", "condition": {"jobStatus": "FAILED"}}
    policy = {"policy": "DeleteCluster"}
    yield {"onSuccess": policy, "onFailure": policy, "deletionRules": [rule]}
    yield {"onSuccess": policy}
    yield {}
    yield {"deletionRules": [{"policy": "DeleteSelf", "condition": {"ttlSeconds": 5}}]}
    both = {"jobStatus": "FAILED", "jobDeploymentStatus": "Failed"}
    yield {"deletionRules": [rule, {"policy": "DeleteSelf", "condition": both}]}


@pytest.mark.parametrize("strategy", list(broken_strategies()))
def test_rules_in_cel_catch_mistakes(documents: Documents, strategy: dict[str, Any]) -> None:
    job(documents)["deletionStrategy"] = strategy
    assert cel_mistakes(documents) != []
    good = {"deletionRules": [{"policy": "DeleteCluster", "condition": {"jobStatus": "SUCCEEDED"}}]}
    job(documents)["deletionStrategy"] = good
    assert cel_mistakes(documents) == []


@pytest.mark.parametrize(("kind", "path"), [("RayJob", "rayClusterSpec"), ("RayService", "rayClusterConfig")])
def test_rules_in_cel_know_who_may_manage(documents: Documents, kind: str, path: str) -> None:
    held = next(of_kind(documents, kind))["spec"]
    documents.append({"kind": "RayCluster", "metadata": {"name": "alone"}, "spec": held[path] | {}})
    for place in (held, held[path], documents[-1]["spec"]):
        place["managedBy"] = "ray.io/kuberay-operator"
        assert cel_mistakes(documents) == []
        place["managedBy"] = "somebody"
        assert len(cel_mistakes(documents)) == 1
        del place["managedBy"]


def test_rules_in_cel_about_updates_have_nothing_to_compare(documents: Documents) -> None:
    """They may be left out as long as the chart leaves these fields out."""
    for kind, path in FROZEN:
        for document in of_kind(documents, kind):
            assert list(objects_at(document, path)) == []


def broken_kubernetes() -> Iterator[Change]:
    yield lambda made: worker(made)["containers"][0].update(livenesProbe={})
    yield lambda made: worker(made)["containers"][0]["ports"][0].update(containerPort="8000")
    yield lambda made: worker(made)["securityContext"].update(runAsUsr=1)
    yield lambda made: spec(made, "PodDisruptionBudget").update(maxUnavailabel=1)
    yield lambda made: spec(made, "NetworkPolicy", "heads").update(policyType=["Ingress"])
    yield lambda made: spec(made, "Ingress")["rules"][0]["http"]["paths"][0].pop("pathType")


@pytest.mark.parametrize("change", list(broken_kubernetes()))
def test_schema_of_kubernetes_catches_mistakes(documents: Documents, change: Change) -> None:
    change(documents)
    assert kubernetes_mistakes(documents) != []
