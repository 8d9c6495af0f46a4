"""The Helm chart: what it makes, and what it refuses."""

from __future__ import annotations

import json
import re
import shlex
from pathlib import Path
from typing import Any

import pytest
import yaml

from pipelines.cli.parser import build_parser
from serving.settings import read_settings
from tests.support.deployment_tools import run
from tests.support.kuberay_rules import Documents, of_kind, pods
from tests.support.paths import ROOT
from tests.support.rendered_chart import (
    CHART,
    FULL,
    cel_mistakes,
    group,
    job,
    kubernetes_mistakes,
    mistakes,
    one,
    schema_mistakes,
    service,
    spec,
    template,
)


def test_chart_passes_lint(tmp_path: Path) -> None:
    (tmp_path / "values.yaml").write_text(json.dumps(FULL))
    done = run("helm", "lint", "--strict", CHART, "--values", tmp_path / "values.yaml")
    assert done.returncode == 0, done.stdout


def test_everything_that_the_chart_makes_is_valid(documents: Documents) -> None:
    kinds = [document["kind"] for document in documents]
    assert kinds.count("RayJob") == 2
    assert kinds.count("NetworkPolicy") == 3
    assert {
        "RayService",
        "PodDisruptionBudget",
        "Ingress",
        "ConfigMap",
        "PodMonitor",
        "PrometheusRule",
    } < set(kinds)
    assert schema_mistakes(documents) == []
    assert cel_mistakes(documents) == []
    assert kubernetes_mistakes(documents) == []
    assert mistakes(documents) == []


@pytest.mark.parametrize("cloud", ["eks", "karpenter", "aks"])
def test_every_cloud_keeps_heads_off_spot_nodes(tmp_path: Path, cloud: str) -> None:
    made = template(tmp_path, {**FULL, "cloud": cloud})
    assert mistakes(made) == []
    assert kubernetes_mistakes(made) == []


def test_service_alone_needs_image_cloud_and_store(tmp_path: Path) -> None:
    least = {name: FULL[name] for name in ("image", "cloud", "store")}
    made = template(tmp_path, least)
    assert [item["kind"] for item in of_kind(made, "RayJob", "RayService")] == ["RayService"]
    assert mistakes(made) == schema_mistakes(made) == kubernetes_mistakes(made) == []
    for name in least:
        (tmp_path / "values.yaml").write_text(json.dumps({**least, name: ""}))
        done = run("helm", "template", "city", CHART, "--values", tmp_path / "values.yaml")
        assert done.returncode != 0
        assert f"set {name}: " in done.stderr


@pytest.mark.parametrize(
    "values",
    [
        {"cluod": "gke"},
        {"serve": {"ingress": {"min": 0, "max": 1, "cpus": 1}}},
        {"index": {"enabled": True, "source": "a'; rm -r b"}},
        {"index": {"enabled": True, "source": "/photos", "args": ["--prune\n--all"]}},
        {"index": {"run": "One"}},
        {"rayVersion": "2.47.0"},
        {"serve": {"ingressHost": "places.example.org", "tlsSecret": ""}},
        {"networkPolicy": {"identity": "workloads"}},
        {"cloud": "any", "networkPolicy": {"identity": "workload"}},
    ],
)
def test_values_that_cannot_be_meant_are_refused(tmp_path: Path, values: dict[str, Any]) -> None:
    (tmp_path / "values.yaml").write_text(json.dumps({**FULL, **values}))
    done = run("helm", "template", "city", CHART, "--values", tmp_path / "values.yaml")
    assert done.returncode != 0


@pytest.mark.parametrize(
    ("values", "named"),
    [
        ({"workers": {"cpu": {"max": 1}}}, "workers.cpu.max"),
        ({"workers": {"cpu": {"max": 0}}}, "workers.cpu.max"),
        ({"workers": {"cpu": {"min": 5}}}, "workers.cpu.max"),
        ({"workers": {"gpu": {"min": 1}}}, "workers.gpu.max"),
        ({"serve": {"minWorkers": 5}}, "workers.cpu.max"),
        ({"serve": {"reranker": {"min": 9}}}, "serve.reranker.max"),
        ({"serve": {"searcher": {"max": 1}}}, "serve.searcher.max"),
    ],
)
def test_a_maximum_below_its_minimum_is_refused_by_name(
    tmp_path: Path, values: dict[str, Any], named: str
) -> None:
    least = {name: FULL[name] for name in ("image", "cloud", "store")}
    (tmp_path / "values.yaml").write_text(json.dumps({**least, **values}))
    done = run("helm", "template", "city", CHART, "--values", tmp_path / "values.yaml")
    assert done.returncode != 0
    assert f"set {named} to at least " in done.stderr


def test_a_job_needs_no_more_workers_than_its_own(tmp_path: Path) -> None:
    made = template(tmp_path, {**FULL, "workers": {"cpu": {"max": 1}}, "serve": {"enabled": False}})
    assert (group(made, "cpu")["minReplicas"], group(made, "cpu")["maxReplicas"]) == (0, 1)
    assert mistakes(made) == []


