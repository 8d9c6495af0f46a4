"""Refusals: one type for raising, for travelling between processes and for the response."""

from __future__ import annotations

import json
import pickle

import pytest

from models.images import ImageRejected
from serving.errors import DeadlineExceeded, QueueFull, Refusal, StoreUnavailable, refusal_of
from storage.errors import CorruptStore, PlacerayError


def test_refusal_is_the_same_after_travelling() -> None:
    sent = Refusal(503, "overloaded", "Too many; try again.", 7, {"x-name": "value"})
    received = pickle.loads(pickle.dumps(sent))
    assert (received.status, received.reason, received.message) == (503, "overloaded", "Too many; try again.")
    assert received.headers == sent.headers
    assert received.headers["retry-after"] == "7"
    assert received.headers["x-name"] == "value"
    assert json.loads(received.body) == {"error": {"reason": "overloaded", "message": "Too many; try again."}}


def test_retry_after_is_a_second_at_least_and_only_where_there_is_one() -> None:
    assert Refusal(503, "a", "b", 0).headers["retry-after"] == "1"
    assert "retry-after" not in Refusal(422, "a", "b").headers


@pytest.mark.parametrize(
    ("error", "status", "reason", "retry_after_s"),
    [
        (ImageRejected("truncated", "cut"), 422, "truncated", None),
        (CorruptStore("/srv/secret is broken"), 503, "store_unavailable", 5),
        (StoreUnavailable("unreadable"), 503, "store_unavailable", 5),
        (QueueFull(9, 2.5), 503, "overloaded", 3),
        (DeadlineExceeded("late"), 503, "timeout", 1),
        (TimeoutError(), 503, "timeout", 1),
    ],
)
def test_expected_errors_have_a_status_and_tell_nothing_of_the_machine(
    error: Exception, status: int, reason: str, retry_after_s: int | None
) -> None:
    refusal = refusal_of(error)
    assert refusal is not None
    assert (refusal.status, refusal.reason, refusal.retry_after_s) == (status, reason, retry_after_s)
    assert "/srv" not in refusal.message


def test_a_refusal_stays_itself_and_a_bug_is_none() -> None:
    refusal = Refusal(404, "unknown_image", "no")
    assert refusal_of(refusal) is refusal
    assert refusal_of(KeyError("x")) is None
    assert refusal_of(PlacerayError("of the command line")) is None
