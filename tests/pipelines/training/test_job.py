"""The finetune verb on real Ray Train: weights that every other verb takes, a report, named errors."""

from __future__ import annotations

import errno
import json
import os
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from models.weights import load_extractor
from pipelines.cli import main
from pipelines.training.errors import BadSettings
from pipelines.training.job import _publish
from pipelines.training.launcher import Scale, scale_for
from pipelines.training.log import read_rows
from storage.commit.lease import Lease
from tests.support.training_city import SIDE, write_city, write_tiny_vit

EPOCHS = 8


@dataclass(frozen=True)
class Trained:
    city: Path
    vit: Path
    out: Path
    report: dict[str, Any]

    @property
    def run(self) -> Path:
        return self.out.with_suffix(".run")


def arguments(city: Path, vit: Path, out: Path, *more: str) -> list[str]:
    told = ["finetune", str(city), "--out", str(out), "--model", str(vit), "--image-size", f"{SIDE}x{SIDE}"]
    told += ["--queries-per-epoch", "8", "--queries-per-round", "4", "--batch", "2", "--threads", "1"]
    told += ["--learning-rate", "1e-3", "--val-candidates", "8", "--json", "--quiet"]
    return [*told, *more]


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory, local_ray: None) -> Trained:
    """Two workers train; one training photo in twenty-four cannot be read."""
    folder = tmp_path_factory.mktemp("finetune")
    city, vit = write_city(folder / "city"), write_tiny_vit(folder / "vit.safetensors")
    broken = sorted((city / "images/train/database").iterdir())[0]
    broken.write_bytes(broken.read_bytes()[:300])
    out = folder / "tuned.safetensors"
    told = arguments(city, vit, out, "--workers", "2", "--epochs", str(EPOCHS), "--patience", str(EPOCHS))
    assert main(told) == 0
    return Trained(city, vit, out, json.loads((out.with_suffix(".run") / "report.json").read_text()))


def recall_of(trained: Trained, model: Path, capsys: pytest.CaptureFixture[str]) -> Any:
    capsys.readouterr()
    told = ["evaluate", str(trained.city), "--split", "val", "--model", str(model), "--json", "--quiet"]
    assert main([*told, "--image-size", f"{SIDE}x{SIDE}", "--candidates", "8"]) == 0
    return json.loads(capsys.readouterr().out)["recall"]


def test_recall_rises_and_the_report_says_what_evaluate_says(
    trained: Trained, capsys: pytest.CaptureFixture[str]
) -> None:
    recall = trained.report["recall"]
    assert recall["after"]["global"]["1"] > recall["before"]["global"]["1"]
    assert recall["before"] == recall_of(trained, trained.vit, capsys)
    assert recall["after"] == recall_of(trained, trained.out, capsys)
    facts = trained.report["facts"]
    assert (facts["workers"], facts["photos_left_out"]) == (2, 1)
    assert facts["steps"] == EPOCHS * 4
    assert 1 <= facts["best_epoch"] <= EPOCHS
    page = (trained.run / "report.html").read_text()
    assert f"{recall['after']['global']['1']:.1f}" in page


def test_the_weights_differ_in_trained_tensors_and_name_themselves(trained: Trained) -> None:
    before, after = load_extractor(str(trained.vit)), load_extractor(str(trained.out))
    assert before.card.model == after.card.model
    assert (
        before.card.weights_sha256 != after.card.weights_sha256 == trained.report["facts"]["weights_sha256"]
    )
    photo = np.zeros((SIDE, SIDE, 3), np.uint8) + 90
    assert not np.allclose(before.extract([photo])[0], after.extract([photo])[0])


