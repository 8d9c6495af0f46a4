"""The main job on a store in a bucket, on a real server: index, query, evaluate, serve, copy."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import urllib.request
from pathlib import Path
from typing import Any

import pytest

from pipelines.demo.dataset import draw_city
from storage.objects.files import read_bounded
from storage.objects.location import open_file
from storage.store import Store
from tests.support.fault_proxy import FaultProxy, fault_proxy
from tests.support.object_servers import KEY_ID, SECRET
from tests.support.paths import ROOT

pytestmark = [pytest.mark.cluster, pytest.mark.ray]


def placeray(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "pipelines.cli", *arguments]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, timeout=600)
    assert SECRET not in done.stdout + done.stderr
    assert KEY_ID not in done.stdout + done.stderr
    return done


def found(answer: dict[str, Any]) -> tuple[str, set[str]]:
    """Return the first image and all; further ranks may depend on a number's last digit."""
    names = [each["image_id"] for each in answer["matches"]]
    return names[0], set(names)


def test_index_query_evaluate_and_serve(seaweed_url: str, credentials: None, tmp_path: Path) -> None:
    draw_city(tmp_path / "city", seed=3, database_images=40, query_images=8)
    photos = tmp_path / "city/images/test"
    place = ["--store", "s3://placeray/job", "--storage-option", f"endpoint={seaweed_url}"]
    place += ["--cache-dir", str(tmp_path / "cache")]
    done = placeray("index", str(photos / "database"), *place, "--quiet", "--json")
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout)
    assert report["accepted"] == 40
    assert report["relearned_from"]  # one more version, of other descriptors
    (photos / "database/broken.jpg").write_bytes(b"no photo")
    elsewhere = f"s3://placeray/lists/rejected.csv?endpoint={seaweed_url}"
    done = placeray("index", str(photos / "database"), *place, "--rejected", elsewhere, "--quiet", "--json")
    report = json.loads(done.stdout)
    assert (report["unchanged"], report["rejected"]) == (40, 1)
    assert b"broken.jpg" in read_bounded(open_file(elsewhere), 1 << 16)
    (photos / "database/broken.jpg").unlink()
    done = placeray("verify", *place, "--json")
    assert json.loads(done.stdout)["ok"] is True
    query = str(sorted((photos / "queries").iterdir())[0])
    done = placeray("query", query, *place, "--json")
    assert done.returncode == 0, done.stderr
    direct = json.loads(done.stdout)["queries"][0]
    done = placeray("evaluate", str(tmp_path / "city"), *place, "--quiet", "--json")
    assert done.returncode == 0, done.stderr
    done = placeray("copy", f"s3://placeray/job?endpoint={seaweed_url}", str(tmp_path / "local"), "--json")
    assert done.returncode == 0, done.stderr
    local = Store.open(tmp_path / "local")
    assert local.count == 40
    done = placeray("query", query, "--store", str(tmp_path / "local"), "--json")
    copied = json.loads(done.stdout)["queries"][0]
    assert found(copied) == found(direct)
    check_read_only(place, seaweed_url, query, tmp_path, direct)
    check_service(place, seaweed_url, query, tmp_path, direct)


def read_only(proxy: FaultProxy) -> None:
    """Answer as a bucket does to credentials that may only read and list."""
    for method in ("PUT", "POST", "DELETE"):
        proxy.fail("403", method=method)


def check_read_only(
    place: list[str], seaweed_url: str, query: str, folder: Path, direct: dict[str, Any]
) -> None:
    """Readers ask for nothing that writes; a writer says that it may not."""
    with fault_proxy(seaweed_url) as proxy:
        read_only(proxy)
        flags = [*place[:2], "--storage-option", f"endpoint={proxy.url}", "--cache-dir", str(folder / "read")]
        done = placeray("query", query, *flags, "--json")
        assert done.returncode == 0, done.stderr
        assert found(json.loads(done.stdout)["queries"][0]) == found(direct)
        for verb in ("info", "history", "verify"):
            done = placeray(verb, *flags)
            assert done.returncode == 0, done.stderr
        done = placeray("evaluate", str(folder / "city"), *flags, "--quiet", "--json")
        assert done.returncode == 0, done.stderr
        assert {method for method, _ in proxy.seen} <= {"GET", "HEAD"}
        done = placeray("tag-version", "june", *flags)
        assert done.returncode == 9
        assert "forbid" in done.stderr or "credentials" in done.stderr


def check_service(
    place: list[str], seaweed_url: str, query: str, folder: Path, direct: dict[str, Any]
) -> None:
    """Serve from the bucket while every tenth request is answered with 503; ask, and search for secrets."""
    with fault_proxy(seaweed_url) as proxy:
        flags = [
            *place[:2],
            "--storage-option",
            f"endpoint={proxy.url}",
            "--cache-dir",
            str(folder / "served"),
        ]
        command = [sys.executable, "-m", "pipelines.cli", "serve", *flags, "--port", "0", "--json"]
        log = folder / "serve.log"
        command += ["--log-file", str(log), "--topology", "split"]
        read_only(proxy)
        proxy.fail("503", every=10)
        with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as server:
            try:
                assert server.stdout is not None
                url = json.loads(server.stdout.readline())["url"]
                done = placeray("query", query, "--url", url, "--json")
                assert done.returncode == 0, done.stderr
                answer = json.loads(done.stdout)["queries"][0]
                assert found(answer) == found(direct)
                with urllib.request.urlopen(f"{url}/v1/info", timeout=30) as page:
                    info = page.read().decode()
            finally:
                os.kill(server.pid, signal.SIGTERM)
                server.wait(60)
        for text in (info, log.read_text()):
            assert SECRET not in text
            assert KEY_ID not in text
