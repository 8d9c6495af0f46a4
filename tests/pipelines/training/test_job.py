"""The finetune verb on Ray Train: the weights, the report, resuming, errors."""

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
from pipelines.training.launcher import Scale, _trainer, scale_for
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
    command = [
        "finetune",
        str(city),
        "--out",
        str(out),
        "--model",
        str(vit),
        "--image-size",
        f"{SIDE}x{SIDE}",
    ]
    command += ["--queries-per-epoch", "8", "--queries-per-round", "4", "--batch", "2", "--threads", "1"]
    command += ["--learning-rate", "1e-3", "--val-candidates", "8", "--json", "--quiet"]
    return [*command, *more]


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory, local_ray: None) -> Trained:
    """A finished run of two workers; one of its 24 training photos cannot be read."""
    folder = tmp_path_factory.mktemp("finetune")
    city, vit = write_city(folder / "city"), write_tiny_vit(folder / "vit.safetensors")
    broken = sorted((city / "images/train/database").iterdir())[0]
    broken.write_bytes(broken.read_bytes()[:300])
    out = folder / "tuned.safetensors"
    command = arguments(city, vit, out, "--workers", "2", "--epochs", str(EPOCHS), "--patience", str(EPOCHS))
    assert main(command) == 0
    return Trained(city, vit, out, json.loads((out.with_suffix(".run") / "report.json").read_text()))


def recall_of(trained: Trained, model: Path, capsys: pytest.CaptureFixture[str], *way: str) -> Any:
    capsys.readouterr()
    command = ["evaluate", str(trained.city), "--split", "val", "--model", str(model), "--json", "--quiet"]
    assert main([*command, "--image-size", f"{SIDE}x{SIDE}", "--candidates", "8", *way]) == 0
    return json.loads(capsys.readouterr().out)["recall"]


def test_recall_rises_and_the_report_equals_evaluate(
    trained: Trained, capsys: pytest.CaptureFixture[str]
) -> None:
    recall = trained.report["recall"]
    assert recall["after"]["global"]["1"] > recall["before"]["global"]["1"]
    facts = trained.report["facts"]
    assert recall["after"] == recall_of(trained, trained.out, capsys)  # as its card says
    assert (facts["workers"], facts["photos_left_out"]) == (2, 1)
    assert facts["steps"] == EPOCHS * 4
    assert 1 <= facts["best_epoch"] <= EPOCHS
    page = (trained.run / "report.html").read_text()
    assert f"{recall['after']['global']['1']:.1f}" in page


@pytest.mark.long
def test_recall_before_equals_evaluate_too(trained: Trained, capsys: pytest.CaptureFixture[str]) -> None:
    facts = trained.report["facts"]
    way = ["--aggregation", facts["aggregation_before"], "--score", facts["score_before"]]
    assert trained.report["recall"]["before"] == recall_of(trained, trained.vit, capsys, *way)


def test_the_best_of_four_ways_is_chosen_before_and_after(trained: Trained) -> None:
    facts = trained.report["facts"]
    card = load_extractor(str(trained.out)).card
    assert (card.aggregation, card.score) == (facts["aggregation"], facts["score"])
    for when, chosen in (("before", "_before"), ("after", "")):
        ways = facts[f"{when}_ways"]
        assert set(ways) == {f"{one}, {score}" for one in ("gem", "learned") for score in ("votes", "count")}
        best = ways[f"{facts['aggregation' + chosen]}, {facts['score' + chosen]}"]
        assert sum(best.values()) == max(sum(way.values()) for way in ways.values())
        assert {stage: trained.report["recall"][when][stage]["1"] for stage in best} == best
    best = max(facts["before_ways"].values(), key=lambda way: sum(way.values()))
    over, recall = facts["gain_over_best_before"], trained.report["recall"]["after"]
    assert sum(recall[stage]["1"] for stage in best) - sum(best.values()) == pytest.approx(
        over["global"] + over["reranked"], abs=0.02
    )
    assert facts["kept_untrained"] is False


def test_trained_weights_differ_and_carry_their_own_digest(trained: Trained) -> None:
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


@pytest.mark.parametrize("of_user", [None, "7"])
def test_ray_train_looks_often_for_reports_unless_the_user_says_how_often(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, local_ray: None, of_user: str | None
) -> None:
    name = "RAY_TRAIN_HEALTH_CHECK_INTERVAL_S"
    monkeypatch.setenv(name, of_user or "")
    if of_user is None:
        monkeypatch.delenv(name)
    _trainer({}, Scale(1, 1, 0.0), tmp_path, None, 0)
    assert (os.environ[name] == of_user) if of_user else (float(os.environ[name]) < 1)


def test_best_and_last_checkpoints_are_kept(trained: Trained) -> None:
    checkpoints = list((trained.run / "checkpoints").glob("checkpoint_2*"))
    assert 1 <= len(checkpoints) <= 2
    assert all((folder / "state.safetensors").stat().st_size > 10_000 for folder in checkpoints)


