"""Errors: exit codes, HTTP statuses, and transfer between processes."""

from __future__ import annotations

import importlib
import json
import pickle
import pkgutil

import pytest

import models
import pipelines
import serving
import storage
from models.images import ImageRejected
from storage.errors import (
    CardMismatch,
    CorruptStore,
    OutOfSpace,
    PlacerayError,
    RejectedError,
    StoreLocked,
    StoreNotFound,
    error_from_dict,
)


def kinds() -> list[type[PlacerayError]]:
    """Return every error of placeray, after importing all of it."""
    for package in (storage, models, serving, pipelines):
        for module in pkgutil.walk_packages(package.__path__, f"{package.__name__}."):
            if not module.name.endswith(("__main__", "triton_kernel")):
                importlib.import_module(module.name)
    classes: list[type[PlacerayError]] = []
    queue: list[type[PlacerayError]] = [PlacerayError]
    while queue:
        subclasses = queue.pop().__subclasses__()
        classes += subclasses
        queue += subclasses
    return [kind for kind in classes if kind is not RejectedError]


def test_exit_codes() -> None:
    codes = {kind: kind.exit_code for kind in (StoreLocked, CardMismatch, CorruptStore, OutOfSpace)}
    assert codes == {StoreLocked: 4, CardMismatch: 5, CorruptStore: 6, OutOfSpace: 7}
    assert StoreNotFound.exit_code == PlacerayError.exit_code == 2


def test_every_error_crosses_processes_as_text_and_as_itself() -> None:
    classes = kinds()
    assert len(classes) > 30
    for kind in classes:
        if kind.__init__ not in (PlacerayError.__init__, Exception.__init__) and not issubclass(
            kind, RejectedError
        ):
            continue  # made from other values than a message
        error = kind("why", "what to do") if issubclass(kind, RejectedError) else kind("what to do")
        for copy in (
            error_from_dict(json.loads(json.dumps(error.to_dict()))),
            pickle.loads(pickle.dumps(error)),
        ):
            assert type(copy) is kind or "reason" not in kind.__dict__
            assert (copy.reason, copy.message) == (error.reason, "what to do")


def test_an_unknown_kind_keeps_its_reason() -> None:
    error = error_from_dict({"kind": "of_tomorrow", "reason": "new", "message": "upgrade"})
    assert (type(error), error.reason, error.message) == (PlacerayError, "new", "upgrade")


def test_a_photo_too_large_has_a_status_of_its_own() -> None:
    assert ImageRejected("too_large", "").http_status == 413
    assert ImageRejected("truncated", "").http_status == 422


def test_two_kinds_do_not_share_a_reason() -> None:
    with pytest.raises(TypeError, match="share the reason 'store_locked'"):

        class Other(PlacerayError):
            reason = "store_locked"


# Their messages name numbers, settings and what the request gave, no files.
PLAIN = (
    "not_calibrated",
    "level_not_promised",
    "bad_filter",
    "tags_not_kept",
    "bad_track",
    "another_aggregation",
    "version_gone",
)


def test_http_messages_hide_internal_details() -> None:
    for kind in kinds():
        if kind.http_status is not None and not issubclass(kind, RejectedError) and kind.reason not in PLAIN:
            assert kind.http_message, kind
