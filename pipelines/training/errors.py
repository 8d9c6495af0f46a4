"""The errors of a training run; each message ends with the next step to take."""

from __future__ import annotations

from storage.errors import PlacerayError, RejectedError

__all__ = ["BadSettings", "DataRejected", "MiningRejected", "TrainingDiverged", "TrainingFailed"]


class BadSettings(PlacerayError, ValueError):
    """Settings out of range, or different from those that the run was started with."""

    reason = "bad_settings"


class DataRejected(RejectedError):
    """The photos cannot be trained on, or are no longer those that training began with.

    Attributes:
        reason: Machine-readable: too_many_rejected, photo_lost, changed, no_validation, no_marks or
            few_queries.
    """

    reason = "data_rejected"


class MiningRejected(RejectedError):
    """The data cannot be mined; raised before any work.

    Attributes:
        reason: Machine-readable: no_images, missing_coordinates, no_positives, no_negatives or bad_state.
    """

    reason = "mining_rejected"


class TrainingDiverged(PlacerayError):
    """The loss became NaN or infinite."""

    reason = "training_diverged"


class TrainingFailed(PlacerayError):
    """Workers failed more often than allowed; the run folder keeps the checkpoints."""

    reason = "training_failed"
    exit_code = 1
