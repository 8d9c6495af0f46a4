"""Memory of a training step, measured in a process of its own."""

from __future__ import annotations

import ctypes
import gc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from benchmarks.memory import status_mib
from benchmarks.train_formulations import make_step

__all__ = ["measure_memory", "measure_step_memory"]


def measure_step_memory(name: str, formulation: str) -> dict[str, float]:
    """Return `measure_memory` of a step of `train_formulations`."""
    return measure_memory(lambda: make_step(name, formulation))


def measure_memory(make: Callable[[], Any]) -> dict[str, float]:
    """Return a step's peak above the memory before it, and the size of its saved tensors, in MiB."""
    torch.set_num_threads(1)
    step = make()
    # The first step allocates lasting memory, such as Adam's moments.
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
    saved: dict[int, int] = {}
    keep_alive = []

    def save(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in own:
            saved[storage.data_ptr()] = storage.nbytes()
            keep_alive.append(storage)
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(save, lambda tensor: tensor):
        step()
    return {"peak_mib": peak, "kept_mib": sum(saved.values()) / 2**20}


def _give_memory_back() -> None:
    gc.collect()
    ctypes.CDLL("libc.so.6").malloc_trim(0)
