"""The training loop on a tiny set: learning, resuming, sharing, stopping."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from models.checkpoints.tensors import weights_digest
from models.errors import WeightsRejected
from models.training.options import Augmentation
from models.training.trainable import trainable_parameters, trainable_state
from pipelines.training.checkpoints import STATE, restore
from pipelines.training.data import open_training_set
from pipelines.training.errors import BadSettings, DataRejected, MiningRejected, TrainingDiverged
from pipelines.training.loop import TrainingLoop
from pipelines.training.mining import MiningState
from pipelines.training.settings import TrainingSettings
from pipelines.training.state import Progress
from pipelines.training.worker import trainable_model
from pipelines.training.worker_group import WorkerGroup
from tests.support.training_city import tiny_settings, write_city, write_tiny_vit
from tests.support.training_workers import work, work_in_processes


class Stopped(Exception):
    """The power goes out."""


@pytest.fixture(scope="module")
def city(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_city(tmp_path_factory.mktemp("training") / "city")


@pytest.fixture(scope="module")
def vit(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny_vit(tmp_path_factory.mktemp("training") / "vit.safetensors")


@pytest.fixture(autouse=True)
def _one_thread() -> Any:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def make_loop(city: Path, settings: TrainingSettings, **options: Any) -> TrainingLoop:
    model, card = trainable_model(settings)
    sets = (open_training_set(city, split=split) for split in ("train", "val"))
    return TrainingLoop(model, card.preprocessing, settings, *sets, **options)


def stop_after(rounds: int, path: Path) -> Callable[[TrainingLoop, bool], None]:
    def on_round(loop: TrainingLoop, best: bool) -> None:
        if loop.progress.mining.round == rounds:
            loop.save(path, {})
            raise Stopped

    return on_round


def same(one: dict[str, Tensor], other: dict[str, Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


@pytest.mark.long  # the test of the whole verb sees recall rise too
def test_a_vit_learns_to_recognise_unseen_places(city: Path, vit: Path) -> None:
    rows: list[dict[str, Any]] = []
    loop = make_loop(city, tiny_settings(vit, epochs=15, patience=15), on_row=rows.append)
    loop.run()
    loop.close()
    recall = [row["recall_global_1"] for row in rows if row["kind"] == "validation"]
    loss = [row["triplet_loss"] for row in rows if row["kind"] == "step"]
    assert len(recall) == 16
    assert recall[-1] >= recall[0] + 25
    assert np.mean(loss[-6:]) < 0.8 * np.mean(loss[:6])


def test_training_changes_only_trainable_weights(city: Path, vit: Path) -> None:
    loop = make_loop(city, tiny_settings(vit, epochs=1))
    trained = trainable_parameters(loop.model)

    def frozen() -> str:
        return weights_digest(
            {name: tensor for name, tensor in loop.model.state_dict().items() if name not in trained}
        )

    before, frozen_before = trainable_state(loop.model), frozen()
    loop.run()
    loop.close()
    after = trainable_state(loop.model)
    assert [name for name in before if torch.equal(before[name], after[name])] == []
    assert frozen() == frozen_before


AUGMENTED = Augmentation(jitter=0.2, flip=0.5)


@pytest.mark.integration
@pytest.mark.parametrize(
    ("mining", "augmentation"),
    [
        ("partial", Augmentation()),
        ("full", AUGMENTED),
        pytest.param("random", Augmentation(), marks=pytest.mark.long),
        pytest.param("partial", AUGMENTED, marks=pytest.mark.long),
        pytest.param("full", Augmentation(), marks=pytest.mark.long),
        pytest.param("random", AUGMENTED, marks=pytest.mark.long),
    ],
)
def test_a_resumed_run_equals_an_uninterrupted_one(
    city: Path, vit: Path, tmp_path: Path, mining: str, augmentation: Augmentation
) -> None:
    settings = tiny_settings(vit, mining=mining, augmentation=augmentation)
    whole_rows: list[dict[str, Any]] = []
    whole = make_loop(city, settings, on_row=whole_rows.append)
    whole.run()
    saved = tmp_path / "state"
    first = make_loop(city, settings, on_round=stop_after(3, saved))
    with pytest.raises(Stopped):
        first.run()
    torch.manual_seed(987)  # a new process has another random state
    rows: list[dict[str, Any]] = []
    second = make_loop(city, settings, on_row=rows.append)
    assert second.restore(saved) == {}
    assert second.progress == first.progress
    second.run()
    for loop in (whole, first, second):
        loop.close()
    # Bit for bit, on one machine with the same number of threads.
    assert same(trainable_state(whole.model), trainable_state(second.model))
    assert second.progress.mining == whole.progress.mining
    results = [
        [row["triplet_loss"] for row in every if row["kind"] == "step"] for every in (whole_rows, rows)
    ]
    assert results[1] == results[0][-len(results[1]) :]
    assert 0 < len(results[1]) < len(results[0])


@pytest.mark.parametrize(
    "change",
    [{"epoch": -1}, {"step": "many"}, {"round": None}, {"best": 5}, {"best": ["nan"]}, {"seconds": 1e999}],
)
def test_a_checkpoint_without_valid_progress_is_refused(change: dict[str, Any]) -> None:
    progress = Progress(MiningState("full", 3, 1, {2: (5, 6)}), epoch=2, best=(1.5, 2.0), validated=True)
    values = json.loads(json.dumps(progress.to_dict()))
    assert Progress.from_dict(values) == progress
    for wrong in (values | change, {**values, "mining": None}, [], None):
        with pytest.raises((WeightsRejected, MiningRejected), match="resume from another"):
            Progress.from_dict(wrong)


def test_checkpoints_of_another_run_are_refused_with_the_difference(
    city: Path, vit: Path, tmp_path: Path
) -> None:
    settings = tiny_settings(vit)
    run = {"digest": "d", "weights": "w"}
    loop = make_loop(city, settings)
    loop.save(tmp_path / STATE, run | {"settings": settings.to_dict()})

    class Stored:
        @staticmethod
        def as_directory() -> contextlib.AbstractContextManager[Path]:
            return contextlib.nullcontext(tmp_path)

    restore(loop, Stored, tiny_settings(vit, threads=5), **run)
    assert loop.progress == Progress(MiningState())
    with pytest.raises(BadSettings, match=r"another margin.*--storage"):
        restore(loop, Stored, tiny_settings(vit, margin=0.2), **run)
    with pytest.raises(BadSettings, match="another model"):
        restore(loop, Stored, settings, **run | {"weights": "others"})
    with pytest.raises(DataRejected, match="photos"):
        restore(loop, Stored, settings, **run | {"digest": "others"})
    loop.save(tmp_path / STATE, {})
    with pytest.raises(BadSettings, match="another"):
        restore(loop, Stored, settings, **run)
    loop.close()


def test_an_epoch_has_at_most_queries_per_epoch(city: Path, vit: Path) -> None:
    loop = make_loop(city, tiny_settings(vit, queries_per_epoch=6, queries_per_round=1000))
    triplets, _ = loop.triplets_of_round()
    loop.close()
    assert len(triplets) == 6
    assert (loop.rounds_per_epoch, loop.steps_per_round) == (1, 3)


def test_augmentation_changes_the_trained_weights(city: Path, vit: Path) -> None:
    ends = []
    for augmentation in (Augmentation(), Augmentation(rotation_deg=10)):
        loop = make_loop(city, tiny_settings(vit, epochs=1, augmentation=augmentation))
        loop.run()
        loop.close()
        ends.append(trainable_state(loop.model))
    assert not same(*ends)


@pytest.mark.integration
# 2: one part has two queries, the other one
@pytest.mark.parametrize("parts", [2, pytest.param(3, marks=pytest.mark.slow)])
def test_accumulated_gradients_equal_those_of_one_pass(city: Path, vit: Path, parts: int) -> None:
    one, several = (
        work(WorkerGroup(), tiny_settings(vit, batch=3, accumulate=number), city) for number in (1, parts)
    )
    assert several["triplets"] == one["triplets"]
    require_close(several, one)


def require_close(actual: dict[str, Any], expected: dict[str, Any]) -> None:
    """Losses and gradients may differ by rounding: sums are taken in another order."""
    assert actual["losses"] == pytest.approx(expected["losses"], rel=1e-5, abs=1e-7)
    assert actual["gradients"].keys() == expected["gradients"].keys()
    for name, gradient in expected["gradients"].items():
        largest = max(map(abs, gradient))
        assert actual["gradients"][name] == pytest.approx(gradient, rel=1e-4, abs=1e-5 * largest + 1e-9), name
    assert any(any(gradient) for gradient in expected["gradients"].values())


@pytest.mark.integration
@pytest.mark.long
# 3: one worker has two queries, the other one
@pytest.mark.parametrize("batch", [2, pytest.param(3, marks=pytest.mark.slow)])
def test_two_workers_compute_the_gradient_of_one(city: Path, vit: Path, tmp_path: Path, batch: int) -> None:
    settings = tiny_settings(vit, batch=batch)
    alone = work(WorkerGroup(), settings, city)
    together = work_in_processes(2, settings, city, tmp_path)
    for worker in together:
        assert worker["triplets"] == alone["triplets"]
        assert worker["recalls"] == alone["recalls"]
        require_close(worker, alone)
    assert together[0]["gradients"] == together[1]["gradients"]


def test_training_stops_when_validation_does_not_improve(city: Path, vit: Path) -> None:
    best: list[bool] = []
    # A rate so small that no answer changes.
    loop = make_loop(
        city,
        tiny_settings(vit, epochs=9, patience=2, learning_rate=1e-12),
        on_round=lambda loop, is_best: best.append(is_best),
    )
    loop.run()
    loop.close()
    assert loop.finished
    assert loop.progress.epoch == 2
    assert (loop.progress.misses, loop.progress.best_epoch) == (2, 0)
    assert best == [True, False, False, False, False]


def test_a_loss_of_nan_is_reported(city: Path, vit: Path) -> None:
    loop = make_loop(city, tiny_settings(vit, learning_rate=1e30))
    with pytest.raises(TrainingDiverged, match="smaller --learning-rate"):
        loop.run()
    loop.close()


@pytest.mark.integration
def test_training_works_in_bf16_and_with_recomputation(city: Path, vit: Path) -> None:
    exact, mixed, again = (
        work(WorkerGroup(), tiny_settings(vit, **changes), city)
        for changes in ({}, {"precision": "bf16"}, {"recompute": True})
    )
    require_close(again, exact)
    assert mixed["losses"] != exact["losses"]
    assert mixed["losses"] == pytest.approx(exact["losses"], rel=0.2, abs=0.05)


def test_a_photo_lost_during_training_is_reported(city: Path, vit: Path, tmp_path: Path) -> None:
    own = write_city(tmp_path / "own")
    loop = make_loop(own, tiny_settings(vit))
    for photo in (own / "images" / "train" / "queries").iterdir():
        photo.unlink()
    with pytest.raises(DataRejected, match="restore it") as lost:
        loop.run()
    loop.close()
    assert lost.value.reason == "photo_lost"
