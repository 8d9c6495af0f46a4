"""`ray job submit` of the index job, as the README documents it: a head node with token authentication."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from storage.store import Store
from tests.support.paths import ROOT
from tests.support.pictures import write_photos
from tests.support.ray_head import RAY, running_head

pytestmark = [pytest.mark.ray, pytest.mark.cluster]


@pytest.fixture
def head(tmp_path: Path) -> Iterator[dict[str, str]]:
    with running_head(tmp_path) as environment:
        yield environment


def test_job_submitted_with_token_indexes_on_the_cluster(head: dict[str, str], tmp_path: Path) -> None:
    write_photos(tmp_path / "photos", 12)
    store = tmp_path / "store"
    job = ["python", "-m", "pipelines.index", str(tmp_path / "photos"), "--store", str(store), "--json"]
    submit = [RAY, "job", "submit", "--working-dir", ".", "--", *job]

    for _ in range(20):  # the dashboard answers some seconds before its job agent does
        done = subprocess.run(
            submit, cwd=ROOT, env=head, capture_output=True, text=True, timeout=240, check=False
        )
        if "job agent" not in done.stderr.lower() and "available agent" not in done.stderr.lower():
            break
        time.sleep(1.0)

    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    assert '"accepted": 12' in done.stdout
    assert Store.open(str(store)).count == 12
    assert Store.open(str(store)).verify().ok

    without = {**head, "HOME": str(tmp_path)}
    refused = subprocess.run(
        submit, cwd=ROOT, env=without, capture_output=True, text=True, timeout=120, check=False
    )
    assert refused.returncode != 0
