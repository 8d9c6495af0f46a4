"""Named tensors: their digest, and loading them into a model with checks."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping

import torch
from torch import Tensor, nn

from models.errors import WeightsRejected

__all__ = ["fill", "require_finite", "require_fitting", "weights_digest"]


def weights_digest(tensors: Mapping[str, Tensor]) -> str:
    """Return the SHA-256 over every tensor, sorted by name: name, dtype, shape, bytes."""
    digest = hashlib.sha256()
    for name in sorted(tensors):
        tensor = tensors[name].detach().cpu().contiguous()
        dtype = str(tensor.dtype).removeprefix("torch.")
        digest.update(json.dumps([name, dtype, list(tensor.shape)]).encode())
        digest.update(tensor.reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


def fill(model: nn.Module, tensors: Mapping[str, Tensor], *, shown: Callable[[str], str] = str) -> None:
    """Load exactly these tensors into the model.

    Args:
        model: To be filled.
        tensors: By the names in its state dict.
        shown: Returns a tensor's name for messages, as its file has it.

    Raises:
        WeightsRejected: a tensor is missing, unknown, of the wrong shape or not finite.
    """
    require_fitting(model.state_dict(), tensors, shown=shown)
    require_finite(tensors, shown=shown)
    model.load_state_dict(dict(tensors), assign=True)


def require_fitting(
    expected: Mapping[str, Tensor], tensors: Mapping[str, Tensor], *, shown: Callable[[str], str] = str
) -> None:
    """Reject tensors that do not match the expected ones in name, shape and dtype; `shown` as of `fill`.

    Raises:
        WeightsRejected: a tensor is missing, unknown or of the wrong shape.
    """
    missing, unknown = sorted(expected.keys() - tensors.keys()), sorted(tensors.keys() - expected.keys())
    wrong = sorted(
        name
        for name in expected.keys() & tensors
        if (expected[name].shape, expected[name].dtype) != (tensors[name].shape, tensors[name].dtype)
    )
    problems = (
        ("missing_tensors", missing, "pass the whole checkpoint of the model"),
        ("unknown_tensors", unknown, "pass a checkpoint of this model, without other heads"),
        ("wrong_shapes", wrong, "pass a checkpoint of one model"),
    )
    for reason, names, advice in problems:
        if names:
            raise WeightsRejected(
                reason,
                f"{reason.replace('_', ' ')}: {len(names)}, such as {shown(names[0])}: {advice}",
            )


def require_finite(tensors: Mapping[str, Tensor], *, shown: Callable[[str], str] = str) -> None:
    """Reject weights that are NaN or infinite, which would corrupt every descriptor; `shown` as of `fill`.

    Raises:
        WeightsRejected: a value is NaN or infinite.
    """
    for name in sorted(tensors):
        if not bool(torch.isfinite(tensors[name]).all()):
            raise WeightsRejected(
                "not_finite", f"{shown(name)} holds NaN or infinite values: go back to an earlier checkpoint"
            )
