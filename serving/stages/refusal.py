"""Why a query gets no answer, in the terms of HTTP, and able to travel between processes."""

from __future__ import annotations

from dataclasses import dataclass

from serving.stages.batcher import DeadlineExceeded, NotReady
from storage.errors import PlacerayError, StoreError

__all__ = ["QueryRefused", "Refusal", "StoreUnavailable", "Unreachable", "refusal_of"]


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


class StoreUnavailable(PlacerayError):
    """The store cannot be read now, or another one lies in its place."""

    reason = "store_unavailable"
    http_status = StoreError.http_status
    http_message = StoreError.http_message
    retry_after_s = StoreError.retry_after_s


class Unreachable(NotReady):
    """No replica answered, although it was asked again."""


def refusal_of(error: BaseException) -> Refusal | None:
    """Translate an error that can happen to any query; None means that it is a bug."""
    if isinstance(error, QueryRefused):
        return error.refusal
    if isinstance(error, TimeoutError):
        error = DeadlineExceeded("the query took too long")
    if not isinstance(error, PlacerayError) or error.http_status is None:
        return None
    reason, message = error.http_reason or error.reason, error.http_message or error.message
    return Refusal(error.http_status, reason, message, error.retry_after_s)
