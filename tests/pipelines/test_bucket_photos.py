"""Indexing photos that lie in a bucket on a real server: loose, in shards, in tables, by a listing."""

from __future__ import annotations

import hashlib
import io
import json
import subprocess
import sys
import tarfile
import uuid
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from storage.store import Store
from tests.support.bucket_photos import put_folder
from tests.support.object_servers import KEY_ID, SECRET
from tests.support.paths import ROOT
from tests.support.pictures import write_photos

pytestmark = [pytest.mark.cluster, pytest.mark.ray]

PHOTOS = 24
SCRIPT = """
import contextlib, json, os, pathlib, sys
from pipelines.indexing.job import index
from pipelines.ray_session import ray_session
stack = contextlib.ExitStack()
stack.enter_context(ray_session(object_store_bytes=200 << 20))
folder, endpoint, sources = sys.argv[1], sys.argv[2], sys.argv[3:]
for name in sources:
    kind, _, source = name.partition("=")
    if kind == "streamed":
        from pipelines.indexing import large_listing, work
        from pipelines.sources import listing
        work.WHOLE_ROWS, large_listing.PART_ROWS, listing.ROWS_AT_ONCE = 8, 6, 3
    for _ in range(2 if kind in ("loose", "streamed") else 1):
        options = {"endpoint": endpoint}
        report = index(source, f"{folder}/{kind}", source_options=options, batch_size=8, quiet=True)
        print(json.dumps([kind, report.input, report.accepted, report.unchanged, report.rejected_by_reason]))
# What others can read of a job: Ray's tables, and the files of its session.
from ray._private import state, worker
secrets = [os.environ["AWS_SECRET_ACCESS_KEY"], os.environ["AWS_ACCESS_KEY_ID"]]
told = str(state.state.job_table()) + str(state.actors())
assert "DRIVER" in told or "job" in told.lower()
session = pathlib.Path(worker._global_node.get_session_dir_path())
files = [path for path in session.rglob("*") if path.is_file()]
assert any(path.suffix == ".log" for path in files)
for text in [told, *(path.read_text(errors="replace") for path in files)]:
    assert not any(secret in text for secret in secrets)
print("searched")
stack.close()
"""


def test_all_forms_give_the_same_photos(seaweed_url: str, credentials: None, tmp_path: Path) -> None:
    prefix = uuid.uuid4().hex
    base = f"s3://placeray/{prefix}"
    make_forms(tmp_path / "forms", base)
    put_folder(seaweed_url, tmp_path / "forms", prefix)
    sources = {
        "loose": f"{base}/loose",
        "listing": f"{base}/city.csv",
        "mixed": str(tmp_path / "mixed.csv"),
        "tar": f"{base}/tar/{{0..1}}.tar",
        "parquet": f"{base}/city.parquet",
        "streamed": f"{base}/loose",
    }
    local = sorted((tmp_path / "forms/loose").iterdir())
    lines = [str(path) if at % 2 else f"{base}/loose/{path.name}" for at, path in enumerate(local)]
    (tmp_path / "mixed.csv").write_text("\n".join(["uri", *lines, f"{base}/none.jpg"]))
    command = [sys.executable, "-c", SCRIPT, str(tmp_path / "stores"), seaweed_url]
    (tmp_path / "stores").mkdir()
    done = subprocess.run(
        [*command, *(f"{kind}={source}" for kind, source in sources.items())],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
        timeout=900,
    )
    assert done.returncode == 0, done.stderr[-4000:]
    assert "searched" in done.stdout
    assert SECRET not in done.stdout + done.stderr
    assert KEY_ID not in done.stdout + done.stderr
    reports = [json.loads(line) for line in done.stdout.splitlines() if line.startswith("[")]
    extra = {"mixed": {"missing": 1}}
    assert reports == [
        [kind, PHOTOS + len(extra.get(kind, {})), PHOTOS, unchanged, extra.get(kind, {})]
        for kind in sources
        for unchanged in ((0, PHOTOS) if kind in ("loose", "streamed") else (0,))
    ]
    expected = sorted(hashlib.sha256(path.read_bytes()).hexdigest() for path in local)
    for kind in sources:
        rows = Store.open(tmp_path / "stores" / kind).metadata()
        assert sorted(rows["sha256"].to_pylist()) == expected
        assert "endpoint" not in str(rows["uri"].to_pylist() + rows["source"].to_pylist())
        assert rows["utm_e"].null_count == 0, kind


def make_forms(folder: Path, base: str) -> None:
    """Write the same photos, whose names or rows have positions, loose, in two tar files and in a table."""
    paths = write_photos(folder / "loose", PHOTOS)
    (folder / "tar").mkdir()
    for shard in range(2):
        with tarfile.open(folder / f"tar/{shard}.tar", "w") as tar:
            for at, path in list(enumerate(paths))[shard::2]:
                facts = json.dumps({"utm_e": 500_000 + at, "utm_n": 5_300_000, "utm_zone": "32U"}).encode()
                for name, data in ((f"{at}.jpg", path.read_bytes()), (f"{at}.json", facts)):
                    info = tarfile.TarInfo(name)
                    info.size = len(data)
                    tar.addfile(info, io.BytesIO(data))
    names = [path.name for path in paths]
    images = [{"bytes": path.read_bytes(), "path": path.name} for path in paths]
    pq.write_table(pa.table({"image": images}), folder / "city.parquet", row_group_size=10)
    (folder / "city.csv").write_text("\n".join(["uri", *(f"loose/{name}" for name in names)]))
