"""Safetensors files of others: tensors by name, without a card."""

from __future__ import annotations

import safetensors
import safetensors.torch
from torch import Tensor

from models.errors import WeightsRejected

__all__ = ["read_safetensors"]


def read_safetensors(path: str) -> dict[str, Tensor]:
    """Return the tensors of a file.

    Raises:
        WeightsRejected: it cannot be read, or is of another kind.
    """
    try:
        return safetensors.torch.load_file(path)
    except (safetensors.SafetensorError, OSError, ValueError, RuntimeError) as error:
        raise WeightsRejected(
            "unreadable",
            f"{path} is damaged or not a safetensors file: convert the weights with safetensors.torch",
        ) from error
