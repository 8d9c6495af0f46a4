"""`placeray serve` as a process: it answers, follows signals, and refuses to start where it must."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import requests

from pipelines.cli import main
from storage.store import Store
from tests.support.city_store import CityStore
from tests.support.paths import ROOT
from tests.support.serve_client import query


def refused(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str]:
    code = main(["serve", *arguments])
    return code, capsys.readouterr().err


@pytest.mark.ray
def test_serve_command_answers_until_sigterm(city_store: CityStore, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "pipelines.cli", "serve", "--store", city_store.uri, "--port", "0"]
    command += ["--json", "--log-file", str(tmp_path / "log"), "--tiles", ""]
    # No Ray of this session: the command starts its own.
    environment = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")}
    with subprocess.Popen(
        command, cwd=ROOT, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        try:
            line = process.stdout.readline()
            assert line, process.stderr.read()
            url = json.loads(line)["url"]
            headers = {"x-request-id": "my-request-7", "content-type": "image/jpeg"}
            photo = city_store.queries[0].read_bytes()
            reply = requests.post(f"{url}/v1/query", data=photo, headers=headers, timeout=60)
            assert reply.status_code == 200
            assert reply.json()["request_id"] == reply.headers["x-request-id"] == "my-request-7"
            assert query(url, b"no photo").status_code == 422
            process.send_signal(signal.SIGTERM)
            assert process.wait(60) == 0
            assert "Traceback" not in process.stderr.read()
        finally:
            process.kill()
    lines = [json.loads(line) for line in (tmp_path / "log").read_text().splitlines()]
    (mine,) = (line for line in lines if line.get("request_id") == "my-request-7")
    assert (mine["event"], mine["status"], mine["path"]) == ("request", 200, "/v1/query")
    assert mine["timings_ms"]["extract"] > 0
    assert mine["store_version"] == Store.open(city_store.uri).version
    assert [line["reason"] for line in lines if line.get("status") == 422] == ["not_an_image"]


def test_serve_command_beyond_loopback_requires_a_token(
    city_store: CityStore, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("PLACERAY_TOKENS", raising=False)
    code, message = refused(capsys, "--store", city_store.uri, "--host", "0.0.0.0", "--log-file", "-")
    assert code == 2
    assert "PLACERAY_TOKENS" in message
    monkeypatch.setenv("PLACERAY_TOKENS", "short")
    code, message = refused(capsys, "--store", city_store.uri, "--log-file", "-")
    assert code == 2
    assert "openssl rand" in message
    assert "short" not in message.replace("shorter", "")


def test_serve_command_reports_a_port_in_use(
    city_store: CityStore, capsys: pytest.CaptureFixture[str]
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        code, message = refused(capsys, "--store", city_store.uri, "--port", port, "--log-file", "-")
    assert code == 2
    assert "choose another --port" in message


def test_serve_command_refuses_missing_and_mismatched_stores(
    city_store: CityStore, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    nowhere = refused(capsys, "--store", str(tmp_path / "nowhere"), "--port", "0", "--log-file", "-")
    assert nowhere[0] == 2
    assert "placeray index" in nowhere[1]

    shutil.copytree(city_store.uri, tmp_path / "other")
    card = tmp_path / "other" / "card.json"
    sha256 = Store.open(city_store.uri).card.weights_sha256
    card.write_text(card.read_text().replace(sha256, "0" * 64))
    assert refused(capsys, "--store", str(tmp_path / "other"), "--port", "0", "--log-file", "-")[0] == 5

    code, message = refused(capsys, "--store", city_store.uri, "--shards", "2", "--log-file", "-")
    assert code == 2
    assert "topology split" in message
