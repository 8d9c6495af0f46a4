"""Binary codes: the signs of a vector, packed."""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = ["packed_signs"]


def packed_signs(values: Tensor) -> Tensor:
    """Pack the signs of (B, bits) floats into (B, bits / 8) uint8, the first in a byte's highest bit.

    A bit is 1 for zero and above. Near zero it depends on precision and resizing: codes of one store are of
    one card.
    """
    bits = (values >= 0).to(torch.uint8).reshape(len(values), -1, 8)
    weights = 1 << torch.arange(7, -1, -1, dtype=torch.uint8, device=values.device)
    return torch.sum(bits * weights, dim=-1, dtype=torch.uint8)
