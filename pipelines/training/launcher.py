"""Runs the workers of a training run under Ray Train, and logs what they report."""

from __future__ import annotations

import os
import threading
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipelines.progress import ProgressBar
from pipelines.ray_session import cluster_address
from pipelines.training.board import Board
from pipelines.training.errors import BadSettings, TrainingFailed
from pipelines.training.log import TrainingLog
from pipelines.training.worker import work

__all__ = ["Scale", "run_workers", "scale_for"]

# How often Ray Train takes what workers report, in seconds. A round waits until the one before was taken; by
# default that is every two seconds, longer than a round of a small city or on a fast accelerator.
_POLL = ("RAY_TRAIN_HEALTH_CHECK_INTERVAL_S", "0.25")


@dataclass(frozen=True)
class Scale:
    """Number of workers and the resources of each."""

    workers: Any  # as Ray Train takes them: a number, or a minimum and a maximum
    cpus: int
    gpus: float


def scale_for(ray: Any, workers: tuple[int, int], gpus_per_worker: float | None) -> Scale:
    """Divide the cluster's cores, and its GPUs where there are any, among the workers.

    Raises:
        BadSettings: the workers need more than this machine has, and it is not a cluster that could scale up.
    """
    min_workers, max_workers = workers
    cluster = ray.cluster_resources()
    gpus = min(1.0, cluster.get("GPU", 0.0)) if gpus_per_worker is None else gpus_per_worker
    cpus = max(1, int(cluster.get("CPU", 1)) // max_workers) if not gpus else 1
    for what, needed, available in (
        ("cores", min_workers * cpus, cluster.get("CPU", 0.0)),
        ("GPUs", min_workers * gpus, cluster.get("GPU", 0.0)),
    ):
        if needed > available and cluster_address() is None:
            raise BadSettings(
                f"{min_workers} workers need {needed:g} {what} and there are {available:g}: give fewer "
                "--workers or a smaller --gpus-per-worker, or train on a cluster (RAY_ADDRESS)"
            )
    return Scale(max_workers if min_workers == max_workers else workers, cpus, gpus)


def run_workers(
    ray: Any,
    config: dict[str, Any],
    scale: Scale,
    folder: Path,
    storage: str | None,
    max_failures: int,
    quiet: bool,
) -> tuple[Any, dict[str, Any]]:
    """Run Ray Train to its end and return the best checkpoint and the final results.

    Raises:
        TrainingDiverged, DataRejected, OutOfSpace and other errors of workers that a retry cannot fix.
        TrainingFailed: workers failed more often than `max_failures`.
    """
    board = ray.remote(num_cpus=0)(Board).remote()
    trainer = _trainer(config | {"board": board, "threads": scale.cpus}, scale, folder, storage, max_failures)
    outcome: dict[str, Any] = {}

    def fit() -> None:
        try:
            outcome["result"] = trainer.fit()
        except BaseException as error:
            outcome["error"] = error

    # In a thread: this one shows progress and must stay responsive to Ctrl-C.
    fitting = threading.Thread(target=fit, name="ray-train", daemon=True)
    with ProgressBar("finetune", unit="steps", quiet=quiet) as bar:
        log = TrainingLog(folder, bar)
        fitting.start()
        while fitting.is_alive():
            fitting.join(1.0)
            _log_events(ray.get(board.take_events.remote()), log)
        log.close()
    error, result = ray.get([board.error.remote(), board.result.remote()])
    if "error" in outcome:
        if error is not None:
            raise error
        raise TrainingFailed(
            f"training gave up: {_first_line(outcome['error'])}; fix the cause and run the same command "
            f"again to resume from the last checkpoint in {folder}"
        ) from outcome["error"]
    return outcome["result"].get_best_checkpoint("score", "max"), result


def _trainer(
    config: dict[str, Any], scale: Scale, folder: Path, storage: str | None, max_failures: int
) -> Any:
    import ray.train
    import ray.train.torch

    os.environ.setdefault(*_POLL)  # Ray hands it on to its controller
    resources = {"CPU": float(scale.cpus)} | ({"GPU": scale.gpus} if scale.gpus else {})
    return ray.train.torch.TorchTrainer(
        work,
        train_loop_config=config,
        scaling_config=ray.train.ScalingConfig(
            num_workers=scale.workers,
            use_gpu=bool(scale.gpus),
            resources_per_worker=resources,
        ),
        run_config=ray.train.RunConfig(
            name="checkpoints" if storage is None else folder.name,
            storage_path=str(folder) if storage is None else storage,
            failure_config=ray.train.FailureConfig(max_failures=max_failures),
            # The best by score; Ray keeps the last beside it.
            checkpoint_config=ray.train.CheckpointConfig(
                num_to_keep=1, checkpoint_score_attribute="score", checkpoint_score_order="max"
            ),
        ),
    )


def _first_line(error: BaseException) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[-1] if lines else repr(error)


def _log_events(events: list[dict[str, Any]], log: TrainingLog) -> None:
    for event in events:
        if event.pop("event") == "start":
            log.start(**event)
        else:
            log.write(event)
