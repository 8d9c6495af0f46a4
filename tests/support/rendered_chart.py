"""Renders the Helm chart, finds its parts, and checks them by schemas and rules."""

from __future__ import annotations

import json
import warnings
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml
from referencing import Registry, Resource

from tests.support.chart_rules import OWN
from tests.support.deployment_tools import run
from tests.support.kuberay_rules import CONTROLLER, Documents, of_kind
from tests.support.kuberay_schema import CEL_RULES, SCHEMAS, objects_at, templates_of
from tests.support.paths import ROOT

CHART = ROOT / "deploy" / "kubernetes" / "placeray"
KUBERNETES = "1.34.0"
CUSTOM = ("ray.io", "monitoring.coreos.com")  # groups of kinds that are not built in
Change = Callable[[Documents], object]

FULL: dict[str, Any] = {
    "image": "registry.example.org/placeray:0.2.0",
    "cloud": "gke",
    "store": "s3://bucket/city?region=eu-central-1",
    "secrets": {"bucket": "bucket-credentials"},
    "index": {
        "enabled": True,
        "source": "s3://photos/2026 autumn",
        "args": ["--prune", "--trace", "$HOME; `id`"],
    },
    "finetune": {"enabled": True, "dataset": "/data/city", "out": "/data/out.safetensors"},
    "workers": {"gpu": {"max": 4}},
    "serve": {
        "settings": {"shards": 3},
        "ingressHost": "places.example.org",
        "tlsSecret": "places-tls",
        "redis": {"address": "redis:6379", "secret": "redis"},
    },
}


def template(tmp_path: Path, values: dict[str, Any], *flags: str) -> Documents:
    file = tmp_path / "values.yaml"
    file.write_text(json.dumps(values))
    done = run("helm", "template", "city", CHART, "--values", file, *flags)
    assert done.returncode == 0, done.stderr
    return [document for document in yaml.load_all(done.stdout, yaml.CSafeLoader) if document]


@cache
def rendered(folder: Path) -> Documents:
    return template(folder, FULL)


def one(documents: Documents, kind: str, name: str = "") -> dict[str, Any]:
    (found,) = [item for item in of_kind(documents, kind) if name in item["metadata"]["name"]]
    return found


def spec(documents: Documents, kind: str, name: str = "") -> dict[str, Any]:
    return dict(one(documents, kind, name)).setdefault("spec", {})


def job(documents: Documents) -> dict[str, Any]:
    return spec(documents, "RayJob", "index")


def service(documents: Documents) -> dict[str, Any]:
    return spec(documents, "RayService")


def worker(documents: Documents) -> dict[str, Any]:
    """Return the pod of the service's first group of workers."""
    pod: dict[str, Any] = service(documents)["rayClusterConfig"]["workerGroupSpecs"][0]["template"]["spec"]
    return pod


def group(documents: Documents, name: str) -> dict[str, Any]:
    groups = job(documents)["rayClusterSpec"]["workerGroupSpecs"]
    return next(item for item in groups if item["groupName"] == name)


def mistakes(documents: Documents) -> list[str]:
    return [sentence for rule in (*CONTROLLER, *OWN) for sentence in rule(documents)]


def schema_mistakes(documents: Documents) -> list[str]:
    found = []
    for document in documents:
        if document["kind"] in SCHEMAS:
            validator = jsonschema.Draft202012Validator(SCHEMAS[document["kind"]])
            found += [error.message for error in validator.iter_errors(document)]
    return found


def cel_mistakes(documents: Documents) -> list[str]:
    celpy = pytest.importorskip("celpy")
    found = []
    for document in documents:
        for kind, path, text in CEL_RULES:
            for value in objects_at(document, path) if document["kind"] == kind else ():
                environment = celpy.Environment()
                program = environment.program(environment.compile(text))
                if not program.evaluate({"self": celpy.json_to_cel(value)}):
                    found.append(text)
    return found


def kubernetes_mistakes(documents: Documents) -> list[str]:
    """Check built-in kinds, and the pods of Ray's, by the schema of Kubernetes without unknown keys."""
    items = [item for item in documents if item["apiVersion"].split("/")[0] not in CUSTOM]
    for document in documents:
        for role, pod in templates_of(document):
            metadata = {"name": role, **pod.get("metadata", {})}
            items.append({"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": pod["spec"]})
    return [
        f"{item['kind']} {item['metadata']['name']}: {error.message}"
        for item in items
        for error in kubernetes_validator(item["kind"], item["apiVersion"]).iter_errors(item)
    ]


@cache
def kubernetes_validator(kind: str, version: str) -> jsonschema.Draft202012Validator:
    """Return the strict validator of a built-in kind; `kubernetes_validate` makes one for each object."""
    group = version.replace(".k8s.io", "").replace("/", "-")
    schema = kubernetes_schema(f"{kind.lower()}-{group}.json")
    return jsonschema.Draft202012Validator(schema, registry=kubernetes_definitions())


@cache
def kubernetes_definitions() -> Registry[Any]:
    return Resource.from_contents(kubernetes_schema("_definitions.json")) @ Registry()


def kubernetes_schema(name: str) -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        utils = pytest.importorskip("kubernetes_validate.utils")
    return utils.schema_contents(f"kubernetes-json-schema/v{KUBERNETES}-local-strict/{name}", KUBERNETES)
