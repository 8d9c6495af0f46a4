"""Why a query gets no answer, in the terms of HTTP, and able to travel between processes."""

from __future__ import annotations

import math
from dataclasses import dataclass

from models.errors import ModelFault
from models.images.decoder import ImageRejected
from serving.stages.batcher import BatcherClosed, DeadlineExceeded, QueueFull
from storage.errors import InvalidBatch, StoreError

__all__ = ["QueryRefused", "Refusal", "StoreUnavailable", "Unreachable", "refusal_of"]

# What the decoder rejects for its size alone.
_TOO_LARGE = ("too_large", "too_many_pixels")


@dataclass(frozen=True)
class Refusal:
    """What a client is told.

    Attributes:
        status: HTTP status.
        reason: Machine-readable.
        message: For people; ends with what to do, and tells nothing about the machine.
        retry_after_s: When to come again, for a 503.
    """

    status: int
    reason: str
    message: str
    retry_after_s: int | None = None


class QueryRefused(Exception):
    """A query gets no answer; `refusal` says why."""

    def __init__(self, refusal: Refusal) -> None:
        super().__init__(refusal)
        self.refusal = refusal


class StoreUnavailable(Exception):
    """The store cannot be read now, or another one lies in its place."""


class Unreachable(Exception):
    """No replica answered, although it was asked again."""


def refusal_of(error: BaseException) -> Refusal | None:
    """Translate an error that can happen to any query; None means that it is a bug."""
    if isinstance(error, QueryRefused):
        return error.refusal
    if isinstance(error, ImageRejected):
        return Refusal(413 if error.reason in _TOO_LARGE else 422, error.reason, str(error))
    if isinstance(error, QueueFull):
        wait_s = min(60, math.ceil(error.retry_after_s))
        return Refusal(503, "overloaded", "Too many queries wait; try again after Retry-After.", wait_s)
    if isinstance(error, DeadlineExceeded | TimeoutError):
        return Refusal(503, "timeout", "The query took too long; try again after Retry-After.", 1)
    if isinstance(error, StoreUnavailable | StoreError) and not isinstance(error, InvalidBatch):
        said = "The store cannot be read at the moment; try again after Retry-After."
        return Refusal(503, "store_unavailable", said, 5)
    if isinstance(error, ModelFault | InvalidBatch):
        said = "The model gave numbers that cannot be searched for this photo; tell the operator."
        return Refusal(503, "model_fault", said, 5)
    if isinstance(error, BatcherClosed | Unreachable):
        return Refusal(503, "not_ready", "A part of the service is starting; try again after Retry-After.", 2)
    return None
