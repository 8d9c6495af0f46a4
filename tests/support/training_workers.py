"""Several training workers as processes with a gloo group, without Ray."""

from __future__ import annotations

import json
import pickle
import socket
import subprocess
import sys
from datetime import timedelta
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist

from models.training.trainable import trainable_parameters
from pipelines.training.data import open_training_set
from pipelines.training.loop import TrainingLoop
from pipelines.training.settings import TrainingSettings
from pipelines.training.worker import trainable_model
from pipelines.training.worker_group import WorkerGroup
from tests.support.paths import ROOT

Outcome = dict[str, Any]
PATIENCE = timedelta(seconds=300)  # ends a hanging test


def work(group: WorkerGroup, settings: TrainingSettings, city: Path) -> Outcome:
    """Mine a round, take the gradient of its first batch, and validate."""
    torch.set_num_threads(1)
    model, card = trainable_model(settings)
    loop = TrainingLoop(
        model,
        card.preprocessing,
        settings,
        open_training_set(city, split="train"),
        open_training_set(city, split="val"),
        group=group,
    )
    triplets, _ = loop.triplets_of_round()
    losses = loop.gradients(triplets[: settings.batch])
    gradients = {}
    for name, weights in trainable_parameters(model).items():
        assert weights.grad is not None
        gradients[name] = weights.grad.flatten().tolist()
    recalls = [recall._asdict() for recall in loop.validate(loop.rankings)]
    loop.close()
    return {"triplets": triplets.tolist(), "losses": losses, "gradients": gradients, "recalls": recalls}


def work_in_processes(size: int, settings: TrainingSettings, city: Path, folder: Path) -> list[Outcome]:
    """Run several workers, the first one in this process, and return their results."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    (folder / "settings").write_bytes(pickle.dumps(settings))
    workers = [
        subprocess.Popen(
            [
                sys.executable,
                "-m",
                "tests.support.training_workers",
                str(rank),
                str(size),
                str(port),
                str(folder),
                str(city),
            ],
            cwd=ROOT,
        )
        for rank in range(1, size)
    ]
    try:
        first = work_in_group(0, size, port, settings, city)
        codes = [worker.wait(timeout=PATIENCE.total_seconds()) for worker in workers]
    finally:
        for worker in workers:
            worker.kill()
    assert codes == [0] * (size - 1)
    return [first, *(json.loads((folder / f"{rank}.json").read_text()) for rank in range(1, size))]


def work_in_group(rank: int, size: int, port: int, settings: TrainingSettings, city: Path) -> Outcome:
    dist.init_process_group(
        "gloo", init_method=f"tcp://127.0.0.1:{port}", rank=rank, world_size=size, timeout=PATIENCE
    )
    try:
        return work(WorkerGroup(rank, size), settings, city)
    finally:
        dist.destroy_process_group()


def main() -> None:
    rank, size, port = map(int, sys.argv[1:4])
    folder, city = Path(sys.argv[4]), Path(sys.argv[5])
    settings = pickle.loads((folder / "settings").read_bytes())
    outcome = work_in_group(rank, size, port, settings, city)
    (folder / f"{rank}.json").write_text(json.dumps(outcome))


if __name__ == "__main__":
    main()
