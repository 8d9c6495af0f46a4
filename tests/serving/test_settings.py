"""Settings of the service: from flags and config files, checked, and turned into deployments."""

from __future__ import annotations

import pickle
from typing import Any

import pytest

from pipelines.cli.parser import build_parser
from pipelines.serve import settings_of
from serving.app import bind, cores
from serving.settings import InvalidSettings, ServeSettings, read_settings
from storage.objects.errors import SecretInOptions, UnknownStorageOption


def flags(*arguments: str) -> ServeSettings:
    return settings_of(vars(build_parser().parse_args(["serve", "--store", "/city", *arguments])))


def test_flags_not_given_leave_the_defaults() -> None:
    assert flags() == ServeSettings(store="/city")


def test_flags_become_settings() -> None:
    chosen = flags(
        *("--topology", "split", "--shards", "4", "--method", "ivf", "--memory-gib", "0.5"),
        *("--refresh-s", "1.5", "--cache-mib", "64", "--max-batch", "16", "--max-queue", "9"),
        *("--max-in-flight", "7", "--max-candidates", "50", "--request-timeout-s", "12"),
        *("--receive-timeout-s", "2", "--max-body-mib", "3", "--threads", "2", "--tiles", ""),
        *("--precision", "bf16", "--compile"),
        *("--matching", "fast", "--stop-early", "--rerank-budget-ms", "12.5"),
        *("--extractor-replicas", "2..6", "--searcher-replicas", "3", "--extractor-gpus", "0.5"),
    )
    assert (chosen.topology, chosen.shards, chosen.method, chosen.memory_gib) == ("split", 4, "ivf", 0.5)
    assert (chosen.refresh_s, chosen.cache_mib, chosen.max_batch, chosen.max_queue) == (1.5, 64, 16, 9)
    assert (chosen.max_in_flight, chosen.max_candidates, chosen.request_timeout_s) == (7, 50, 12.0)
    assert (chosen.receive_timeout_s, chosen.max_body_bytes, chosen.threads, chosen.tiles) == (
        2.0,
        3 << 20,
        2,
        "",
    )
    assert (chosen.precision, chosen.compile) == ("bf16", True)
    assert (chosen.matching, chosen.stop_early, chosen.rerank_budget_ms) == ("fast", True, 12.5)
    assert (chosen.extractor.min_replicas, chosen.extractor.max_replicas) == (2, 6)
    assert chosen.extractor.num_gpus == 0.5
    assert (chosen.searcher.min_replicas, chosen.searcher.max_replicas) == (3, 3)
    assert chosen.reranker == chosen.ingress == ServeSettings(store="x").ingress


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({}, "store"),
        ({"store": ""}, "store"),
        ({"store": "s", "no_such": 1}, "no_such"),
        ({"store": "s", "shards": 0}, "shards"),
        ({"store": "s", "shards": 2}, "topology split"),
        ({"store": "s", "topology": "wide"}, "topology"),
        ({"store": "s", "refresh_s": 31}, "refresh_s"),
        ({"store": "s", "precision": "fp8"}, "precision"),
        ({"store": "s", "matching": "quick"}, "matching"),
        ({"store": "s", "stop_early": "perhaps"}, "stop_early"),
        ({"store": "s", "rerank_budget_ms": -1}, "rerank_budget_ms"),
        ({"store": "s", "rerank_budget_ms": float("nan")}, "rerank_budget_ms"),
        ({"store": "s", "max_body_mib": 65}, "max_body_mib"),
        ({"store": "s", "tiles": "file:///etc"}, "tiles"),
        ({"store": "s", "ingress": {"min_replicas": 3, "max_replicas": 2}}, "max_replicas"),
        ({"store": "s", "ingress": {"cpus": 3}}, "ingress.cpus"),
    ],
)
def test_settings_out_of_bounds_are_named(values: dict[str, Any], message: str) -> None:
    with pytest.raises(InvalidSettings, match=message) as caught:
        read_settings(values)
    assert "placeray serve --help" in str(caught.value)


def deployments(settings: ServeSettings) -> dict[str, Any]:
    """The deployments of an application by name, with everything bound to it."""
    by_name: dict[str, Any] = {}

    def visit(application: Any) -> None:
        bound = application._bound_deployment
        by_name[bound.name] = bound
        for argument in bound.init_args:
            for inner in argument if isinstance(argument, list) else [argument]:
                if hasattr(inner, "_bound_deployment"):
                    visit(inner)

    visit(bind(settings, {}))
    return by_name


def test_tokens_travel_as_digests_only() -> None:
    token = "a-token-that-nobody-should-see"
    application = bind(flags(), {token: "read"})
    table = application._bound_deployment.init_args[1]
    assert table.role(f"Bearer {token}".encode()) == "read"
    assert token.encode() not in pickle.dumps(table)


def test_compact_is_one_deployment() -> None:
    assert set(deployments(flags())) == {"Ingress"}
    assert cores(flags("--ingress-replicas", "3")) == pytest.approx(0.3)


def test_split_has_a_deployment_a_stage_and_a_shard_with_its_own_replicas() -> None:
    settings = flags(
        *("--topology", "split", "--shards", "3", "--extractor-replicas", "1..4"),
        *("--searcher-replicas", "2", "--reranker-gpus", "1"),
    )
    by_name = deployments(settings)
    assert set(by_name) == {"Ingress", "Extractor", "Searcher-0", "Searcher-1", "Searcher-2", "Reranker"}
    scaling = by_name["Extractor"]._deployment_config.autoscaling_config
    assert (scaling.min_replicas, scaling.max_replicas) == (1, 4)
    assert by_name["Searcher-2"].num_replicas == 2
    assert by_name["Searcher-2"].init_args[1] == 2
    assert by_name["Reranker"].ray_actor_options["num_gpus"] == 1
    assert by_name["Extractor"].ray_actor_options["runtime_env"]["env_vars"]["OMP_WAIT_POLICY"]
    assert cores(settings) == pytest.approx(0.1 * (1 + 4 + 1 + 3 * 2))
    for deployment in by_name.values():  # everything is bounded
        assert 0 < deployment.max_ongoing_requests < 10_000
        assert 0 < deployment._deployment_config.max_queued_requests < 10_000


@pytest.mark.parametrize(
    ("store", "chosen", "expected"),
    [("/data/city", {}, 0.5), ("s3://maps/city", {}, 2.0), ("s3://maps/city", {"refresh_s": 0.5}, 0.5)],
)
def test_a_bucket_is_checked_less_often(store: str, chosen: dict[str, float], expected: float) -> None:
    assert ServeSettings(store=store, **chosen).refresh_s == expected


@pytest.mark.parametrize(
    "values",
    [
        {"store": "s3://bucket/x?secret_access_key=hunter2"},
        {"store": "s3://me:hunter2@bucket/x"},
        {"store": "s3://bucket/x", "aws_secret_access_key": "hunter2"},
        {"store": "s3://bucket/x", "storage_options": {"secret_access_key": "hunter2"}},
    ],
)
def test_a_secret_in_a_config_file_is_refused_with_its_variable(values: dict[str, Any]) -> None:
    with pytest.raises(SecretInOptions, match="AWS_SECRET_ACCESS_KEY") as caught:
        read_settings(values)
    assert "hunter2" not in str(caught.value)


def test_the_address_of_a_store_is_checked_before_anything_starts() -> None:
    with pytest.raises(UnknownStorageOption):
        read_settings({"store": "s3://bucket/x?colour=red"})
    assert read_settings({"store": "s3://bucket/x?region=eu-west-1"}).refresh_s == 2.0
