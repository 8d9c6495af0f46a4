"""What KubeRay 1.7 accepts of the kinds that the chart uses: a strict schema, and its CEL rules.

Written from the published reference of `ray.io/v1` and reduced to specifications: no status. Pod templates
(`templates_of`) are left to the schema of Kubernetes. Unknown keys are mistakes everywhere.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

Schema = dict[str, Any]

TEXT: Schema = {"type": "string"}
YES_NO: Schema = {"type": "boolean"}
COUNT: Schema = {"type": "integer", "minimum": 0, "maximum": 2**31 - 1}
POSITIVE: Schema = {**COUNT, "minimum": 1}
TEXTS: Schema = {"type": "object", "additionalProperties": TEXT}
POD: Schema = {"type": "object", "required": ["spec"]}
ANY: Schema = {"type": "object"}
LIST: Schema = {"type": "array", "items": ANY}


def choice(*values: str) -> Schema:
    return {"enum": list(values)}


def fields(required: tuple[str, ...] = (), **properties: Schema) -> Schema:
    return {
        "type": "object",
        "additionalProperties": False,
        "required": list(required),
        "properties": properties,
    }


SECRET = fields(("value",), value=TEXT), fields(("valueFrom",), valueFrom=ANY)
REDIS_CREDENTIAL: Schema = {"oneOf": list(SECRET)}
NETWORK_RULES = fields(ingressRules=LIST, egressRules=LIST)
AUTOSCALER = fields(
    resources=ANY,
    image=TEXT,
    imagePullPolicy=choice("Always", "IfNotPresent", "Never"),
    securityContext=ANY,
    idleTimeoutSeconds=COUNT,
    upscalingMode=choice("Default", "Aggressive", "Conservative"),
    version=choice("v1", "v2"),
    env=LIST,
    envFrom=LIST,
    volumeMounts=LIST,
    command={"type": "array", "items": TEXT},
    args={"type": "array", "items": TEXT},
)
HEAD = fields(
    ("template",),
    template=POD,
    headService=ANY,
    enableIngress=YES_NO,
    ingressOptions=ANY,
    resources=TEXTS,
    labels=TEXTS,
    rayStartParams=TEXTS,
    serviceType=choice("ClusterIP", "NodePort", "LoadBalancer", "ExternalName"),
)
WORKERS = fields(
    ("groupName", "template", "minReplicas", "maxReplicas"),
    suspend=YES_NO,
    groupName=TEXT,
    replicas=COUNT,
    minReplicas=COUNT,
    maxReplicas=COUNT,
    idleTimeoutSeconds=COUNT,
    priority={"type": "integer"},
    resources=TEXTS,
    labels=TEXTS,
    rayStartParams=TEXTS,
    template=POD,
    scaleStrategy=fields(workersToDelete={"type": "array", "items": TEXT}),
    numOfHosts=POSITIVE,
)
CLUSTER = fields(
    ("headGroupSpec",),
    upgradeStrategy=fields(type=choice("Recreate", "None")),
    authOptions=fields(mode=choice("disabled", "token"), secretName=TEXT, enableK8sTokenAuth=YES_NO),
    suspend=YES_NO,
    managedBy=TEXT,
    autoscalerOptions=AUTOSCALER,
    headServiceAnnotations=TEXTS,
    enableInTreeAutoscaling=YES_NO,
    gcsFaultToleranceOptions=fields(
        backend=choice("redis", "rocksdb"),
        redisUsername=REDIS_CREDENTIAL,
        redisPassword=REDIS_CREDENTIAL,
        externalStorageNamespace=TEXT,
        redisAddress=TEXT,
        storage=ANY,
    ),
    networkPolicy=fields(
        mode=choice("DenyAll", "DenyAllIngress", "DenyAllEgress"),
        head=NETWORK_RULES,
        worker=NETWORK_RULES,
        workerGroups=LIST,
    ),
    tlsOptions=fields(enabled=YES_NO),
    headGroupSpec=HEAD,
    rayVersion=TEXT,
    workerGroupSpecs={"type": "array", "items": WORKERS},
)
DELETION_RULE = fields(
    ("policy", "condition"),
    policy=choice("DeleteCluster", "DeleteWorkers", "DeleteSelf", "DeleteNone"),
    condition=fields(
        jobStatus=choice("SUCCEEDED", "FAILED"), jobDeploymentStatus=choice("Failed"), ttlSeconds=COUNT
    ),
)
JOB = fields(
    activeDeadlineSeconds=POSITIVE,
    preRunningDeadlineSeconds=POSITIVE,
    backoffLimit=COUNT,
    rayClusterSpec=CLUSTER,
    submitterPodTemplate=POD,
    metadata=TEXTS,
    clusterSelector=TEXTS,
    submitterConfig=fields(backoffLimit=COUNT),
    managedBy=TEXT,
    deletionStrategy=fields(
        onSuccess=fields(policy=TEXT),
        onFailure=fields(policy=TEXT),
        deletionRules={"type": "array", "minItems": 1, "items": DELETION_RULE},
    ),
    entrypoint=TEXT,
    runtimeEnvYAML=TEXT,
    jobId=TEXT,
    submissionMode=choice("K8sJobMode", "HTTPMode", "InteractiveMode", "SidecarMode"),
    entrypointResources=TEXT,
    entrypointNumCpus={"type": "number"},
    entrypointNumGpus={"type": "number"},
    ttlSecondsAfterFinished=COUNT,
    shutdownAfterJobFinishes=YES_NO,
    suspend=YES_NO,
)
SERVICE = fields(
    ("rayClusterConfig",),
    rayClusterDeletionDelaySeconds=COUNT,
    serveService=ANY,
    upgradeStrategy=fields(
        type=choice("NewCluster", "NewClusterWithIncrementalUpgrade", "None"),
        clusterUpgradeOptions=fields(
            ("stepSizePercent", "intervalSeconds", "gatewayClassName"),
            maxSurgePercent=COUNT,
            stepSizePercent=COUNT,
            intervalSeconds=COUNT,
            gatewayClassName=TEXT,
        ),
    ),
    serveConfigV2=TEXT,
    rayClusterConfig=CLUSTER,
    excludeHeadPodFromServeSvc=YES_NO,
    managedBy=TEXT,
)


def manifest(kind: str, spec: Schema) -> Schema:
    return fields(
        ("apiVersion", "kind", "metadata", "spec"),
        apiVersion={"const": "ray.io/v1"},
        kind={"const": kind},
        metadata=fields(("name",), name=TEXT, namespace=TEXT, labels=TEXTS, annotations=TEXTS),
        spec=spec,
    )


SCHEMAS = {
    "RayCluster": manifest("RayCluster", CLUSTER),
    "RayJob": manifest("RayJob", JOB),
    "RayService": manifest("RayService", SERVICE),
}

MANAGERS = "self.managedBy in ['ray.io/kuberay-operator', 'kueue.x-k8s.io/multikueue']"
# Kind, path of the object that the rule is about, the rule in CEL. KubeRay 1.7 publishes 17 rules: 9 of
# RayJob, 5 of RayService, 3 of RayCluster; the first two repeat those of the cluster that they hold. Here are
# the 9 of what a manifest says. The other 8 are of updates alone (`self == oldSelf`): what FROZEN names never
# changes. A manifest has no former one to be compared with, and the chart sets none of these fields.
CEL_RULES = (
    (
        "RayJob",
        ("spec", "deletionStrategy"),
        "!(has(self.deletionRules) && (has(self.onSuccess) || has(self.onFailure)))",
    ),
    (
        "RayJob",
        ("spec", "deletionStrategy"),
        "has(self.deletionRules) || (has(self.onSuccess) && has(self.onFailure))",
    ),
    (
        "RayJob",
        ("spec", "deletionStrategy", "deletionRules", "*", "condition"),
        "!(has(self.jobStatus) && has(self.jobDeploymentStatus))",
    ),
    (
        "RayJob",
        ("spec", "deletionStrategy", "deletionRules", "*", "condition"),
        "has(self.jobStatus) || has(self.jobDeploymentStatus)",
    ),
    ("RayJob", ("spec",), f"!has(self.managedBy) || {MANAGERS}"),
    ("RayJob", ("spec", "rayClusterSpec"), f"!has(self.managedBy) || {MANAGERS}"),
    ("RayService", ("spec",), f"!has(self.managedBy) || {MANAGERS}"),
    ("RayService", ("spec", "rayClusterConfig"), f"!has(self.managedBy) || {MANAGERS}"),
    ("RayCluster", ("spec",), f"!has(self.managedBy) || {MANAGERS}"),
)
FROZEN = (
    ("RayJob", ("spec", "managedBy")),
    ("RayJob", ("spec", "rayClusterSpec", "managedBy")),
    ("RayJob", ("spec", "rayClusterSpec", "gcsFaultToleranceOptions", "backend")),
    ("RayService", ("spec", "managedBy")),
    ("RayService", ("spec", "rayClusterConfig", "managedBy")),
    ("RayService", ("spec", "rayClusterConfig", "gcsFaultToleranceOptions", "backend")),
    ("RayCluster", ("spec", "managedBy")),
    ("RayCluster", ("spec", "gcsFaultToleranceOptions", "backend")),
)


def objects_at(value: Any, path: tuple[str, ...]) -> Iterator[Any]:
    """Yield what lies at a path; `*` stands for each entry of a list."""
    if not path:
        yield value
    elif path[0] == "*":
        for entry in value:
            yield from objects_at(entry, path[1:])
    elif path[0] in value:
        yield from objects_at(value[path[0]], path[1:])


def cluster_of(document: dict[str, Any]) -> dict[str, Any] | None:
    """Return the specification of the Ray cluster in a manifest; None: it has none."""
    spec = document.get("spec", {})
    return {
        "RayCluster": spec,
        "RayJob": spec.get("rayClusterSpec"),
        "RayService": spec.get("rayClusterConfig"),
    }.get(document["kind"])


def templates_of(document: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield the role and the pod template of each pod of a manifest: head, worker or submitter."""
    cluster = cluster_of(document)
    if cluster is not None:
        yield "head", cluster["headGroupSpec"]["template"]
        for group in cluster.get("workerGroupSpecs", []):
            yield "worker", group["template"]
    if "submitterPodTemplate" in document.get("spec", {}):
        yield "submitter", document["spec"]["submitterPodTemplate"]
