"""A city in a bucket, on a real server: three nodes of which one is lost, a split service, and throttling."""

from __future__ import annotations

import csv
import io
import json
import os
import signal
import subprocess
import sys
import tarfile
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from storage.objects.location import objects_of, open_location
from storage.store import Store
from tests.support.bucket_photos import put_folder
from tests.support.fault_proxy import fault_proxy
from tests.support.object_servers import SECRET
from tests.support.paths import ROOT
from tests.support.pictures import write_photos
from tests.support.ray_cluster import IndexJob, running_nodes
from tests.support.real_datasets import photo_set

pytestmark = [pytest.mark.cluster, pytest.mark.ray]

STEPS = ("--batch-size", "16", "--commit-every", "64", "--commit-seconds", "5")


@pytest.fixture(params=["drawn", "ie_tower"])
def parts(request: pytest.FixtureRequest, tmp_path: Path) -> list[list[Path]]:
    """Photos in three parts; the first is so large that a node is lost in its middle."""
    if request.param == "drawn":
        sizes = {"a": 320, "b": 48, "c": 48}
        return [write_photos(tmp_path / "drawn" / name, size) for name, size in sizes.items()]
    floors = [sorted(floor.iterdir()) for floor in photo_set("ie_tower").iterdir() if floor.is_dir()]
    return sorted(floors, key=len, reverse=True)


def put_forms(url: str, prefix: str, parts: list[list[Path]], folder: Path) -> dict[str, str]:
    """Write the parts loose, as tar shards and below a listing; return their addresses."""
    base = f"s3://placeray/{prefix}"
    loose, shards, listed = parts
    for path in loose:
        target = folder / "loose" / path.name
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(path.read_bytes())
    (folder / "tar").mkdir()
    for shard in range(2):
        with tarfile.open(folder / f"tar/{shard:03d}.tar", "w") as tar:
            for path in shards[shard::2]:
                for name, data in ((path.name, path.read_bytes()), (f"{path.stem}.json", b'{"heading": 90}')):
                    info = tarfile.TarInfo(name)
                    info.size = len(data)
                    tar.addfile(info, io.BytesIO(data))
    (folder / "listed").mkdir()
    text = io.StringIO()
    lines = csv.writer(text)
    lines.writerow(["uri", "lat", "lon"])
    for path in listed:
        (folder / "listed" / path.name).write_bytes(path.read_bytes())
        lines.writerow([f"{base}/listed/{path.name}", 48.1, 11.5])
    (folder / "listed.csv").write_text(text.getvalue())
    put_folder(url, folder, prefix)
    return {
        "loose": f"{base}/loose",
        "tar": f"{base}/tar/{{000..001}}.tar",
        "listing": f"{base}/listed.csv",
    }


def placeray(*arguments: str) -> str:
    command = [sys.executable, "-m", "pipelines.cli", *arguments]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, timeout=600)
    assert done.returncode == 0, done.stderr
    assert SECRET not in done.stdout + done.stderr
    return done.stdout


@contextmanager
def split_service(store: str, log: Path) -> Iterator[str]:
    command = [sys.executable, "-m", "pipelines.cli", "serve", "--store", store, "--port", "0", "--json"]
    command += ["--topology", "split", "--log-file", str(log), "--refresh-s", "1"]
    # A Ray of its own, beside the cluster that indexes.
    own = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")}
    with subprocess.Popen(command, cwd=ROOT, env=own, stdout=subprocess.PIPE, text=True) as server:
        try:
            assert server.stdout is not None
            line = server.stdout.readline()
            assert line, log.read_text()
            yield json.loads(line)["url"]
        finally:
            os.kill(server.pid, signal.SIGTERM)
            server.wait(60)


def curl(url: str, photo: Path) -> tuple[int, list[str]]:
    """Ask as the documentation shows it; return the status and the answered image ids."""
    command = ["curl", "-s", "-w", "\n%{http_code}", "-F", f"image=@{photo}", f"{url}/v1/query"]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=120)
    body, _, status = done.stdout.rpartition("\n")
    matches = json.loads(body).get("matches", []) if body else []
    return int(status), [each["image_id"] for each in matches]


def contents(location: str) -> dict[str, bytes]:
    """The objects of a store by name, without what names its writers."""
    objects = objects_of(open_location(location))
    of_writers = ("LEASE", "HISTORY", "history/", "ledger/", "SHA256SUMS")
    names = [each.name for each in objects.list() if not each.name.startswith(of_writers)]
    return {name: objects.get(name, 1 << 30).data for name in names}


def test_a_city_is_indexed_served_and_copied_while_a_node_is_lost_and_the_bucket_throttles(
    seaweed_url: str, credentials: None, tmp_path: Path, parts: list[list[Path]]
) -> None:
    prefix = uuid.uuid4().hex
    sources = put_forms(seaweed_url, prefix, parts, tmp_path / "forms")
    plain = f"s3://placeray/{prefix}-city?endpoint={seaweed_url}&cache_dir={tmp_path / 'cache'}"
    direct = ("--source-option", f"endpoint={seaweed_url}", *STEPS)
    with running_nodes(*[{"num_cpus": 1} for _ in range(3)]) as nodes, fault_proxy(seaweed_url) as proxy:
        job = IndexJob(nodes, sources["loose"], plain, *direct)
        job.wait_for_rows(64)
        nodes.kill()
        summary = job.result()
        assert (summary["accepted"], summary["rejected"], summary["nodes_lost"]) == (len(parts[0]), 0, 1)
        assert IndexJob(nodes, sources["tar"], plain, *direct).result()["accepted"] == len(parts[1])
        assert placeray("verify", "--store", plain)

        proxy.fail("503", every=10)
        throttled = f"s3://placeray/{prefix}-city?endpoint={proxy.url}&cache_dir={tmp_path / 'served'}"
        asked = [parts[0][0], parts[0][-1], parts[1][0]]
        answers = 0
        with split_service(throttled, tmp_path / "serve.log") as url:
            through = ("--source-option", f"endpoint={proxy.url}", *STEPS)
            job = IndexJob(nodes, sources["listing"], throttled, *through)
            while job.running:
                for photo in asked:
                    status, found = curl(url, photo)
                    assert status == 200
                    assert found[0].endswith(photo.name)
                    answers += 1
            assert job.result()["accepted"] == len(parts[2])
            new = parts[2][0]
            for _ in range(60):
                status, found = curl(url, new)
                if found[:1] and found[0].endswith(new.name):
                    break
            assert status == 200
            assert found[0].endswith(new.name)
        assert answers >= 3
        assert sum(fault.seen for fault in proxy.faults) > 100
    check_copies(plain, prefix, seaweed_url, tmp_path, sum(map(len, parts)))
    assert SECRET not in (tmp_path / "serve.log").read_text()


def check_copies(plain: str, prefix: str, url: str, folder: Path, rows: int) -> None:
    """From the bucket to a folder, back to another prefix and to a folder again: byte for byte."""
    again = f"s3://placeray/{prefix}-again?endpoint={url}&cache_dir={folder / 'again-cache'}"
    for source, target in ((plain, folder / "one"), (folder / "one", again), (again, folder / "two")):
        placeray("copy", str(source), str(target))
        placeray("verify", "--store", str(target))
    one, two = contents(str(folder / "one")), contents(str(folder / "two"))
    assert one.keys() == two.keys()
    assert all(one[name] == two[name] for name in one)
    assert Store.open(folder / "two").count == rows
