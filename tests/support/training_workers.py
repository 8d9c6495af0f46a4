"""Several training workers as processes with a gloo group, without Ray."""

from __future__ import annotations

import json
import os
import pickle
import socket
import subprocess
import sys
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

Outcome = dict[str, Any]


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
    """Run several worker processes and return their results."""
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
                str(folder),
                str(city),
            ],
            env=os.environ | {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)},
        )
        for rank in range(size)
    ]
    try:
        codes = [worker.wait(timeout=120) for worker in workers]
    finally:
        for worker in workers:
            worker.kill()
    assert codes == [0] * size
    return [json.loads((folder / f"{rank}.json").read_text()) for rank in range(size)]


def main() -> None:
    rank, size, folder, city = int(sys.argv[1]), int(sys.argv[2]), Path(sys.argv[3]), Path(sys.argv[4])
    dist.init_process_group("gloo", rank=rank, world_size=size)
    settings = pickle.loads((folder / "settings").read_bytes())
    outcome = work(WorkerGroup(rank, size), settings, city)
    (folder / f"{rank}.json").write_text(json.dumps(outcome))
    dist.destroy_process_group()


if __name__ == "__main__":
    main()
