"""What can go wrong inside a model."""

from __future__ import annotations

__all__ = ["ModelFault"]


class ModelFault(Exception):
    """The network's output is not finite or has no direction, so it cannot be compared."""
