"""The training step of SelaVPR++ beside that of SelaVPR, on transformers of the same shape."""

from __future__ import annotations

from statistics import median
from typing import Any

import numpy as np
import torch
from torch import nn

from benchmarks.subprocesses import apart
from benchmarks.timing import alternate
from benchmarks.train_formulations import IMAGES, OURS, QUERIES, VIEWS, Step, make_step, training_photos
from benchmarks.train_memory import measure_memory
from models.networks.architecture import Architecture
from models.networks.selavprpp import SelaVPRpp
from models.networks.selavprpp_description import SelaVPRppDescription
from pipelines.training.settings import TrainingSettings
from pipelines.training.step import TrainingStep
from pipelines.training.worker_group import WorkerGroup

__all__ = ["compare_side_path", "side_step"]

_SHAPE = Architecture.of_size("s")
_ROWS = {
    "SelaVPR": ("vit", OURS),
    "SelaVPR++, float": ("side", "float"),
    "SelaVPR++, codes": ("side", "codes"),
}


def side_step(branch: str) -> Step:
    """Return a function that takes one training step of the branch `float` or `codes`."""
    torch.manual_seed(0)
    model = SelaVPRpp(SelaVPRppDescription(_SHAPE, _SHAPE.depth, 2048, None))
    model.train_branch(codes=branch == "codes")
    # Untrained adapters return zero: gradients would stop in them.
    for weights in model.parameters():
        if weights.requires_grad and not weights.any():
            nn.init.normal_(weights, std=1e-3)
    model.train()
    photos = training_photos("vit")
    # A query and its positive are of one place, every negative of its own.
    places = np.arange(QUERIES * VIEWS).reshape(QUERIES, VIEWS)
    places[:, 1] = places[:, 0]
    metres = np.where(places.reshape(-1, 1) == places.reshape(1, -1), 0.0, 1000.0)
    group = WorkerGroup(device=torch.device("cpu"))
    ours = TrainingStep(model, model.default_preprocessing(), TrainingSettings(precision="fp32"), group)
    optimizer = torch.optim.Adam(ours.parameters.values(), lr=1e-6)

    def step() -> tuple[float, float]:
        optimizer.zero_grad()
        losses = ours.backward([photos], QUERIES, [metres])
        optimizer.step()
        return losses

    step.model = model  # type: ignore[attr-defined]
    return step


def measure_side_memory(name: str, which: str) -> dict[str, float]:
    """Return a step's peak and saved tensors in MiB, for a process of its own."""
    return measure_memory(lambda: side_step(which) if name == "side" else make_step(name, which))


def compare_side_path(rounds: int, clock: Any) -> dict[str, Any]:
    """Return images/s and memory of the steps, taken in turns, and ratios of neighbouring steps."""
    steps = {
        label: side_step(which) if name == "side" else make_step(name, which)
        for label, (name, which) in _ROWS.items()
    }
    losses = {label: sum(step()) for label, step in steps.items()}
    seconds = alternate(steps, rounds, clock=clock)
    steps.clear()
    rows = {
        label: {
            "images_per_s": IMAGES / median(seconds[label]),
            "loss": losses[label],
            **apart(measure_side_memory, name, which),
        }
        for label, (name, which) in _ROWS.items()
    }
    base, *others = _ROWS
    ratios = {
        f"{label} over {base}": {
            "images_per_s": median(b / a for a, b in zip(seconds[label], seconds[base], strict=True)),
            "peak": rows[label]["peak_mib"] / rows[base]["peak_mib"],
            "kept": rows[label]["kept_mib"] / rows[base]["kept_mib"],
        }
        for label in others
    }
    return {"rows": rows, "ratios": ratios}
