"""Training checkpoints as safetensors: trained tensors, optimiser state, random state and JSON values.

No code in a file is executed. The frozen part of the model is not included.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import safetensors
import safetensors.torch
import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from models.checkpoints.tensors import require_finite
from models.errors import WeightsRejected
from models.training.trainable import restore_trainable, trainable_parameters, trainable_state

__all__ = ["load_checkpoint", "read_trained", "save_checkpoint"]

_TRAINED, _OPTIMISER, _RANDOM = "trained.", "optimiser.", "random_state"
_FORMAT = "placeray-training-1"
_ADAM_KEYS = {"step", "exp_avg", "exp_avg_sq"}


def save_checkpoint(path: str | Path, model: nn.Module, optimiser: Optimizer, values: dict[str, Any]) -> None:
    """Write the trained tensors, the optimiser's state, torch's CPU random state, and JSON values.

    Args:
        path: A new file; the caller moves it into place afterwards.
        model: Its `trainable_parameters` are those of the optimiser, in the same order.
        optimiser: Adam or AdamW.
        values: JSON-serialisable values.

    Raises:
        OSError: the file cannot be written, for instance because the disk is full.
    """
    names = list(trainable_parameters(model))
    tensors = {_TRAINED + name: tensor.contiguous() for name, tensor in trainable_state(model).items()}
    for index, state in optimiser.state_dict()["state"].items():
        for key, tensor in state.items():
            tensors[f"{_OPTIMISER}{key}.{names[index]}"] = tensor.detach().cpu().contiguous()
    tensors[_RANDOM] = torch.get_rng_state()
    content = safetensors.torch.save(tensors, metadata={"format": _FORMAT, "values": json.dumps(values)})
    Path(path).write_bytes(content)


def load_checkpoint(path: str | Path, model: nn.Module, optimiser: Optimizer) -> dict[str, Any]:
    """Restore everything that `save_checkpoint` wrote and return the JSON values.

    Raises:
        WeightsRejected: the file is damaged, or of another model.
    """
    tensors, values = _read(Path(path))
    state = _optimiser_state(Path(path), trainable_parameters(model), _with_prefix(_OPTIMISER, tensors))
    restore_trainable(model, _with_prefix(_TRAINED, tensors))
    optimiser.load_state_dict({**optimiser.state_dict(), "state": state})
    torch.set_rng_state(tensors[_RANDOM])
    return values


def read_trained(path: str | Path, model: nn.Module) -> dict[str, Any]:
    """Load only the trained tensors of a checkpoint into a model, and return the JSON values.

    Raises:
        WeightsRejected: the file is damaged, or of another model.
    """
    tensors, values = _read(Path(path))
    restore_trainable(model, _with_prefix(_TRAINED, tensors))
    return values


def _optimiser_state(
    path: Path, parameters: Mapping[str, Tensor], tensors: Mapping[str, Tensor]
) -> dict[int, dict[str, Tensor]]:
    """Return Adam's state of each parameter by index; empty before the first step."""
    require_finite(tensors)
    names = list(parameters)
    state: dict[int, dict[str, Tensor]] = {}
    for name, tensor in tensors.items():
        key, _, parameter = name.partition(".")
        if parameter not in parameters:
            raise WeightsRejected(
                "unknown_tensors", f"{path} is of another model ({parameter}): resume with its own model"
            )
        if tensor.shape != (() if key == "step" else parameters[parameter].shape):
            raise WeightsRejected(
                "wrong_shapes", f"{path} is of another model (shapes of {name}): resume with its own model"
            )
        state.setdefault(names.index(parameter), {})[key] = tensor
    if state and (len(state) != len(names) or any(set(one) != _ADAM_KEYS for one in state.values())):
        raise WeightsRejected("missing_tensors", f"{path} lacks state of Adam: resume from another one")
    return state


def _read(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    try:
        with safetensors.safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            if metadata.get("format") != _FORMAT:
                raise WeightsRejected(
                    "wrong_layout",
                    f"{path} is not a training checkpoint: resume from another",
                )
            values = json.loads(metadata["values"])
            tensors = {name: file.get_tensor(name).clone() for name in file.keys()}  # noqa: SIM118 (no mapping)
    except (safetensors.SafetensorError, OSError, ValueError, KeyError, RuntimeError) as error:
        raise WeightsRejected(
            "unreadable", f"{path} is damaged or not a training checkpoint: resume from another one"
        ) from error
    try:
        torch.Generator().set_state(tensors[_RANDOM])
    except (KeyError, RuntimeError, TypeError) as error:
        raise WeightsRejected(
            "wrong_layout", f"{path} lacks its random state: resume from another one"
        ) from error
    if not isinstance(values, dict):
        raise WeightsRejected("wrong_layout", f"{path} lacks its values: resume from another one")
    return tensors, values


def _with_prefix(prefix: str, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): tensor for name, tensor in tensors.items() if name.startswith(prefix)}
