"""Fine-tuning under kill -9: of a worker, and of everything; the weights end as if nothing had happened.

Tolerance: none. On one machine's CPU with the same number of workers and threads the files hold the
same tensors bit for bit.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from models.weights import load_extractor
from pipelines.training.log import read_rows
from tests.support.mounts import fill_disk, mounted
from tests.support.paths import ROOT
from tests.support.training_city import SIDE, write_city, write_tiny_vit

pytestmark = pytest.mark.fault

EPOCHS = 12
SLOW_ROUNDS = {"RAY_TRAIN_HEALTH_CHECK_INTERVAL_S": "2"}  # so that a job can be disturbed before it ends


def command(folder: Path, out: Path, *more: str) -> list[str]:
    job = [sys.executable, "-m", "pipelines.finetune", str(folder / "city"), "--out", str(out), "--json"]
    job += ["--model", str(folder / "vit.safetensors"), "--image-size", f"{SIDE}x{SIDE}", "--threads", "1"]
    job += ["--epochs", str(EPOCHS), "--patience", str(EPOCHS), "--queries-per-epoch", "8"]
    job += ["--queries-per-round", "4", "--batch", "2", "--learning-rate", "1e-3", "--val-candidates", "8"]
    return [*job, *more]


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("finetune")
    write_city(folder / "city")
    write_tiny_vit(folder / "vit.safetensors")
    return folder


@pytest.fixture(scope="module", params=["1", "2"])
def undisturbed(request: pytest.FixtureRequest, data: Path) -> tuple[str, Path]:
    out = data / f"undisturbed{request.param}.safetensors"
    subprocess.run(command(data, out, "--workers", request.param, "--quiet"), cwd=ROOT, check=True)
    return request.param, out


def digest(path: Path) -> str:
    """Return the digest of every tensor; the order of a file's metadata is not always the same."""
    return load_extractor(str(path), device="cpu").card.weights_sha256


def steps_logged(run: Path) -> int:
    rows = [row for row in read_rows(run / "log.csv") if row["kind"] == "step"]
    return int(rows[-1]["step"]) if rows else 0


def wait_for_steps(job: subprocess.Popen[bytes], run: Path, steps: int) -> None:
    until = time.monotonic() + 180
    while steps_logged(run) < steps:
        assert job.poll() is None, "the job ended before it could be disturbed"
        assert time.monotonic() < until, "no step was logged"
        time.sleep(0.05)


@contextlib.contextmanager
def started(arguments: list[str], log: Path) -> Iterator[subprocess.Popen[bytes]]:
    """Start a job in a session of its own, and end what is left of that session."""
    with open(log, "ab") as file:
        environment = os.environ | SLOW_ROUNDS
        job = subprocess.Popen(
            arguments, cwd=ROOT, env=environment, stdout=file, stderr=file, start_new_session=True
        )
    try:
        yield job
    finally:
        kill_all(job)


def family(job: subprocess.Popen[bytes]) -> list[psutil.Process]:
    with contextlib.suppress(psutil.NoSuchProcess):
        top = psutil.Process(job.pid)
        return [top, *top.children(recursive=True)]
    return []


def kill_all(job: subprocess.Popen[bytes]) -> None:
    for process in family(job):
        with contextlib.suppress(psutil.NoSuchProcess):
            process.kill()
    job.wait(30)


def training_workers(job: subprocess.Popen[bytes]) -> list[psutil.Process]:
    workers = []
    for process in family(job):
        with contextlib.suppress(psutil.Error):
            if any("RayTrainWorker" in part for part in process.cmdline()):
                workers.append(process)
    return workers


def test_a_killed_worker_does_not_change_the_weights(
    data: Path, undisturbed: tuple[str, Path], tmp_path: Path
) -> None:
    workers, wanted = undisturbed
    out = tmp_path / "killed.safetensors"
    with started(command(data, out, "--workers", workers), tmp_path / "log") as job:
        wait_for_steps(job, out.with_suffix(".run"), 12)
        processes = training_workers(job)
        assert len(processes) == int(workers)
        os.kill(processes[-1].pid, signal.SIGKILL)
        assert job.wait(300) == 0, (tmp_path / "log").read_text()[-2000:]
    assert digest(out) == digest(wanted)
    rows = read_rows(out.with_suffix(".run") / "log.csv")
    steps = [int(row["step"]) for row in rows if row["kind"] == "step"]
    assert steps == sorted(set(steps))
    validated = [int(row["epoch"]) for row in rows if row["kind"] == "validation"]
    assert validated == list(range(EPOCHS + 1))


def test_a_killed_job_resumes_to_the_same_weights(
    data: Path, undisturbed: tuple[str, Path], tmp_path: Path
) -> None:
    workers, wanted = undisturbed
    out = tmp_path / "again.safetensors"
    arguments = command(data, out, "--workers", workers)
    for steps in (6, 20):
        with started(arguments, tmp_path / "log") as job:
            wait_for_steps(job, out.with_suffix(".run"), steps)
        assert not out.exists()
    with started(arguments, tmp_path / "log") as job:
        assert job.wait(300) == 0, (tmp_path / "log").read_text()[-2000:]
    assert digest(out) == digest(wanted)
    report = json.loads((out.with_suffix(".run") / "report.json").read_text())
    assert report["facts"]["steps"] == EPOCHS * 4


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of its own that can be filled."""
    folder = tmp_path / "disk"
    folder.mkdir()
    with mounted(folder, "size=24m"):
        yield folder


def test_a_full_disk_is_reported_and_training_resumes(
    data: Path, undisturbed: tuple[str, Path], small_disk: Path, tmp_path: Path
) -> None:
    workers, wanted = undisturbed
    out, run, log = tmp_path / "full.safetensors", small_disk / "run", tmp_path / "log"
    arguments = command(data, out, "--workers", workers, "--run", str(run), "--max-failures", "0")
    with started(arguments, log) as job:
        wait_for_steps(job, run, 8)
        filler = fill_disk(small_disk)
        assert job.wait(300) == 7, log.read_text()[-2000:]
    assert "free some space and run the same command again" in log.read_text()
    assert not out.exists()
    filler.unlink()
    with started(arguments, log) as job:
        assert job.wait(300) == 0, log.read_text()[-2000:]
    assert digest(out) == digest(wanted)
