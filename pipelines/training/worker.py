"""One worker of a training run under Ray Train: data, model, checkpoints, and what it tells the driver."""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from models.checkpoints.tensors import WeightsRejected
from models.networks.efficientnet import EfficientNetLite0
from models.training.checkpoint import read_trained
from models.weights import load_network
from pipelines.training.data import TrainingSet, open_training_set
from pipelines.training.errors import BadSettings, DataRejected, MiningRejected, TrainingDiverged
from pipelines.training.loop import TrainingLoop
from pipelines.training.settings import TrainingSettings
from pipelines.training.worker_group import WorkerGroup
from storage.card import Card
from storage.errors import OutOfSpace

__all__ = ["STATE", "Board", "DataFolders", "disk_full", "trainable_model", "work"]

# The file of a checkpoint.
STATE = "state.safetensors"
# Which floors are tried, beside what the model came with.
_FLOORS: tuple[float | None, ...] = (None, 0.4, 0.5, 0.6, 0.7, 0.8)
_NAMED = (BadSettings, DataRejected, MiningRejected, TrainingDiverged, OutOfSpace, WeightsRejected)


@dataclass(frozen=True)
class DataFolders:
    """Where the photos are, and which of them to leave out."""

    dataset: str
    split: str
    val: str
    val_split: str
    without: tuple[str, ...] = ()

    def open(self) -> tuple[TrainingSet, TrainingSet]:
        """List the photos to train on and those to validate with."""
        without = frozenset(self.without)
        return (
            open_training_set(self.dataset, split=self.split, without=without),
            open_training_set(self.val, split=self.val_split, without=without),
        )


def trainable_model(settings: TrainingSettings) -> tuple[Any, Card]:
    """Load the model that training starts from, put what is to be trained on it, and return its card too.

    The card is that of the model as it was loaded.
    """
    model, card = load_network(settings.model, image_size=settings.image_size)
    if isinstance(model, EfficientNetLite0):
        try:
            model.add_adapters(settings.adapter_stages)
        except ValueError as error:
            raise BadSettings(str(error)) from error
    if settings.local_head or not isinstance(model, EfficientNetLite0):
        model.add_local_head()
    return model, card


class Board:
    """Where workers put what the driver shows and keeps: rows of the log, refusals, findings."""

    def __init__(self) -> None:
        self._events: list[dict[str, Any]] = []
        self._refused: Exception | None = None
        self._found: dict[str, Any] = {}

    def put(self, event: dict[str, Any]) -> None:
        """Add a row, or the news that training starts."""
        self._events.append(event)

    def take(self) -> list[dict[str, Any]]:
        """Return what was put since the last time."""
        events, self._events = self._events, []
        return events

    def refuse(self, error: Exception) -> None:
        """Keep the first error that no retry can mend."""
        self._refused = self._refused or error

    def refused(self) -> Exception | None:
        """Return that error."""
        return self._refused

    def find(self, found: dict[str, Any]) -> None:
        """Keep what training ended with."""
        self._found = found

    def found(self) -> dict[str, Any]:
        """Return it."""
        return self._found


def work(config: dict[str, Any]) -> None:
    """Train as one worker of a group."""
    import ray

    board = config["board"]
    # What was refused once is refused again: without this a retry would repeat the work up to there.
    refused = ray.get(board.refused.remote())
    if refused is not None:
        raise refused
    try:
        _work_as_told(config)
    except _NAMED as error:
        ray.get(board.refuse.remote(error))
        raise


