"""The interface of a place that keeps objects, what is known of one, and the names that objects may have."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol

from storage.errors import CorruptStore, PlacerayError

__all__ = [
    "ByteRange",
    "ConditionFailed",
    "ObjectInfo",
    "ObjectStore",
    "Tagged",
    "check_name",
]

_NAME = re.compile(r"[A-Za-z0-9_.][A-Za-z0-9_.#=-]*(?:/[A-Za-z0-9_.][A-Za-z0-9_.#=-]*)*", re.ASCII)
_MAX_NAME = 600


class ConditionFailed(PlacerayError):
    """A conditional write found another state than it requires; nothing was written."""

    reason = "condition_failed"


class ByteRange(NamedTuple):
    """A range of an object's bytes."""

    name: str
    start: int
    length: int


class Tagged(NamedTuple):
    """The contents of an object, and the tag of this state of it."""

    data: bytes
    tag: str


@dataclass(frozen=True)
class ObjectInfo:
    """What a listing says of an object.

    Attributes:
        name: Relative to the location.
        size: In bytes.
        modified_s: Seconds since 1970 by the clock of whoever keeps it.
    """

    name: str
    size: int
    modified_s: float


class ObjectStore(Protocol):
    """Keeps objects by name. Threads may share it.

    A write is durable when the call returns, and invisible until then: readers see the object of before or
    the new one, never a part. Names are relative, without `..`.

    Every method raises `StorageUnreachable`, `StorageForbidden` or `StorageThrottled` where a bucket does not
    answer as it should, after bounded retries; a folder raises `OutOfSpace`, `NotWritable`, `NotReadable`.
    """

    @property
    def shown(self) -> str:
        """The location for messages, without options."""
        ...

    def get(self, name: str, max_bytes: int) -> Tagged:
        """Return an object.

        Raises:
            FileNotFoundError: there is none.
            CorruptStore: it is larger than `max_bytes`.
        """
        ...

    def get_range(self, name: str, start: int, length: int) -> bytes:
        """Return a range of an object, shorter where the object ends; a negative `start` counts from its end.

        Raises:
            FileNotFoundError: there is no such object.
        """
        ...

    def get_ranges(self, ranges: Sequence[ByteRange]) -> list[bytes | None]:
        """Return ranges of objects, read in parallel; None where there is no such object."""
        ...

    def put(self, name: str, data: bytes | memoryview) -> None:
        """Write an object, or replace it."""
        ...

    def put_if_absent(self, name: str, data: bytes) -> str:
        """Write an object that does not exist yet; return its tag.

        An answer that was lost on the way is recognised by reading back: what is stored counts as written by
        this call if it equals `data`, which must therefore contain something unique (a nonce) wherever two
        writers may compete.

        Raises:
            ConditionFailed: there is one with other contents.
        """
        ...

    def put_if_match(self, name: str, data: bytes, tag: str) -> str:
        """Replace an object that is still in the state of `tag`; return the new tag; see `put_if_absent`.

        Raises:
            ConditionFailed: it is in another state, or gone.
        """
        ...

    def list(self, prefix: str = "") -> list[ObjectInfo]:
        """Return the objects whose names begin with `prefix` followed by a slash, sorted by name."""
        ...

    def delete(self, names: Iterable[str]) -> None:
        """Remove objects; absent ones are ignored."""
        ...


def check_name(name: str) -> str:
    """Return the name of an object.

    Raises:
        CorruptStore: it is not one that placeray or Lance gives, so it may lead anywhere.
    """
    if len(name) > _MAX_NAME or not _NAME.fullmatch(name) or ".." in name.split("/"):
        raise CorruptStore(
            f"{name[:80]!r} is not the name of an object of a store: restore the store from a backup"
        )
    return name
