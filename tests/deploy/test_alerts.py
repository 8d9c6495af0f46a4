"""The alerts for Prometheus: their metrics exist, and they fire when they must."""

from __future__ import annotations

import json
import re
import subprocess
from pathlib import Path

import pytest
import yaml
from prometheus_client.parser import text_string_to_metric_families

from pipelines.indexing.run_metrics import METRICS
from serving.errors import Refusal
from serving.service import Service
from tests.serving.test_metrics import exercised
from tests.support.deployment_tools import run
from tests.support.paths import ROOT

RULES = ROOT / "deploy" / "alerts.yaml"
TESTS = ROOT / "tests" / "deploy" / "alerts_test.yaml"
GUIDE = ROOT / "docs" / "guides" / "operating.md"


def alerts() -> dict[str, str]:
    """Return the expression of each alert by its name."""
    groups = yaml.safe_load(RULES.read_text())["groups"]
    return {rule["alert"]: rule["expr"] for group in groups for rule in group["rules"]}


def exported() -> set[str]:
    """Return every name that the service and, through Ray, index runs export."""
    families = text_string_to_metric_families(exercised().render()[0].decode())
    service = {sample.name for family in families for sample in family.samples}
    return service | {f"ray_{name}" for name in METRICS} | {f"ray_{name}_total" for name in METRICS}


def test_alerts_name_metrics_that_are_exported() -> None:
    named = set(re.findall(r"(?:ray_)?placeray_[a-z_]+", " ".join(alerts().values())))
    assert len(named) >= 8
    assert named <= exported()


def test_alerts_name_labels_that_are_exported() -> None:
    known = {"replica", "instance", "job", "namespace", "store"}
    for family in text_string_to_metric_families(exercised().render()[0].decode()):
        known |= {name for sample in family.samples for name in sample.labels}
    for expression in alerts().values():
        chosen = re.findall(r"(\w+)=~?\"", expression)
        grouped = re.findall(r"(?:by|without|on) \(([^)]*)\)", expression)
        assert {*chosen, *(name for names in grouped for name in re.split(r",\s*", names))} <= known


def test_each_replica_is_counted_once_where_several_addresses_lead_to_it() -> None:
    dashboard = json.loads((ROOT / "deploy" / "grafana-dashboard.json").read_text())
    shown = [target["expr"] for panel in dashboard["panels"] for target in panel["targets"]]
    for expression in (*alerts().values(), *shown):
        counted = re.findall(r"(.{24})(?:rate|increase)\(placeray_", " " * 24 + expression)
        assert all(before == "max without (instance) (" for before in counted), expression


def test_full_queues_are_refused_with_the_reason_that_the_alert_counts() -> None:
    service = Service.__new__(Service)
    service.settings = type("Settings", (), {"max_in_flight": 0})()
    service._in_flight = 0
    with pytest.raises(Refusal) as refused, service._admitted():
        pass
    assert f'reason="{refused.value.reason}"' in alerts()["PlacerayQueueFull"]


def test_every_alert_is_explained_to_the_operator() -> None:
    guide = GUIDE.read_text()
    assert [name for name in alerts() if f"`{name}`" not in guide] == []


def test_rules_are_valid_and_fire_when_they_must(tmp_path: Path) -> None:
    assert outcome_of(tmp_path, RULES.read_text()).returncode == 0
    checked = run("promtool", "check", "rules", RULES)
    assert checked.returncode == 0, checked.stdout + checked.stderr
    cases = yaml.safe_load(TESTS.read_text())["tests"]
    fired = {one["alertname"] for case in cases for one in case["alert_rule_test"] if one.get("exp_alerts")}
    quiet = {
        one["alertname"] for case in cases for one in case["alert_rule_test"] if not one.get("exp_alerts")
    }
    assert fired == quiet == set(alerts())


@pytest.mark.long
def test_a_planted_mistake_in_the_rules_is_caught(tmp_path: Path) -> None:
    rules = RULES.read_text()
    for right, wrong in (
        ("> 0.05", "> 0.5"),  # never fires
        ("> 0.01", ">= 0"),  # always fires
        ("max without (instance) (rate(placeray_degraded", "sum without (job) (rate(placeray_degraded"),
        ("== 1", "== 2"),
        ("for: 15m", "for: 1m"),
        ("placeray_retries_total", "placeray_retry_total"),
    ):
        assert right in rules
        assert outcome_of(tmp_path, rules.replace(right, wrong)).returncode != 0, wrong
    (tmp_path / "broken.yaml").write_text(rules.replace("max by (", "max by ", 1))
    assert run("promtool", "check", "rules", tmp_path / "broken.yaml").returncode != 0


def outcome_of(folder: Path, rules: str) -> subprocess.CompletedProcess[str]:
    """Run the unit tests on rules."""
    (folder / "alerts.yaml").write_text(rules)
    (folder / "tests.yaml").write_text(TESTS.read_text().replace("RULES", str(folder / "alerts.yaml")))
    return run("promtool", "test", "rules", folder / "tests.yaml")