def test_the_log_holds_every_epoch_once(trained: Trained) -> None:
    rows = read_rows(trained.run / "log.csv")
    validated = [row for row in rows if row["kind"] == "validation"]
    assert [int(row["epoch"]) for row in validated] == list(range(EPOCHS + 1))
    steps = [int(row["step"]) for row in rows if row["kind"] == "step"]
    assert steps[-1] == EPOCHS * 4
    assert steps == sorted(set(steps))
    assert all(float(row["images_per_s"]) > 0 for row in rows if row["kind"] == "step")
    assert list((trained.run / "tensorboard").iterdir())
    rejected = (trained.run / "rejected.csv").read_text()
    assert "@601000.00@" in rejected


def test_best_and_last_checkpoints_are_kept(trained: Trained) -> None:
    kept = list((trained.run / "checkpoints").glob("checkpoint_2*"))
    assert 1 <= len(kept) <= 2
    assert all((folder / "state.safetensors").stat().st_size > 10_000 for folder in kept)


def test_weights_that_exist_are_not_overwritten(trained: Trained, capsys: pytest.CaptureFixture[str]) -> None:
    content = trained.out.read_bytes()
    assert main(arguments(trained.city, trained.vit, trained.out)) == 2
    assert "not overwritten" in capsys.readouterr().err
    assert trained.out.read_bytes() == content


@pytest.mark.slow
def test_a_finished_run_with_its_weights_gone_writes_the_same_again(
    trained: Trained, tmp_path: Path, local_ray: None
) -> None:
    shutil.copytree(trained.run, tmp_path / "tuned.run")
    told = arguments(trained.city, trained.vit, tmp_path / "tuned.safetensors", "--workers", "2")
    assert main([*told, "--epochs", str(EPOCHS), "--patience", str(EPOCHS)]) == 0
    cards = [load_extractor(str(path)).card for path in (tmp_path / "tuned.safetensors", trained.out)]
    assert cards[0] == cards[1]  # the digest of every tensor among it


def test_a_run_of_other_settings_is_refused(trained: Trained, capsys: pytest.CaptureFixture[str]) -> None:
    told = arguments(trained.city, trained.vit, trained.out.with_name("other.safetensors"))
    assert main([*told, "--run", str(trained.run), "--epochs", str(EPOCHS), "--seed", "4"]) == 2
    said = capsys.readouterr().err
    assert "seed" in said
    assert "--run" in said


def fails(told: list[str], capsys: pytest.CaptureFixture[str], code: int = 2) -> str:
    assert main(told) == code
    said = capsys.readouterr().err
    assert said.startswith("placeray finetune: ")
    assert len(said.splitlines()) == 1
    return said


def test_bad_input_is_named_before_anything_starts(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    city = write_city(tmp_path / "city", places=4, val_places=3)
    vit = write_tiny_vit(tmp_path / "v.safetensors")
    out = tmp_path / "tuned.safetensors"

    def told(*more: str) -> str:
        return fails(arguments(city, vit, out, *more), capsys)

    assert "images/evening/" in told("--split", "evening")
    assert "--val" in told("--val-split", "train")
    assert "within 1 m" in told("--positive-m", "1")
    assert "workers" in told("--workers", "3")
    assert "multiple" in told("--image-size", "50x50")
    assert "learning_rate" in told("--learning-rate", "0")
    assert "no model or file" in told("--model", "resnet")
    assert ".safetensors" in fails(arguments(city, vit, tmp_path / "tuned.pth"), capsys)
    assert "folder" in fails(arguments(city, vit, tmp_path / "no" / "tuned.safetensors"), capsys)
    (tmp_path / "broken.safetensors").write_bytes(vit.read_bytes()[:5000])
    assert "safetensors" in told("--model", str(tmp_path / "broken.safetensors"))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["broken.safetensors", "city", "v.safetensors"]


def test_too_many_unreadable_photos_are_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], local_ray: None
) -> None:
    city = write_city(tmp_path / "city", places=4, val_places=3)
    vit = write_tiny_vit(tmp_path / "v.safetensors")
    for photo in sorted((city / "images/train/queries").iterdir())[:2]:
        photo.write_bytes(b"no photo")
    said = fails(arguments(city, vit, tmp_path / "tuned.safetensors"), capsys)
    assert "2 photos (14%)" in said
    assert "--max-rejected" in said


