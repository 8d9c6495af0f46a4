"""What this project promises of the manifests that the chart makes.

Each rule takes the manifests and yields one sentence per mistake.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

import yaml

from tests.support.kuberay_rules import Documents, Rule, clusters, of_kind, pods
from tests.support.kuberay_schema import templates_of

SPOT = {
    "cloud.google.com/gke-spot",
    "eks.amazonaws.com/capacityType",
    "karpenter.sh/capacity-type",
    "kubernetes.azure.com/scalesetpriority",
}


def ray_wants_a_token(documents: Documents) -> Iterator[str]:
    for name, cluster in clusters(documents):
        options = cluster.get("authOptions", {})
        if options.get("mode") != "token" or not options.get("secretName"):
            yield f"{name}: Ray's token authentication is off, or its token is in no secret"


def head_runs_no_work(documents: Documents) -> Iterator[str]:
    for name, cluster in clusters(documents):
        if cluster["headGroupSpec"].get("rayStartParams", {}).get("num-cpus") != "0":
            yield f"{name}: the head takes work"


def spot_is_for_workers(documents: Documents) -> Iterator[str]:
    for name, role, template in pods(documents):
        spec = template["spec"]
        terms = spec.get("affinity", {}).get("nodeAffinity", {})
        terms = terms.get("requiredDuringSchedulingIgnoredDuringExecution", {}).get("nodeSelectorTerms", [])
        found = [one for term in terms for one in term["matchExpressions"] if one["key"] in SPOT]
        wanted = "In" if role == "worker" else "NotIn"
        if [one["operator"] for one in found] != [wanted]:
            yield f"{name}: {role} is not kept {'on' if role == 'worker' else 'off'} spot nodes"
        tolerated = {one["key"] for one in spec.get("tolerations", [])}
        if role == "worker" and not {one["key"] for one in found} <= tolerated:
            yield f"{name}: workers do not tolerate the taint of spot nodes"


def gpus_come_from_zero(documents: Documents) -> Iterator[str]:
    for name, cluster in clusters(documents):
        for group in cluster.get("workerGroupSpecs", []):
            spec = group["template"]["spec"]
            limits = spec["containers"][0]["resources"]["limits"]
            if "nvidia.com/gpu" not in limits:
                continue
            if group["minReplicas"] or group.get("replicas"):
                yield f"{name}: GPUs of {group['groupName']} run without work"
            if "nvidia.com/gpu" not in {one["key"] for one in spec.get("tolerations", [])}:
                yield f"{name}: {group['groupName']} does not tolerate the taint of GPU nodes"


def autoscaler_is_version_2(documents: Documents) -> Iterator[str]:
    for name, cluster in clusters(documents):
        if (
            not cluster.get("enableInTreeAutoscaling")
            or cluster.get("autoscalerOptions", {}).get("version") != "v2"
        ):
            yield f"{name}: autoscaler v2 is off"


def containers_have_few_rights(documents: Documents) -> Iterator[str]:
    for name, role, template in pods(documents):
        spec = template["spec"]
        if not spec.get("securityContext", {}).get("runAsNonRoot"):
            yield f"{name}: {role} may run as root"
        if role != "head" and spec.get("automountServiceAccountToken") is not False:
            yield f"{name}: {role} holds a token of the API server"
        for container in spec["containers"]:
            context = container.get("securityContext", {})
            if not context.get("readOnlyRootFilesystem"):
                yield f"{name}: the root file system of {container['name']} can be written"
            if context.get("allowPrivilegeEscalation") is not False or context.get("capabilities") != {
                "drop": ["ALL"]
            }:
                yield f"{name}: {container['name']} keeps rights"


def what_is_written_has_room(documents: Documents) -> Iterator[str]:
    for name, role, template in pods(documents):
        spec = template["spec"]
        limits = {one["name"]: one.get("emptyDir", {}).get("sizeLimit") for one in spec.get("volumes", [])}
        for container in spec["containers"]:
            mounts = {one["mountPath"]: one["name"] for one in container.get("volumeMounts", [])}
            if "/tmp" not in mounts or not limits.get(mounts["/tmp"]):
                yield f"{name}: {role} has no bounded /tmp"


def memory_is_bounded(documents: Documents) -> Iterator[str]:
    for name, role, template in pods(documents):
        for container in template["spec"]["containers"]:
            resources = container.get("resources", {})
            if not {"cpu", "memory"} <= set(resources.get("limits", {})) & set(resources.get("requests", {})):
                yield f"{name}: {role} has no request or limit"
            elif role != "submitter" and resources["limits"] != resources["requests"]:
                yield f"{name}: {role} is given less than Ray counts on"


def nodes_are_probed(documents: Documents) -> Iterator[str]:
    for document in of_kind(documents, "RayJob", "RayService"):
        name = document["metadata"]["name"]
        for role, template in templates_of(document):
            container = template["spec"]["containers"][0]
            if role == "submitter":
                continue
            for probe in ("startupProbe", "livenessProbe", "readinessProbe"):
                if probe not in container:
                    yield f"{name}: {role} has no {probe}"
            if document["kind"] == "RayService" and role == "worker":
                answer = container.get("readinessProbe", {}).get("httpGet", {})
                if (answer.get("path"), answer.get("port")) != ("/-/healthz", 8000):
                    yield f"{name}: a worker counts as ready without an HTTP proxy"


def secrets_are_referred_to(documents: Documents) -> Iterator[str]:
    if next(of_kind(documents, "Secret"), None):
        yield "a secret stands in the release"
    for name, role, template in pods(documents):
        for container in template["spec"]["containers"]:
            for variable in container.get("env", []):
                if re.search("TOKENS|PASSWORD|SECRET|_KEY", variable["name"]) and "value" in variable:
                    yield f"{name}: {variable['name']} of {role} is no reference to a secret"


def service_has_tokens(documents: Documents) -> Iterator[str]:
    for document in of_kind(documents, "RayService"):
        for role, template in templates_of(document):
            names = {one["name"] for one in template["spec"]["containers"][0].get("env", [])}
            if "PLACERAY_TOKENS" not in names:
                yield f"{document['metadata']['name']}: {role} has no PLACERAY_TOKENS"
            if "RAY_SERVE_HTTP_PROXY_CALLBACK_IMPORT_PATH" not in names:
                yield f"{document['metadata']['name']}: the proxies of {role} have no limits"


def upgrade_loses_no_answer(documents: Documents) -> Iterator[str]:
    for document in of_kind(documents, "RayService"):
        spec, name = document["spec"], document["metadata"]["name"]
        if spec.get("upgradeStrategy", {}).get("type") != "NewCluster":
            yield f"{name}: an upgrade does not start a second cluster first"
        timeout = yaml.safe_load(spec["serveConfigV2"])["http_options"]["request_timeout_s"]
        if spec.get("rayClusterDeletionDelaySeconds", 60) < timeout:
            yield f"{name}: the former cluster is deleted before it has answered"
        if not spec.get("excludeHeadPodFromServeSvc"):
            yield f"{name}: the head takes requests"


def drains_take_one_worker(documents: Documents) -> Iterator[str]:
    budgets = [one["spec"] for one in of_kind(documents, "PodDisruptionBudget")]
    for document in of_kind(documents, "RayService"):
        for role, template in templates_of(document):
            labels = template["metadata"]["labels"].items()
            if role == "worker" and not any(
                budget.get("maxUnavailable") == 1 and budget["selector"]["matchLabels"].items() <= labels
                for budget in budgets
            ):
                yield f"{document['metadata']['name']}: a drain may take all workers"


def pods_are_closed(documents: Documents) -> Iterator[str]:
    policies = [one["spec"] for one in of_kind(documents, "NetworkPolicy")]
    for name, role, template in pods(documents):
        labels = template["metadata"]["labels"].items()
        about = [one for one in policies if one["podSelector"].get("matchLabels", {}).items() <= labels]
        if {"Ingress", "Egress"} - {way for one in about for way in one["policyTypes"]}:
            yield f"{name}: {role} is open to the network"
        for rule in (rule for one in about for rule in one.get("ingress", [])):
            if not rule.get("from"):
                yield f"{name}: everybody reaches {role}"
            elif "ports" not in rule and any("namespaceSelector" in one for one in rule["from"]):
                yield f"{name}: another namespace reaches all ports of {role}"


def monitors_find_their_pods(documents: Documents) -> Iterator[str]:
    everything = [template for _, _, template in pods(documents)]
    for monitor in of_kind(documents, "PodMonitor"):
        name, wanted = monitor["metadata"]["name"], monitor["spec"]["selector"]["matchLabels"].items()
        chosen = [one for one in everything if wanted <= one["metadata"]["labels"].items()]
        for end in monitor["spec"]["podMetricsEndpoints"]:
            ports = {
                port["name"]
                for one in chosen
                for container in one["spec"]["containers"]
                for port in container.get("ports", [])
            }
            if everything and end["port"] not in ports:
                yield f"{name}: no pod has a port {end['port']}"
            if end["port"] == "serve" and not end.get("authorization", {}).get("credentials", {}).get("name"):
                yield f"{name}: /metrics wants a token of the role metrics"


OWN: tuple[Rule, ...] = (
    ray_wants_a_token,
    head_runs_no_work,
    spot_is_for_workers,
    gpus_come_from_zero,
    autoscaler_is_version_2,
    containers_have_few_rights,
    what_is_written_has_room,
    memory_is_bounded,
    nodes_are_probed,
    secrets_are_referred_to,
    service_has_tokens,
    upgrade_loses_no_answer,
    drains_take_one_worker,
    pods_are_closed,
    monitors_find_their_pods,
)