def _work_as_told(config: dict[str, Any]) -> None:
    import ray
    import ray.train
    import ray.train.torch

    context, board = ray.train.get_context(), config["board"]
    rank = context.get_world_rank()
    settings = TrainingSettings.from_dict(config["settings"])
    torch.set_num_threads(settings.threads or config["threads"])
    data = DataFolders(**config["data"])
    training, validation = data.open()
    if training.digest + validation.digest != config["digest"]:
        raise DataRejected(
            "changed",
            f"photos in {data.dataset} or {data.val} came or went since training began: put them back",
        )
    model, card = trainable_model(settings)
    group = WorkerGroup(rank, context.get_world_size(), ray.train.torch.get_device())
    tell: Callable[[dict[str, Any]], Any] = board.put.remote if rank == 0 else lambda row: None

    # What a checkpoint belongs to: in a shared folder another run's may lie where this one's are sought.
    run = {"digest": config["digest"], "settings": config["settings"], "weights": card.weights_sha256}

    def report(loop: TrainingLoop, best: bool) -> None:
        with _checkpoint_of(loop, run, rank) as checkpoint:
            # The later of two best epochs is better; what is no best epoch is kept as the last one only.
            score = float(loop.progress.epoch + 1 if best else -1)
            with disk_full("the checkpoint"):
                ray.train.report({"score": score}, checkpoint=checkpoint)

    loop = TrainingLoop(
        model,
        card.preprocessing,
        settings,
        training,
        validation,
        group=group,
        on_row=lambda row: tell({"event": "row", **row}),
        on_round=report,
        decode_threads=max(1, config["threads"]) if group.device.type == "cpu" else 8,
    )
    with contextlib.closing(loop):
        last = ray.train.get_checkpoint()
        if last is not None:
            _restore(loop, last, run)
        total = settings.epochs * loop.rounds_per_epoch * loop.steps_per_round
        resumed = last is not None
        tell({"event": "start", "step": loop.progress.step, "total_steps": total, "resumed": resumed})
        loop.run()
        found = _choose_floor(ray, loop, config)
        if rank == 0:
            done = loop.progress
            found |= {"epochs": done.epoch, "best_epoch": done.best_epoch, "steps": done.step}
            found |= {"seconds": done.seconds, "workers": group.size, "device": _device_name(group.device)}
            ray.get(board.find.remote(found))


@contextlib.contextmanager
def _checkpoint_of(loop: TrainingLoop, run: dict[str, Any], rank: int) -> Iterator[Any]:
    """Write a checkpoint on the first worker, for as long as it takes to store it; the others have none."""
    import ray.train

    if rank:
        yield None
        return
    with tempfile.TemporaryDirectory(prefix="placeray-checkpoint-") as folder:
        with disk_full("the checkpoint"):
            loop.save(Path(folder, STATE), run)
        yield ray.train.Checkpoint.from_directory(folder)


@contextlib.contextmanager
def disk_full(what: str) -> Iterator[None]:
    """Name the error of a file that cannot be written."""
    try:
        yield
    except OSError as error:
        raise OutOfSpace(
            f"{what} cannot be written ({error}): make room and run the same command again; the checkpoint "
            "before it is whole"
        ) from error


def _restore(loop: TrainingLoop, checkpoint: Any, run: dict[str, Any]) -> None:
    with checkpoint.as_directory() as folder:
        before = loop.restore(Path(folder, STATE))
    differing = TrainingSettings.from_dict(run["settings"]).differences(before.get("settings"))
    if differing or before.get("weights") != run["weights"]:
        raise BadSettings(
            f"the checkpoints are of a run with another {', '.join(differing or ['model'])}: give another "
            "--storage or --run, or the same settings to go on with it"
        )
    if before.get("digest") != run["digest"]:
        raise DataRejected(
            "changed",
            "the photos are not those that this run was begun with: put them back, or give another --run",
        )


def _choose_floor(ray: Any, loop: TrainingLoop, config: dict[str, Any]) -> dict[str, Any]:
    """Find with which floor of similarity the best epoch re-ranks best; SelaVPR is trained for none."""
    own: float | None = loop.model.min_similarity
    if not config["choose_floor"] or not isinstance(loop.model, EfficientNetLite0):
        return {"floor": own, "floors": {}}
    best = max(ray.train.get_all_reported_checkpoints(), key=lambda reported: reported.metrics["score"])
    with best.checkpoint.as_directory() as folder:
        read_trained(Path(folder, STATE), loop.model)
    recalls = dict(zip(_FLOORS, loop.validate(list(_FLOORS)), strict=True))
    chosen = max(
        _FLOORS, key=lambda floor: (recalls[floor].reranked_1, recalls[floor].reranked_5, floor == own)
    )
    return {"floor": chosen, "floors": {str(floor): recalls[floor].reranked_1 for floor in _FLOORS}}


def _device_name(device: torch.device) -> str:
    return torch.cuda.get_device_name(device) if device.type == "cuda" else device.type
