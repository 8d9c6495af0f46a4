"""`placeray serve` as a process: it answers, follows signals, and refuses to start where it must."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import stat
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
import requests

from pipelines.cli import main
from storage.store import Store
from tests.support.city_store import CityStore, make_store_of_another_model
from tests.support.paths import ROOT
from tests.support.ray_head import short_folder

TOKEN = "0123456789-service-token"


@pytest.fixture
def ray_folder() -> Iterator[Path]:
    folder = Path(short_folder())
    yield folder
    shutil.rmtree(folder)


def refused(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str]:
    code = main(["serve", *arguments])
    return code, capsys.readouterr().err


def check_answers(url: str, city_store: CityStore) -> None:
    """Photos are answered, an unusable one is refused, and both are counted."""
    client = requests.Session()
    client.headers.update({"content-type": "image/jpeg", "authorization": f"Bearer {TOKEN}"})
    photo = city_store.queries[0].read_bytes()
    before = client.get(f"{url}/metrics", timeout=60).text
    reply = client.post(f"{url}/v1/query", photo, headers={"x-request-id": "my-request-7"}, timeout=60)
    assert reply.status_code == 200
    assert reply.json()["request_id"] == reply.headers["x-request-id"] == "my-request-7"
    for _ in range(2):
        assert client.post(f"{url}/v1/query", photo, timeout=60).status_code == 200
    assert client.post(f"{url}/v1/query", b"no photo", timeout=60).status_code == 422
    check_metrics(before, client.get(f"{url}/metrics", timeout=60).text)


def check_metrics(before: str, after: str) -> None:
    """Three answered queries and a refused one are counted, of a store of 48 images that are all matched."""

    def total(text: str, name: str, *labels: str) -> float:
        lines = [line for line in text.splitlines() if line.startswith(f"{name}{{")]
        return sum(float(line.split()[-1]) for line in lines if all(label in line for label in labels))

    name = "placeray_request_seconds_count"
    for status, count in (("200", 3), ("422", 1)):
        labels = ('route="/v1/query"', f'status="{status}"')
        assert total(after, name, *labels) - total(before, name, *labels) == count
    assert total(after, "placeray_index_rows") == 48
    assert total(after, "placeray_errors_total", 'reason="not_an_image"') == 1
    assert total(after, "placeray_feature_cache_misses_total") == 48
    assert total(after, "placeray_feature_cache_hits_total") == 96
    assert total(after, "placeray_batch_size_count", 'stage="extract"') == 3


def check_closed(pid: int, rays: list[psutil.Process], base: Path) -> None:
    """No process of Ray listens beyond loopback or knows a token of the service; other users see no file."""
    listening = {
        connection.laddr.ip.removeprefix("::ffff:")
        for one in [psutil.Process(pid), *rays]
        for connection in one.net_connections("inet")
        if connection.status == psutil.CONN_LISTEN
    }
    assert listening == {"127.0.0.1"}
    for one in rays:
        assert TOKEN.encode() not in Path(f"/proc/{one.pid}/environ").read_bytes(), one
    (folder,) = base.glob("placeray.*")
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    assert stat.S_IMODE((folder / "token").stat().st_mode) == 0o600


@pytest.mark.ray
def test_serve_command_answers_until_sigterm_and_keeps_its_ray_to_itself(
    city_store: CityStore, tmp_path: Path, ray_folder: Path
) -> None:
    command = [sys.executable, "-m", "pipelines.cli", "serve", "--store", city_store.uri, "--port", "0"]
    command += ["--json", "--log-file", str(tmp_path / "log"), "--tiles", ""]
    # No Ray of this session: the command starts its own, whatever cluster is noted.
    environment = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")}
    environment |= {"RAY_TMPDIR": str(ray_folder), "PLACERAY_TOKENS": f"admin:{TOKEN}"}
    (ray_folder / "ray").mkdir()
    (ray_folder / "ray" / "ray_current_cluster").write_text("127.0.0.1:9")
    with subprocess.Popen(
        command, cwd=ROOT, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        try:
            line = process.stdout.readline()
            assert line, process.stderr.read()
            url = json.loads(line)["url"]
            rays = psutil.Process(process.pid).children(recursive=True)
            assert len(rays) > 5
            check_answers(url, city_store)
            check_closed(process.pid, rays, ray_folder)
            process.send_signal(signal.SIGTERM)
            assert process.wait(60) == 0
            assert "Traceback" not in process.stderr.read()
            assert [one for one in rays if one.is_running()] == []
            assert list(ray_folder.glob("*placeray*")) == []
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

    make_store_of_another_model(tmp_path / "other", city_store)
    assert refused(capsys, "--store", str(tmp_path / "other"), "--port", "0", "--log-file", "-")[0] == 5

    code, message = refused(capsys, "--store", city_store.uri, "--shards", "2", "--log-file", "-")
    assert code == 2
    assert "topology split" in message
