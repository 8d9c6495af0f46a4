"""What KubeRay's controller refuses beyond its schema, as far as it concerns what the chart can make.

Each rule takes the manifests and yields one sentence per mistake.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from typing import Any

from tests.support.kuberay_schema import cluster_of, templates_of

Documents = list[dict[str, Any]]
Rule = Callable[[Documents], Iterator[str]]

MAX_NAME = 47


def of_kind(documents: Documents, *kinds: str) -> Iterator[dict[str, Any]]:
    return (document for document in documents if document["kind"] in kinds)


def clusters(documents: Documents) -> Iterator[tuple[str, dict[str, Any]]]:
    for document in documents:
        cluster = cluster_of(document)
        if cluster is not None:
            yield document["metadata"]["name"], cluster


def pods(documents: Documents) -> Iterator[tuple[str, str, dict[str, Any]]]:
    """Yield name, role and template."""
    for document in documents:
        for role, template in templates_of(document):
            yield document["metadata"]["name"], role, template


def names_are_short(documents: Documents) -> Iterator[str]:
    for document in of_kind(documents, "RayJob", "RayService"):
        name = document["metadata"]["name"]
        if len(name) > MAX_NAME or not re.fullmatch(r"[a-z]([-a-z0-9]*[a-z0-9])?", name):
            yield f"{name} is no name of at most {MAX_NAME} characters"


def one_way_of_cleaning_up(documents: Documents) -> Iterator[str]:
    for document in of_kind(documents, "RayJob"):
        spec = document["spec"]
        rules = spec.get("deletionStrategy", {}).get("deletionRules")
        if rules and (spec.get("shutdownAfterJobFinishes") or spec.get("ttlSecondsAfterFinished")):
            yield "deletionRules exclude shutdownAfterJobFinishes and ttlSecondsAfterFinished"
        if spec.get("ttlSecondsAfterFinished") and not spec.get("shutdownAfterJobFinishes"):
            yield "ttlSecondsAfterFinished needs shutdownAfterJobFinishes"


def resources_are_said_once(documents: Documents) -> Iterator[str]:
    told = {"num-cpus", "num-gpus", "memory", "resources"}
    for name, cluster in clusters(documents):
        for group in (cluster["headGroupSpec"], *cluster.get("workerGroupSpecs", [])):
            if group.get("resources") and told & set(group.get("rayStartParams", {})):
                yield f"{name}: resources stand in rayStartParams and in resources"
            if "labels" in group.get("rayStartParams", {}):
                yield f"{name}: labels belong in labels, not in rayStartParams"


def replicas_are_in_order(documents: Documents) -> Iterator[str]:
    for name, cluster in clusters(documents):
        for group in cluster.get("workerGroupSpecs", []):
            if (
                not group["minReplicas"]
                <= group.get("replicas", group["minReplicas"])
                <= group["maxReplicas"]
            ):
                yield f"{name}: replicas of {group['groupName']} are not between minimum and maximum"


def autoscaler_2_restarts_nothing(documents: Documents) -> Iterator[str]:
    for name, role, template in pods(documents):
        if role != "submitter" and template["spec"].get("restartPolicy", "Never") != "Never":
            yield f"{name}: with autoscaler v2 pods are never restarted"


def token_needs_a_version(documents: Documents) -> Iterator[str]:
    for name, cluster in clusters(documents):
        version = [int(part) for part in re.findall(r"\d+", cluster.get("rayVersion", "0"))]
        if cluster.get("authOptions", {}).get("mode") == "token" and version < [2, 52]:
            yield f"{name}: token authentication needs a rayVersion of at least 2.52"
        if cluster.get("authOptions", {}).get("enableK8sTokenAuth"):
            yield f"{name}: jobs and services do not support tokens of Kubernetes"


def retries_fit_the_mode(documents: Documents) -> Iterator[str]:
    for document in of_kind(documents, "RayJob"):
        spec = document["spec"]
        if spec.get("backoffLimit") and (
            spec.get("submissionMode") == "InteractiveMode" or spec.get("clusterSelector")
        ):
            yield "retries need a cluster of the job's own, and a mode that submits"
        if spec.get("submissionMode") == "SidecarMode" and (
            "submitterPodTemplate" in spec or "submitterConfig" in spec
        ):
            yield "SidecarMode has no submitter pod"


def gates_are_off(documents: Documents) -> Iterator[str]:
    for name, cluster in clusters(documents):
        for alpha in ("networkPolicy", "tlsOptions"):
            if alpha in cluster:
                yield f"{name}: {alpha} needs a feature gate that is off"
        if cluster.get("gcsFaultToleranceOptions", {}).get("backend") == "rocksdb":
            yield f"{name}: the backend rocksdb needs a feature gate that is off"


CONTROLLER: tuple[Rule, ...] = (
    names_are_short,
    one_way_of_cleaning_up,
    resources_are_said_once,
    replicas_are_in_order,
    autoscaler_2_restarts_nothing,
    token_needs_a_version,
    retries_fit_the_mode,
    gates_are_off,
)
