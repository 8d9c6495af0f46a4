"""`serve deploy deploy/serve.yaml` on a head node, as the README documents it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import requests
import yaml

from serving.engine import QueryEngine
from serving.settings import ServeSettings, read_settings
from tests.support.city_store import CityStore
from tests.support.paths import ROOT
from tests.support.ray_head import free_port, running_head
from tests.support.serve_client import query, wait_for

CONFIG = ROOT / "deploy" / "serve.yaml"
SERVE = str(Path(sys.executable).with_name("serve"))


def config(**changes: Any) -> dict[str, Any]:
    loaded: dict[str, Any] = yaml.safe_load(CONFIG.read_text())
    loaded["applications"][0]["args"] |= changes
    return loaded


def test_config_listens_on_loopback_and_names_what_exists() -> None:
    loaded = config()
    assert loaded["http_options"]["host"] == "127.0.0.1"
    (application,) = loaded["applications"]
    settings = read_settings(application["args"])
    assert isinstance(settings, ServeSettings)
    named = {deployment["name"] for deployment in application["deployments"]}
    shards = {f"Searcher-{number}" for number in range(settings.shards)}
    assert named == {"Ingress", "Extractor", "Reranker"} | shards
    limit = settings.request_timeout_s + settings.receive_timeout_s
    assert loaded["http_options"]["request_timeout_s"] >= limit


@pytest.fixture(scope="module")
def head(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    with running_head(tmp_path_factory.mktemp("head")) as environment:
        yield environment


def deploy(folder: Path, loaded: dict[str, Any], environment: dict[str, str]) -> None:
    path = folder / "serve.yaml"
    path.write_text(yaml.safe_dump(loaded))
    command = [SERVE, "deploy", str(path), "--address", environment["RAY_ADDRESS"]]

    def accepted() -> bool:  # the dashboard answers some seconds before Serve's part of it does
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
        return done.returncode == 0

    wait_for(accepted, patience_s=60)


def state(environment: dict[str, str]) -> dict[str, Any]:
    command = [SERVE, "status", "--address", environment["RAY_ADDRESS"]]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    loaded = yaml.safe_load(done.stdout) or {}
    return dict(loaded.get("applications", {}).get("placeray", {}))


@pytest.mark.ray
@pytest.mark.slow
def test_config_deployed_answers_scales_in_place_and_refuses_what_it_must(
    head: dict[str, str], city_store: CityStore, tmp_path: Path
) -> None:
    engine = QueryEngine.open(city_store.uri)
    photo = city_store.queries[0].read_bytes()
    expected = engine.answer(photo).to_dict()
    loaded = config(store=city_store.uri, tiles="")
    loaded["http_options"]["port"] = free_port()
    url = f"http://127.0.0.1:{loaded['http_options']['port']}"

    # Without its store the application does not start, and reports why.
    wrong = config(store=str(tmp_path / "nowhere"))
    wrong["http_options"] = dict(loaded["http_options"])
    deploy(tmp_path, wrong, head)
    wait_for(lambda: state(head).get("status") == "DEPLOY_FAILED")
    assert "contains no store" in json.dumps(state(head))

    deploy(tmp_path, loaded, head)
    wait_for(lambda: state(head).get("status") == "RUNNING", patience_s=120)
    answer = query(url, photo).json()
    assert {name: answer[name] for name in ("matches", "degraded")} == {
        name: expected[name] for name in ("matches", "degraded")
    }
    assert requests.get(f"{url}/v1/info", timeout=30).json()["shards"] == 2
    assert requests.get(f"{url}/-/healthz", timeout=30).status_code == 200  # what Kubernetes probes

    for deployment in loaded["applications"][0]["deployments"]:
        if deployment["name"] == "Searcher-1":
            deployment["num_replicas"] = 2
    deploy(tmp_path, loaded, head)

    def scaled() -> bool:
        assert query(url, photo).status_code == 200  # clients do not notice
        searcher = state(head)["deployments"]["Searcher-1"]
        return bool(searcher["replica_states"].get("RUNNING") == 2)

    wait_for(scaled, patience_s=120)


@pytest.mark.ray
@pytest.mark.slow
def test_config_beyond_loopback_wants_a_token(city_store: CityStore, tmp_path: Path) -> None:
    with running_head(tmp_path) as environment:
        loaded = config(store=city_store.uri, topology="compact", shards=1)
        loaded["applications"][0]["deployments"] = []
        loaded["http_options"] |= {"host": "0.0.0.0", "port": free_port()}
        deploy(tmp_path, loaded, environment)
        wait_for(lambda: state(environment).get("status") == "DEPLOY_FAILED")
        assert "PLACERAY_TOKENS" in json.dumps(state(environment))
    assert "PLACERAY_TOKENS" not in os.environ
