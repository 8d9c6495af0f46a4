"""Named tensors: their digest, and loading them into a model with checks."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping

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


def fill(model: nn.Module, tensors: Mapping[str, Tensor]) -> None:
    """Load exactly these tensors into the model.

    Raises:
        WeightsRejected: a tensor is missing, unknown, of the wrong shape or not finite.
    """
    require_fitting(model.state_dict(), tensors)
    require_finite(tensors)
    model.load_state_dict(dict(tensors), assign=True)


def require_fitting(expected: Mapping[str, Tensor], tensors: Mapping[str, Tensor]) -> None:
    """Reject tensors that do not match the expected ones in name, shape and dtype.

    Raises:
        WeightsRejected: a tensor is missing, unknown or of the wrong shape.
    """
    missing, unknown = sorted(expected.keys() - tensors.keys()), sorted(tensors.keys() - expected.keys())
    wrong = sorted(
        name
        for name in expected.keys() & tensors
        if (expected[name].shape, expected[name].dtype) != (tensors[name].shape, tensors[name].dtype)
    )
    problems = (("missing_tensors", missing), ("unknown_tensors", unknown), ("wrong_shapes", wrong))
    for reason, names in problems:
        if names:
            raise WeightsRejected(
                reason,
                f"{reason.replace('_', ' ')}: {len(names)}, such as {names[0]}: pass a complete checkpoint "
                "of this kind of model",
            )


def require_finite(tensors: Mapping[str, Tensor]) -> None:
    """Reject weights that are NaN or infinite: they would corrupt every descriptor.

    Raises:
        WeightsRejected: a value is NaN or infinite.
    """
    for name in sorted(tensors):
        if not bool(torch.isfinite(tensors[name]).all()):
            raise WeightsRejected(
                "not_finite", f"{name} holds NaN or infinite values: go back to an earlier checkpoint"
            )
