"""What can go wrong inside a model."""

from __future__ import annotations

from storage.errors import InvalidBatch, PlacerayError

__all__ = ["ModelFault"]


class ModelFault(PlacerayError):
    """The network's output is not finite or has no direction, so it cannot be compared."""

    reason = "model_fault"
    http_status = 503
    http_message = InvalidBatch.http_message
    retry_after_s = 5
