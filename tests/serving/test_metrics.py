"""What the service counts, and the dashboard that shows it."""

from __future__ import annotations

import json
import re

from prometheus_client.parser import text_string_to_metric_families

from serving.metrics import Metrics
from tests.support.paths import ROOT

DASHBOARD = ROOT / "deploy" / "grafana-dashboard.json"


def exercised() -> Metrics:
    metrics = Metrics("Ingress#1")
    metrics.request("/v1/query", 200, 0.03)
    metrics.request("/v1/query", 200, 0.3)
    metrics.request("/etc/passwd", 404, 0.001)
    metrics.stages({"decode": 2.0, "extract": 40.0, "total": 50.0})
    metrics.batch("extract", 4)
    metrics.queue("extract", 3)
    metrics.error("truncated")
    metrics.error("Something long, with: punctuation")
    metrics.degraded()
    metrics.cache(70, 30)
    metrics.retry("search")
    metrics.store(12, 3456, ready=True)
    return metrics


def samples(metrics: Metrics) -> dict[tuple[str, ...], float]:
    """Value of each sample, by its name and its labels' values without the replica."""
    values = {}
    for family in text_string_to_metric_families(metrics.render()[0].decode()):
        for sample in family.samples:
            assert sample.labels["replica"] == "Ingress#1"
            labels = [f"{k}={v}" for k, v in sorted(sample.labels.items()) if k != "replica"]
            values[(sample.name, *labels)] = sample.value
    return values


def test_metrics_count_what_happened() -> None:
    values = samples(exercised())
    assert values["placeray_request_seconds_count", "route=/v1/query", "status=200"] == 2
    assert values["placeray_request_seconds_bucket", "le=0.05", "route=/v1/query", "status=200"] == 1
    assert values["placeray_stage_seconds_sum", "stage=extract"] == 0.04
    assert values["placeray_batch_size_bucket", "le=2.0", "stage=extract"] == 0
    assert values["placeray_batch_size_bucket", "le=4.0", "stage=extract"] == 1
    assert values["placeray_queue_length", "stage=extract"] == 3
    assert values["placeray_errors_total", "reason=truncated"] == 1
    assert values["placeray_degraded_answers_total",] == 1
    assert values["placeray_feature_cache_hits_total",] == 70
    assert values["placeray_feature_cache_misses_total",] == 30
    assert values["placeray_retries_total", "stage=search"] == 1
    assert values["placeray_store_version",] == 12
    assert values["placeray_index_rows",] == 3456
    assert values["placeray_ready",] == 1


def test_metrics_of_strangers_make_no_new_series() -> None:
    metrics = exercised()
    before = len(samples(metrics))
    for number in range(50):
        metrics.request(f"/scan/{number}", 404, 0.001)
        metrics.error(f"no such reason {number}")
    assert len(samples(metrics)) == before
    assert samples(metrics)["placeray_request_seconds_count", "route=other", "status=404"] == 51
    assert samples(metrics)["placeray_errors_total", "reason=other"] == 51


def test_metrics_of_two_replicas_in_one_process_are_apart() -> None:
    one, two = Metrics("a"), Metrics("b")
    one.error("truncated")
    assert b'reason="truncated"' not in two.render()[0]
    assert "text/plain" in two.render()[1]


def test_dashboard_shows_every_metric_and_only_those() -> None:
    dashboard = json.loads(DASHBOARD.read_text())
    expressions = [target["expr"] for panel in dashboard["panels"] for target in panel["targets"]]
    shown = set(re.findall(r"placeray_[a-z_]+", " ".join(expressions)))
    rendered = {name[0] for name in samples(exercised()) if not name[0].endswith("_created")}
    assert shown <= rendered, shown - rendered
    families = {re.sub(r"_(bucket|sum|count)$", "", name) for name in rendered}
    assert families == {re.sub(r"_(bucket|sum|count)$", "", name) for name in shown}


def test_dashboard_works_with_any_prometheus() -> None:
    dashboard = json.loads(DASHBOARD.read_text())
    assert dashboard["uid"]
    assert {variable["name"] for variable in dashboard["templating"]["list"]} == {"datasource", "job"}
    places = []
    for panel in dashboard["panels"]:
        assert panel["title"]
        assert all(target["datasource"]["uid"] == "${datasource}" for target in panel["targets"])
        assert all(target["expr"].count("(") == target["expr"].count(")") for target in panel["targets"])
        box = panel["gridPos"]
        assert box["x"] + box["w"] <= 24
        places += [
            (x, y) for x in range(box["x"], box["x"] + box["w"]) for y in range(box["y"], box["y"] + box["h"])
        ]
    assert len(places) == len(set(places)), "panels overlap"
