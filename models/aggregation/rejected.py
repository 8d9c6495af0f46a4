"""The error of an aggregation that cannot be learned, read or used."""

from __future__ import annotations

from storage.errors import RejectedError

__all__ = ["AggregationRejected"]


class AggregationRejected(RejectedError):
    """An aggregation cannot be learned, its file is damaged, or it does not fit the features.

    Attributes:
        reason: Machine-readable: too_few_photos, not_finite, wrong_width, unreadable, wrong_shapes,
            too_large or no_store.
    """

    reason = "aggregation_rejected"
