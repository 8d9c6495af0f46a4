"""Tags: names for versions of a store, which `compact` then keeps.

In a folder a tag is a file of LanceDB's beside the table; for a bucket see `storage.commit.bucket_tags`.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from storage.commit.bucket_lease import BucketLease
from storage.commit.bucket_tags import read_bucket_tags, write_bucket_tags
from storage.commit.leases import StoreLease
from storage.durable import explain_write_errors, flush
from storage.errors import CorruptStore, StoreError, repair_command
from storage.json_values import parse_object, whole_number
from storage.layout import TABLE_FOLDER
from storage.objects.bucket_path import BucketPath
from storage.objects.files import Location, read_bounded
from storage.table.bucket_table import BucketTable
from storage.table.open_table import Table

__all__ = [
    "TAGS_FOLDER",
    "NoSuchVersion",
    "check_tag",
    "protect_tagged",
    "read_tags",
    "remove_tag",
    "tagged_version",
    "write_tag",
]

TAGS_FOLDER = f"{TABLE_FOLDER}/_refs/tags"
_NAME = re.compile(r"(?!\d+$)[A-Za-z0-9][A-Za-z0-9_.-]{0,63}", re.ASCII)
_TAG_BYTES, _MAX_VERSION = 1 << 16, 2**48 - 1


class NoSuchVersion(StoreError):
    """A version or tag that was asked for is not there, or cannot be had."""

    reason, exit_code = "no_such_version", 2


def check_tag(name: str) -> str:
    """Return the name of a tag.

    Raises:
        NoSuchVersion: it cannot be one.
    """
    if not _NAME.fullmatch(name):
        raise NoSuchVersion(
            f"{name[:80]!r} cannot be the name of a tag: take up to 64 letters, digits, dots, dashes and "
            "underscores, not digits alone"
        )
    return name


def read_tags(folder: Location) -> dict[str, int]:
    """Return the version of each tag, by its name; what is not a tag of placeray's is left out.

    Raises:
        CorruptStore: a tag cannot be read.
    """
    if not isinstance(folder, Path):
        return {name: version for name, version in read_bucket_tags(folder).items() if _NAME.fullmatch(name)}
    if not (folder / TAGS_FOLDER).is_dir():
        return {}
    names = sorted(path.name.removesuffix(".json") for path in (folder / TAGS_FOLDER).glob("*.json"))
    return {name: tagged_version(folder, name) for name in names if _NAME.fullmatch(name)}


def tagged_version(folder: Location, name: str) -> int:
    """Return the version of a tag.

    Raises:
        NoSuchVersion: there is no such tag.
        CorruptStore: it cannot be read.
    """
    check_tag(name)
    try:
        return _version_in(folder, name) if isinstance(folder, Path) else read_tags(folder)[name]
    except (FileNotFoundError, KeyError):
        raise NoSuchVersion(
            f"{folder} has no tag {name!r}: list them with placeray history --store {folder}"
        ) from None


def write_tag(folder: Location, name: str, version: int, lease: StoreLease) -> None:
    """Let a tag name a version, which exists; the caller holds the lease.

    Args:
        folder: The store.
        name: The tag; one that is there moves.
        version: What it names.
        lease: The store's, taken; in a bucket its epoch counts.

    Raises:
        NoSuchVersion: the name cannot be a tag's.
        StoreLocked: another writer has taken over the store in a bucket.
        OutOfSpace: the disk is full.
    """
    check_tag(name)
    if not isinstance(folder, Path):
        _write_in_bucket(folder, name, version, lease)
        return
    path = folder / TAGS_FOLDER
    tags = _tags(folder)
    with explain_write_errors(path, 1 << 12):
        if name in read_tags(folder):
            tags.update(name, version)
        else:
            tags.create(name, version)
        flush(path / f"{name}.json")
        flush(path)


def remove_tag(folder: Location, name: str, lease: StoreLease) -> None:
    """Remove a tag; the caller holds the lease. Arguments and errors as of `write_tag`.

    Raises:
        NoSuchVersion: there is no such tag.
    """
    tagged_version(folder, name)
    if not isinstance(folder, Path):
        _write_in_bucket(folder, name, None, lease)
        return
    path = folder / TAGS_FOLDER
    with explain_write_errors(path, 1 << 12):
        _tags(folder).delete(name)
        flush(path)


def protect_tagged(folder: Location, table: Table) -> None:
    """Let `table.optimize` keep the versions that tags name; the caller holds the lease."""
    if isinstance(table, BucketTable):
        table.keep_tagged(read_tags(folder))


def _write_in_bucket(folder: BucketPath, name: str, version: int | None, lease: StoreLease) -> None:
    assert isinstance(lease, BucketLease)
    write_bucket_tags(folder, {name: version}, lease.epoch)


def _version_in(folder: Path, name: str) -> int:
    path = folder / TAGS_FOLDER / f"{name}.json"
    try:
        values = parse_object(read_bounded(path, _TAG_BYTES, advice=repair_command(folder)))
        return whole_number(values["version"], 1, _MAX_VERSION)
    except (ValueError, KeyError) as error:
        raise CorruptStore(
            f"{path} cannot be read ({error}): delete it, then tag the version again"
        ) from error


def _tags(folder: Path) -> Any:
    import lance

    return lance.dataset(folder / TABLE_FOLDER).tags
