"""One worker of a training run under Ray Train: loads data and model, trains, reports to the driver."""

from __future__ import annotations

import contextlib
import importlib.util
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from models.custom.network import OwnNetwork
from models.errors import WeightsRejected
from models.networks.efficientnet import EfficientNetLite0
from models.networks.selavprpp import SelaVPRpp
from models.training.checkpoint import read_trained
from models.weights import load_network
from pipelines.training.checkpoints import STATE, checkpoint_of, disk_full, restore
from pipelines.training.data import DataFolders
from pipelines.training.errors import BadSettings, DataRejected, MiningRejected, TrainingDiverged
from pipelines.training.loop import TrainingLoop
from pipelines.training.rankings import AggregationKind, Ranking
from pipelines.training.settings import TrainingSettings
from pipelines.training.worker_group import WorkerGroup
from storage.card import Card
from storage.errors import OutOfSpace

__all__ = ["starts_unchanged", "trainable_model", "work"]

# Candidate values of min_similarity, in addition to the model's own.
_FLOORS: tuple[float | None, ...] = (None, 0.4, 0.5, 0.6, 0.7, 0.8)
_NAMED = (BadSettings, DataRejected, MiningRejected, TrainingDiverged, OutOfSpace, WeightsRejected)


def trainable_model(settings: TrainingSettings) -> tuple[Any, Card]:
    """Load the model that training starts from, with adapters and head to train, and its card.

    The card is that of the model as it was loaded.
    """
    model, card = load_network(settings.model, image_size=settings.image_size)
    if isinstance(model, EfficientNetLite0):
        try:
            model.add_adapters(settings.adapter_stages)
        except ValueError as error:
            raise BadSettings(str(error)) from error
    if isinstance(model, OwnNetwork):
        raise BadSettings(f"{settings.model} has no adapters that can be trained: choose another --model")
    if isinstance(model, SelaVPRpp):
        if importlib.util.find_spec("pytorch_metric_learning") is None:
            raise BadSettings(
                "training SelaVPR++ needs pytorch-metric-learning: pip install 'placeray[train]'"
            )
        model.train_branch(codes=settings.codes)
        return model, card
    if settings.codes:
        raise BadSettings(f"{settings.model} is not a SelaVPR++ and has no codes: leave --codes out")
    if settings.local_head or not isinstance(model, EfficientNetLite0):
        model.add_local_head()
    return model, card


def starts_unchanged(model: Any, settings: TrainingSettings) -> bool:
    """Return whether `trainable_model` works as the model it was made of; a new head of features does not."""
    return isinstance(model, EfficientNetLite0) and not settings.local_head


def work(config: dict[str, Any]) -> None:
    """Train as one worker of a group.

    Args:
        config: `settings` (`TrainingSettings`), `data` (`DataFolders`), `digest` of its photos,
            `choose_floor`, `board` (actor handle of a `Board`), `threads` per worker.
    """
    import ray

    board = config["board"]
    # Otherwise a retry would repeat the work up to the same error.
    earlier = ray.get(board.error.remote())
    if earlier is not None:
        raise earlier
    try:
        _train(config)
    except _NAMED as error:
        ray.get(board.set_error.remote(error))
        raise


def _train(config: dict[str, Any]) -> None:
    import ray
    import ray.train
    import ray.train.torch

    context, board = ray.train.get_context(), config["board"]
    rank = context.get_world_rank()
    settings: TrainingSettings = config["settings"]
    torch.set_num_threads(settings.threads or config["threads"])
    data: DataFolders = config["data"]
    training, validation = data.open()
    if training.digest + validation.digest != config["digest"]:
        raise DataRejected(
            "changed",
            f"photos in {data.dataset} or {data.val} changed since training began: restore them",
        )
    model, card = trainable_model(settings)
    group = WorkerGroup(rank, context.get_world_size(), ray.train.torch.get_device())
    put_event: Callable[[dict[str, Any]], Any] = board.put_event.remote if rank == 0 else lambda event: None

    # Identifies the run of a checkpoint: a shared folder may hold those of another run.
    run = {"digest": config["digest"], "weights": card.weights_sha256}

    def report(loop: TrainingLoop, best: bool) -> None:
        with checkpoint_of(loop, run | {"settings": settings.to_dict()}, rank) as checkpoint:
            # A later best epoch replaces an earlier one; other epochs stay only while they are the last.
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
        on_row=lambda row: put_event({"event": "row", **row}),
        on_round=report,
        decode_threads=max(1, config["threads"]) if group.device.type == "cpu" else 8,
    )
    with contextlib.closing(loop):
        last = ray.train.get_checkpoint()
        if last is not None:
            restore(loop, last, settings, **run)
        total = settings.epochs * loop.rounds_per_epoch * loop.steps_per_round
        resumed = last is not None
        begun = {"step": loop.progress.step, "total_steps": total, "resumed": resumed}
        put_event({"event": "start", **begun, "losses": loop.losses})
        loop.run()
        result = _choose_floor(ray, loop, config["choose_floor"])
        if rank == 0:
            done = loop.progress
            result |= {"epochs": done.epoch, "best_epoch": done.best_epoch, "steps": done.step}
            result |= {"seconds": done.seconds, "workers": group.size, "device": _device_name(group.device)}
            ray.get(board.set_result.remote(result))


def _choose_floor(ray: Any, loop: TrainingLoop, wanted: bool) -> dict[str, Any]:
    """Choose the min_similarity with which the best epoch re-ranks best; SelaVPR is trained without one.

    The candidates are those of the descriptors with which the epoch was chosen.
    """
    own: float | None = loop.model.min_similarity
    if not wanted or not isinstance(loop.model, EfficientNetLite0):
        return {"floor": own, "floors": {}}
    best = max(ray.train.get_all_reported_checkpoints(), key=lambda reported: reported.metrics["score"])
    with best.checkpoint.as_directory() as folder:
        read_trained(Path(folder, STATE), loop.model)
    aggregation: AggregationKind = "learned" if loop.progress.ranking[0] == "learned" else "gem"
    measured = loop.validate([Ranking(aggregation, "count", floor) for floor in _FLOORS])
    recalls = dict(zip(_FLOORS, measured, strict=True))
    chosen = max(
        _FLOORS, key=lambda floor: (recalls[floor].reranked_1, recalls[floor].reranked_5, floor == own)
    )
    return {"floor": chosen, "floors": {str(floor): recalls[floor].reranked_1 for floor in _FLOORS}}


def _device_name(device: torch.device) -> str:
    return torch.cuda.get_device_name(device) if device.type == "cuda" else device.type
