"""Errors of loading and running models. Imports no torch."""

from __future__ import annotations

from storage.errors import InvalidBatch, PlacerayError, RejectedError

__all__ = ["BadImageSize", "ModelFault", "UnknownModel", "WeightsRejected", "WeightsUnavailable"]


class ModelFault(PlacerayError):
    """The network's output is not finite or has no direction, so it cannot be compared."""

    reason = "model_fault"
    http_status = 503
    http_message = InvalidBatch.http_message
    retry_after_s = 5


class UnknownModel(PlacerayError, ValueError):
    """The name is not that of a model, and no file has this path."""

    reason = "unknown_model"


class BadImageSize(PlacerayError, ValueError):
    """The model does not take input of this size."""

    reason = "bad_image_size"


class WeightsUnavailable(PlacerayError):
    """The weights of a named model are neither installed nor downloadable here."""

    reason = "weights_unavailable"


class WeightsRejected(RejectedError):
    """A weights file is damaged, unsafe, or does not match its metadata.

    Attributes:
        reason: Machine-readable: not_a_file, unreadable, unsafe, wrong_layout, missing_tensors,
            unknown_tensors, wrong_shapes, not_finite, wrong_sha256, wrong_card or other_backbone.
    """

    reason = "weights_rejected"
