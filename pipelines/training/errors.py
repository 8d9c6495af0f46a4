"""What can be wrong with a training run; each message says what to do next."""

from __future__ import annotations

__all__ = ["BadSettings", "DataRejected", "MiningRejected", "TrainingDiverged", "TrainingFailed"]


class BadSettings(ValueError):
    """Settings that make no sense, or that do not fit a run begun with others."""


class _Rejected(Exception):
    """Data that cannot be used, for a reason."""

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(reason, message)
        self.reason = reason

    def __str__(self) -> str:
        return str(self.args[1])


class DataRejected(_Rejected):
    """The photos cannot be trained on, or are no longer those that training began with.

    Attributes:
        reason: Machine-readable: too_many_rejected, photo_lost, changed, no_validation, no_marks or
            few_queries.
    """


class MiningRejected(_Rejected):
    """The data cannot be mined; said before any work.

    Attributes:
        reason: Machine-readable: no_images, missing_coordinates, mixed_zones, no_positives, no_negatives or
            bad_state.
    """


class TrainingDiverged(Exception):
    """The loss is no number any more."""


class TrainingFailed(Exception):
    """Workers failed more often than was allowed; what was reached is in the run folder."""