def test_weights_that_exist_are_not_overwritten(trained: Trained, capsys: pytest.CaptureFixture[str]) -> None:
    content = trained.out.read_bytes()
    assert main(arguments(trained.city, trained.vit, trained.out)) == 2
    assert "not overwritten" in capsys.readouterr().err
    assert trained.out.read_bytes() == content


@pytest.mark.slow
def test_rerunning_a_finished_run_writes_the_same_weights(
    trained: Trained, tmp_path: Path, local_ray: None
) -> None:
    shutil.copytree(trained.run, tmp_path / "tuned.run")
    command = arguments(trained.city, trained.vit, tmp_path / "tuned.safetensors", "--workers", "2")
    assert main([*command, "--epochs", str(EPOCHS), "--patience", str(EPOCHS)]) == 0
    cards = [load_extractor(str(path)).card for path in (tmp_path / "tuned.safetensors", trained.out)]
    assert cards[0] == cards[1]  # including the digest of all tensors


def test_resuming_with_other_settings_is_refused(
    trained: Trained, capsys: pytest.CaptureFixture[str]
) -> None:
    command = arguments(trained.city, trained.vit, trained.out.with_name("other.safetensors"))
    assert main([*command, "--run", str(trained.run), "--epochs", str(EPOCHS), "--seed", "4"]) == 2
    message = capsys.readouterr().err
    assert "seed" in message
    assert "--run" in message


def error_of(command: list[str], capsys: pytest.CaptureFixture[str], code: int = 2) -> str:
    assert main(command) == code
    message = capsys.readouterr().err
    assert message.startswith("placeray finetune: ")
    assert len(message.splitlines()) == 1
    return message


def test_invalid_input_is_reported_before_training(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    city = write_city(tmp_path / "city", places=4, val_places=3)
    vit = write_tiny_vit(tmp_path / "v.safetensors")
    out = tmp_path / "tuned.safetensors"

    def refusal(*more: str) -> str:
        return error_of(arguments(city, vit, out, *more), capsys)

    assert "images/evening/" in refusal("--split", "evening")
    assert "--val" in refusal("--val-split", "train")
    assert "within 1 m" in refusal("--positive-m", "1")
    assert "workers" in refusal("--workers", "3")
    assert "multiple" in refusal("--image-size", "50x50")
    assert "learning_rate" in refusal("--learning-rate", "0")
    assert "unknown model or file" in refusal("--model", "resnet")
    assert ".safetensors" in error_of(arguments(city, vit, tmp_path / "tuned.pth"), capsys)
    assert "folder" in error_of(arguments(city, vit, tmp_path / "no" / "tuned.safetensors"), capsys)
    (tmp_path / "broken.safetensors").write_bytes(vit.read_bytes()[:5000])
    assert "safetensors" in refusal("--model", str(tmp_path / "broken.safetensors"))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["broken.safetensors", "city", "v.safetensors"]


def test_too_many_unreadable_photos_are_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], local_ray: None
) -> None:
    city = write_city(tmp_path / "city", places=4, val_places=3)
    vit = write_tiny_vit(tmp_path / "v.safetensors")
    for photo in sorted((city / "images/train/queries").iterdir())[:2]:
        photo.write_bytes(b"no photo")
    message = error_of(arguments(city, vit, tmp_path / "tuned.safetensors"), capsys)
    assert "2 photos (14%)" in message
    assert "--max-rejected" in message


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
def test_scale_for_divides_the_machine_and_refuses_more_unless_on_a_cluster(
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


def test_a_locked_run_folder_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    city = write_city(tmp_path / "city", places=4, val_places=3)
    vit = write_tiny_vit(tmp_path / "v.safetensors")
    out = tmp_path / "tuned.safetensors"
    out.with_suffix(".run").mkdir()
    with Lease(out.with_suffix(".run")):
        message = error_of(arguments(city, vit, out), capsys, code=4)
    assert f"process {os.getpid()}" in message
    assert not out.exists()


@pytest.mark.parametrize("linked", [True, False], ids=["one disk", "two disks"])
def test_publish_moves_the_weights_and_never_overwrites(
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
def test_elastic_workers_with_separate_checkpoint_storage(
    trained: Trained, tmp_path: Path, local_ray: None
) -> None:
    out, elsewhere = tmp_path / "elastic.safetensors", tmp_path / "elsewhere"
    command = arguments(trained.city, trained.vit, out, "--workers", "1..2", "--storage", str(elsewhere))
    assert main([*command, "--epochs", "2"]) == 0
    report = json.loads((out.with_suffix(".run") / "report.json").read_text())
    assert report["facts"]["workers"] in (1, 2)
    assert list((elsewhere / "elastic.run").glob("checkpoint_2*/state.safetensors"))
    assert not (out.with_suffix(".run") / "checkpoints").exists()


@pytest.mark.slow
def test_errors_that_no_retry_can_mend_are_reported(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], local_ray: None
) -> None:
    city = write_city(tmp_path / "city", places=4, val_places=3)
    vit = write_tiny_vit(tmp_path / "v.safetensors")
    out = tmp_path / "tuned.safetensors"
    message = error_of(arguments(city, vit, out, "--learning-rate", "1e30", "--max-failures", "1"), capsys)
    assert "smaller --learning-rate" in message
    assert not out.exists()
