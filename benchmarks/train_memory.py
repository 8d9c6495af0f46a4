"""Memory of a training step, measured in a process that does nothing else."""

from __future__ import annotations

import ctypes
import gc
from pathlib import Path
from typing import Any

import torch

from benchmarks.memory import status_mib
from benchmarks.train_formulations import make_step

__all__ = ["measure_memory"]


def measure_memory(name: str, formulation: str) -> dict[str, float]:
    """Return a step's peak above the memory before it, and what is kept for the backward pass, in MiB."""
    torch.set_num_threads(1)
    step: Any = make_step(name, formulation)
    # The first step allocates what stays, such as Adam's moments.
    step()
    step.model.zero_grad()
    _give_memory_back()
    Path("/proc/self/clear_refs").write_text("5")  # the high-water mark starts anew
    before = status_mib("VmRSS")
    step()
    peak = status_mib("VmHWM") - before
    own = {
        weights.untyped_storage().data_ptr() for weights in [*step.model.parameters(), *step.model.buffers()]
    }
    kept: dict[int, int] = {}
    keep_alive = []

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in own:
            kept[storage.data_ptr()] = storage.nbytes()
            keep_alive.append(storage)
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        step()
    return {"peak_mib": peak, "kept_mib": sum(kept.values()) / 2**20}


def _give_memory_back() -> None:
    gc.collect()
    ctypes.CDLL("libc.so.6").malloc_trim(0)