class Machine:
    """A Ray of two cores and one GPU."""

    @staticmethod
    def cluster_resources() -> dict[str, float]:
        return {"CPU": 2.0, "GPU": 1.0}


@pytest.mark.parametrize(
    ("workers", "gpus", "scale"),
    [
        ((2, 2), 0.0, Scale(2, 1, 0.0)),
        ((1, 1), 0.0, Scale(1, 2, 0.0)),
        ((1, 4), 0.0, Scale((1, 4), 1, 0.0)),
        ((1, 1), None, Scale(1, 1, 1.0)),
        ((2, 2), 0.5, Scale(2, 1, 0.5)),
        ((3, 3), 0.0, None),
        ((2, 2), None, None),
    ],
)
def test_workers_share_the_machine_or_are_refused_unless_a_cluster_may_grow(
    workers: tuple[int, int], gpus: float | None, scale: Scale | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    if scale is not None:
        assert scale_for(Machine, workers, gpus) == scale
        return
    with pytest.raises(BadSettings, match="fewer --workers"):
        scale_for(Machine, workers, gpus)
    monkeypatch.setenv("RAY_ADDRESS", "10.0.0.1:6379")
    assert scale_for(Machine, workers, gpus).workers == workers[0]


def test_a_run_that_goes_on_already_is_not_disturbed(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    city = write_city(tmp_path / "city", places=4, val_places=3)
    vit = write_tiny_vit(tmp_path / "v.safetensors")
    out = tmp_path / "tuned.safetensors"
    out.with_suffix(".run").mkdir()
    with Lease(out.with_suffix(".run")):
        said = fails(arguments(city, vit, out), capsys, code=4)
    assert f"process {os.getpid()}" in said
    assert not out.exists()


@pytest.mark.parametrize("linked", [True, False], ids=["one disk", "two disks"])
def test_weights_are_put_in_place_whole_and_over_no_other_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, linked: bool
) -> None:
    def no_link(source: Path, target: Path) -> None:
        raise OSError(errno.EXDEV, "Invalid cross-device link")

    if not linked:
        monkeypatch.setattr(os, "link", no_link)
    trained, out = tmp_path / "trained", tmp_path / "out"
    trained.write_bytes(b"new")
    _publish(trained, out)
    assert (out.read_bytes(), [path.name for path in tmp_path.iterdir()]) == (b"new", ["out"])
    trained.write_bytes(b"newer")
    with pytest.raises(BadSettings, match="not overwritten"):
        _publish(trained, out)
    assert (out.read_bytes(), trained.read_bytes()) == (b"new", b"newer")


@pytest.mark.slow
def test_elastic_workers_and_checkpoints_elsewhere(trained: Trained, tmp_path: Path, local_ray: None) -> None:
    out, elsewhere = tmp_path / "elastic.safetensors", tmp_path / "elsewhere"
    told = arguments(trained.city, trained.vit, out, "--workers", "1..2", "--storage", str(elsewhere))
    assert main([*told, "--epochs", "2"]) == 0
    report = json.loads((out.with_suffix(".run") / "report.json").read_text())
    assert report["facts"]["workers"] in (1, 2)
    assert list((elsewhere / "elastic.run").glob("checkpoint_2*/state.safetensors"))
    assert not (out.with_suffix(".run") / "checkpoints").exists()


@pytest.mark.slow
def test_what_no_retry_mends_is_named_after_training_began(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], local_ray: None
) -> None:
    city = write_city(tmp_path / "city", places=4, val_places=3)
    vit = write_tiny_vit(tmp_path / "v.safetensors")
    out = tmp_path / "tuned.safetensors"
    said = fails(arguments(city, vit, out, "--learning-rate", "1e30", "--max-failures", "1"), capsys)
    assert "smaller --learning-rate" in said
    assert not out.exists()
