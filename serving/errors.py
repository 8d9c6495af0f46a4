"""Errors of the service as HTTP responses, in one type that can be sent between processes."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping

from storage.errors import PlacerayError, StoreError

__all__ = [
    "JSON_HEADERS",
    "BatcherClosed",
    "DeadlineExceeded",
    "NotReady",
    "QueueFull",
    "Refusal",
    "StoreUnavailable",
    "Unreachable",
    "internal_error",
    "refusal_of",
]

JSON_HEADERS = {"content-type": "application/json", "x-content-type-options": "nosniff"}


class Refusal(Exception):
    """An error response. It can be raised, and returned by a replica as plain data.

    Args:
        status: HTTP status.
        reason: Machine-readable.
        message: For users; ends with what to do, and reveals nothing about the machine.
        retry_after_s: Value of Retry-After, for a 503.
        headers: Further headers of the response.
    """

    def __init__(
        self,
        status: int,
        reason: str,
        message: str,
        retry_after_s: int | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(status, reason, message, retry_after_s, headers)  # all of them, for pickle
        self.status = status
        self.reason = reason
        self.message = message
        self.retry_after_s = retry_after_s
        self._headers = headers or {}

    def __str__(self) -> str:
        return self.message

    @property
    def headers(self) -> dict[str, str]:
        """All headers of the response except its length."""
        retry = {} if self.retry_after_s is None else {"retry-after": str(max(1, self.retry_after_s))}
        return {**JSON_HEADERS, **self._headers, **retry}

    @property
    def body(self) -> bytes:
        """The JSON body, of one shape for all errors."""
        return json.dumps({"error": {"reason": self.reason, "message": self.message}}).encode()


class QueueFull(PlacerayError):
    """The queue is full.

    Attributes:
        retry_after_s: Estimate, from the batches so far, of when there will be room.
    """

    reason = "overloaded"
    http_status = 503
    http_message = "Too many queries are queued; try again after Retry-After."

    def __init__(self, waiting: int, retry_after_s: float) -> None:
        super().__init__(f"{waiting} requests are queued; try again in {retry_after_s:g} s.")
        self.retry_after_s = min(60, math.ceil(retry_after_s))


class DeadlineExceeded(PlacerayError):
    """There was no result before the timeout."""

    reason = "timeout"
    http_status = 503
    http_message = "The query took too long; try again after Retry-After."
    retry_after_s = 1


class NotReady(PlacerayError):
    """A part of the service is starting or stopping."""

    reason = "not_ready"
    http_status = 503
    http_message = "A part of the service is starting; try again after Retry-After."
    retry_after_s = 2


class BatcherClosed(NotReady):
    """The batcher accepts no more items; ask another replica."""


class Unreachable(NotReady):
    """No replica answered, after retries."""


class StoreUnavailable(PlacerayError):
    """The store cannot be read now, or was replaced by another one."""

    reason = "store_unavailable"
    http_status = StoreError.http_status
    http_message = StoreError.http_message
    retry_after_s = StoreError.retry_after_s


def internal_error(request_id: str | None = None) -> Refusal:
    """Return the error of a bug, which reveals nothing but where the logs tell more."""
    which = "its request id" if request_id is None else f"the request id {request_id}"
    return Refusal(500, "internal", f"The service failed; give its operator {which}.")


def refusal_of(error: BaseException) -> Refusal | None:
    """Translate an expected error; None means that the error is a bug."""
    if isinstance(error, Refusal):
        return error
    if isinstance(error, TimeoutError):
        error = DeadlineExceeded("the query took too long")
    if not isinstance(error, PlacerayError) or error.http_status is None:
        return None
    reason, message = error.http_reason or error.reason, error.http_message or error.message
    return Refusal(error.http_status, reason, message, error.retry_after_s)
