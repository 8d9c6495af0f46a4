"""The driver of an index job is killed by SIGKILL; running the command again completes the same store."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import pytest

from storage.store import Store
from tests.support.paths import ROOT
from tests.support.pictures import write_photos

pytestmark = pytest.mark.fault

IMAGES = 160
SEEDS = range(20)


def command(photos: Path, store: Path) -> list[str]:
    job = [sys.executable, "-m", "pipelines.index", str(photos), "--store", str(store)]
    return [*job, "--quiet", "--json", "--batch-size", "8", "--commit-every", "20"]


def rows(store: Path) -> dict[str, tuple[object, ...]]:
    table = Store.open(str(store)).metadata()
    assert Counter(table["image_id"].to_pylist()).most_common(1)[0][1] == 1
    names = ("image_id", "uri", "sha256", "width", "height", "utm_e", "utm_n", "utm_zone", "lat", "lon")
    return {row["image_id"]: tuple(row[name] for name in names) for row in table.select(names).to_pylist()}


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("killed") / "photos"
    write_photos(folder, IMAGES)
    return folder


@pytest.fixture(scope="module")
def undisturbed(photos: Path) -> Path:
    store = photos.parent / "undisturbed"
    subprocess.run(command(photos, store), cwd=ROOT, check=True, capture_output=True)
    return store


@pytest.mark.parametrize("seed", SEEDS)
def test_rerun_after_a_killed_driver_equals_an_undisturbed_run(
    seed: int, photos: Path, undisturbed: Path, tmp_path: Path
) -> None:
    store, rng = tmp_path / "store", random.Random(seed)
    environment = dict(os.environ)
    if seed % 2:
        # At a named point of the commit path, in one of the commits.
        points = ("before_commit", "after_lance", "before_committed", "after_committed")
        environment["PLACERAY_FAULT_AT"] = f"{rng.choice(points)}:{rng.randint(1, 6)}"
    killed = subprocess.Popen(command(photos, store), cwd=ROOT, env=environment, stdout=subprocess.DEVNULL)
    if not seed % 2:
        # At any moment after the first commit became visible.
        deadline = time.monotonic() + 60
        while killed.poll() is None and time.monotonic() < deadline and not committed(store):
            time.sleep(0.02)
        time.sleep(rng.uniform(0.0, 2.0))
        killed.send_signal(signal.SIGKILL)
    assert killed.wait(120) in {-signal.SIGKILL, 0}, f"seed {seed}"

    assert Store.open(str(store)).count <= IMAGES, f"seed {seed}: opens without repair"
    again = subprocess.run(command(photos, store), cwd=ROOT, capture_output=True, text=True, check=False)

    assert again.returncode == 0, f"seed {seed}: {again.stderr}"
    report = json.loads(again.stdout)
    assert report["accepted"] == report["input"] == IMAGES
    assert rows(store) == rows(undisturbed), f"seed {seed}"
    assert Store.open(str(store)).verify().bad_rows == Store.open(str(undisturbed)).verify().bad_rows
    mine, theirs = (Store.open(str(s)) for s in (store, undisturbed))
    ids = sorted(rows(store))
    (a, a_ok), (b, b_ok) = (s.fetch(s.get(ids)) for s in (mine, theirs))
    assert a_ok.all()
    assert b_ok.all()
    # Other batch boundaries may change the last bits of a float32 product.
    assert abs(a.astype("float32") - b.astype("float32")).max() < 5e-3, f"seed {seed}"


def committed(store: Path) -> bool:
    try:
        return int(json.loads((store / "COMMITTED").read_text())["rows"]) > 0
    except (OSError, ValueError, KeyError):
        return False
