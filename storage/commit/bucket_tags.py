"""Tags of a store in a bucket: one object, replaced only in the state it is known in.

LanceDB writes a tag without a condition, so a writer that was paused could move one after it lost the lease.
Here the object carries the epoch of the last writer that took over, and who has an older one is refused.
LanceDB gets a copy just before old versions are removed: it keeps what is tagged.
"""

from __future__ import annotations

import json
import secrets
from collections.abc import Mapping
from typing import NamedTuple

from storage.errors import CorruptStore, StoreLocked
from storage.json_values import parse_object, whole_number
from storage.layout import TAGS_FILE
from storage.objects.bucket_path import BucketPath
from storage.objects.protocol import ConditionFailed

__all__ = ["claim_bucket_tags", "read_bucket_tags", "write_bucket_tags"]

_MAX_BYTES, _MAX_VERSION, _MAX_EPOCH = 1 << 20, 2**48 - 1, 2**53


class _Held(NamedTuple):
    """The object as it is: its tags, the epoch in it, and the state it is in (empty: there is none)."""

    tags: dict[str, int]
    epoch: int
    state: str


def read_bucket_tags(location: BucketPath) -> dict[str, int]:
    """Return the version of each tag, by its name.

    Raises:
        CorruptStore: they cannot be read.
    """
    return _read(location).tags


def write_bucket_tags(location: BucketPath, changes: Mapping[str, int | None], epoch: int) -> None:
    """Set tags, or remove those whose version is None.

    Args:
        location: The store.
        changes: Versions by tag.
        epoch: Of the caller's lease.

    Raises:
        StoreLocked: another writer has taken over; nothing changed.
    """
    held = _read(location)
    if held.epoch > epoch:
        raise _taken_over(location)
    tags = {name: version for name, version in (held.tags | dict(changes)).items() if version is not None}
    _write(location, held, tags, held.epoch)


def claim_bucket_tags(location: BucketPath, epoch: int) -> None:
    """Let no writer with an older lease change a tag any more.

    Raises:
        StoreLocked: another writer has taken over.
    """
    held = _read(location)
    if held.epoch > epoch:
        raise _taken_over(location)
    _write(location, held, held.tags, epoch)


def _read(location: BucketPath) -> _Held:
    try:
        data, state = location.objects.get(TAGS_FILE, _MAX_BYTES)
    except FileNotFoundError:
        return _Held({}, 0, "")
    try:
        values = parse_object(data)
        named = values["tags"]
        if not isinstance(named, dict):
            raise ValueError("tags is not an object")
        tags = {name: whole_number(version, 1, _MAX_VERSION) for name, version in named.items()}
        return _Held(tags, whole_number(values["epoch"], 0, _MAX_EPOCH), state)
    except (ValueError, KeyError) as error:
        raise CorruptStore(
            f"{location}/{TAGS_FILE} cannot be read ({error}): delete this object, then tag the "
            "versions again"
        ) from error


def _write(location: BucketPath, held: _Held, tags: Mapping[str, int], epoch: int) -> None:
    # The nonce tells this writer's own object after an answer was lost.
    values = {"tags": dict(tags), "epoch": epoch, "nonce": secrets.token_hex(8)}
    data = (json.dumps(values, sort_keys=True) + "\n").encode()
    try:
        if held.state:
            location.objects.put_if_match(TAGS_FILE, data, held.state)
        else:
            location.objects.put_if_absent(TAGS_FILE, data)
    except ConditionFailed:
        raise _taken_over(location) from None


def _taken_over(location: BucketPath) -> StoreLocked:
    return StoreLocked(
        f"{location} was taken over by another writer; no tag was changed: run the same command again when "
        "it is done"
    )
