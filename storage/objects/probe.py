"""A probe whether a server honours conditions on writes, which is what keeps two writers apart."""

from __future__ import annotations

import secrets
from collections.abc import Callable

from storage.objects.errors import ConditionsIgnored
from storage.objects.protocol import ConditionFailed, ObjectStore

__all__ = ["require_conditions"]


def require_conditions(objects: ObjectStore) -> None:
    """Try every condition that a store relies on, with an object that is removed again.

    Raises:
        ConditionsIgnored: a write went through although its condition does not hold.
        StorageForbidden: this user may not write there.
    """
    name = f"probe-{secrets.token_hex(8)}"
    first, second = (f"{name} {secrets.token_hex(16)}".encode() for _ in range(2))
    try:
        tag = objects.put_if_absent(name, first)
        _refuses(objects, lambda: objects.put_if_absent(name, second), "If-None-Match")
        newer = objects.put_if_match(name, second, tag)
        _refuses(objects, lambda: objects.put_if_match(name, first, tag), "If-Match")
        if newer == tag or objects.get(name, 1 << 10).data != second:
            raise _ignored(objects, "If-Match")
    finally:
        objects.delete([name])


def _refuses(objects: ObjectStore, write: Callable[[], str], condition: str) -> None:
    try:
        write()
    except ConditionFailed:
        return
    raise _ignored(objects, condition)


def _ignored(objects: ObjectStore, condition: str) -> ConditionsIgnored:
    return ConditionsIgnored(
        f"{objects.shown}: the server ignores the condition {condition} on writes, so two writers could lose "
        "each other's rows: use a server that honours it (Amazon S3, Google Cloud Storage, Azure Blob "
        "Storage, SeaweedFS)"
    )