def test_any_cloud_makes_no_difference_between_nodes(tmp_path: Path) -> None:
    made = template(tmp_path, {**FULL, "cloud": "any"})
    assert schema_mistakes(made) == kubernetes_mistakes(made) == []
    assert all("spot" in sentence for sentence in mistakes(made))
    for _, role, pod in pods(made):
        assert "affinity" not in pod["spec"], role
        assert {one["key"] for one in pod["spec"].get("tolerations", [])} <= {"nvidia.com/gpu"}
    assert group(made, "gpu")["template"]["spec"]["tolerations"]


@pytest.mark.parametrize("cloud", ["gke", "eks", "karpenter", "aks", "any"])
def test_head_and_workers_reach_the_bucket_by_the_same_account(tmp_path: Path, cloud: str) -> None:
    """The head commits, the workers read and write features; what submits a job needs neither."""
    made = template(tmp_path, {**FULL, "cloud": cloud, "serviceAccountName": "city-bucket"})
    assert kubernetes_mistakes(made) == []
    for _, role, pod in pods(made):
        account = None if role == "submitter" else "city-bucket"
        assert pod["spec"].get("serviceAccountName") == account, role
        label = pod["metadata"]["labels"].get("azure.workload.identity/use")
        assert label == ("true" if cloud == "aks" and account else None), role
        # The head's autoscaler asks the API server, workers do not.
        assert ("automountServiceAccountToken" in pod["spec"]) == (role != "head")


@pytest.mark.parametrize(
    ("cloud", "identity", "opened"),
    [
        ("gke", "", set()),
        ("gke", "workload", {("169.254.169.254/32", 80), ("169.254.169.252/32", 988)}),
        ("eks", "workload", {("169.254.170.23/32", 80)}),
        ("karpenter", "workload", {("169.254.170.23/32", 80)}),
        ("aks", "workload", set()),
        ("eks", "node", {("169.254.169.254/32", 80)}),
        ("any", "node", {("169.254.169.254/32", 80)}),
    ],
)
def test_servers_of_credentials_are_closed_unless_they_are_used(
    tmp_path: Path, cloud: str, identity: str, opened: set[tuple[str, int]]
) -> None:
    made = template(tmp_path, {**FULL, "cloud": cloud, "networkPolicy": {"identity": identity}})
    assert kubernetes_mistakes(made) == []
    rules = spec(made, "NetworkPolicy", "pods")["egress"]
    found = {
        (target["ipBlock"]["cidr"], port["port"])
        for rule in rules
        for target in rule["to"]
        for port in rule.get("ports", [])
        if target.get("ipBlock", {}).get("cidr", "").startswith("169.254.1")
    }
    assert found == opened
    (storage,) = (rule for rule in rules if {"port": 443, "protocol": "TCP"} in rule.get("ports", []))
    assert storage["to"][0]["ipBlock"] == {"cidr": "0.0.0.0/0", "except": ["169.254.0.0/16"]}


def test_ray_of_the_chart_is_that_of_the_image() -> None:
    values = yaml.safe_load((CHART / "values.yaml").read_text())
    locked = (ROOT / "deploy" / "image" / "constraints.txt").read_text().splitlines()
    (version,) = {line.split("==")[1].split()[0] for line in locked if re.match(r"ray(\[.*\])?==", line)}
    assert values["rayVersion"] == version


def test_settings_of_the_service_are_ours(documents: Documents) -> None:
    config = yaml.safe_load(service(documents)["serveConfigV2"])
    (application,) = config["applications"]
    settings = read_settings(application["args"])
    assert (settings.store, settings.topology, settings.shards) == (FULL["store"], "split", 3)
    named = [deployment["name"] for deployment in application["deployments"]]
    assert named == ["Ingress", "Extractor", "Searcher-0", "Searcher-1", "Searcher-2", "Reranker"]
    assert (
        config["http_options"]["request_timeout_s"] >= settings.request_timeout_s + settings.receive_timeout_s
    )


@pytest.mark.ray
def test_configuration_is_one_of_ray_serve(documents: Documents) -> None:
    from ray.serve.schema import ServeDeploySchema  # a slow import

    ServeDeploySchema.model_validate(yaml.safe_load(service(documents)["serveConfigV2"]))


def test_commands_of_jobs_reach_the_shell_as_words(documents: Documents) -> None:
    words = shlex.split(job(documents)["entrypoint"])
    assert words[:3] == ["python", "-m", "pipelines.index"]
    args = build_parser().parse_args(["index", *words[3:]])
    assert (args.source, args.store, args.trace) == (FULL["index"]["source"], FULL["store"], "$HOME; `id`")
    assert args.gpus_per_extractor == 1  # of nodes that are not there yet
    words = shlex.split(spec(documents, "RayJob", "finetune")["entrypoint"])
    args = build_parser().parse_args(["finetune", *words[3:]])
    assert (args.dataset, args.out, args.gpus_per_worker) == ("/data/city", "/data/out.safetensors", 1)


def test_dashboard_and_alerts_are_those_beside_the_chart(documents: Documents) -> None:
    held = one(documents, "ConfigMap")["data"]["placeray.json"]
    assert json.loads(held) == json.loads((ROOT / "deploy" / "grafana-dashboard.json").read_text())
    assert spec(documents, "PrometheusRule") == yaml.safe_load((ROOT / "deploy" / "alerts.yaml").read_text())
